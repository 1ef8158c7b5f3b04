"""The folder of a run or a stage: what it was begun with, who works in it, and files written whole or not at all."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from llm2comp.errors import SettingsError, TrainingError

if TYPE_CHECKING:
    from accelerate import PartialState

__all__ = ["changed_fields", "check_settings", "described", "main_process_first", "processes", "remember_settings", "sole_user", "write_whole"]

SETTINGS_FILE = "settings.json"


def processes() -> "PartialState":
    """The processes of this run; a wait for one that reads a large corpus may last."""
    from accelerate import PartialState

    return PartialState(timeout=timedelta(days=1))


@contextmanager
def main_process_first() -> Iterator[bool]:
    """The main process runs the body before the others do; gives whether this is it."""
    state = processes()
    with state.main_process_first():
        yield state.is_main_process


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder.

    Raises:
        TrainingError: If another run works in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not processes().is_main_process:
        yield
        return
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise TrainingError(f"another run is training in {folder}; wait for it, stop it, or give another output folder") from error


def write_whole(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def described(settings: Any) -> dict[str, Any]:
    """A settings object as the JSON values that a folder remembers it by; None as none."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(settings), default=dict)) if settings is not None else {}
    return plain


def remember_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Notes what the folder is begun with."""
    write_whole(folder / SETTINGS_FILE, json.dumps(settings, indent=2) + "\n")


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Compares settings with those the folder was begun with, if it was.

    Raises:
        SettingsError: Naming the fields that differ, with both values.
    """
    path = folder / SETTINGS_FILE
    if not path.is_file():
        return
    changed = changed_fields(json.loads(path.read_text(encoding="utf-8")), settings)
    if changed:
        raise SettingsError(
            f"{folder} was begun with other settings: {'; '.join(changed)}. Give those again, or another output folder, or delete {folder} to train it anew"
        )


def changed_fields(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`field: old, now new` of each field that differs; fields that only one of the two knows are newer than the other."""
    found = []
    for name in now:
        if name not in before or before[name] == now[name]:
            continue
        if isinstance(before[name], Mapping) and isinstance(now[name], Mapping):
            found += changed_fields(before[name], now[name], f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name} was {json.dumps(before[name])}, now {json.dumps(now[name])}")
    return found
