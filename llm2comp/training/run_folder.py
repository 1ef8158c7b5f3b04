"""The folder of a run or a stage: what it was begun with and who works in it."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from llm2comp.atomic import write_file
from llm2comp.checked_json import JsonFormat
from llm2comp.errors import SettingsError, TrainingError
from llm2comp.training.sources import SOURCE_FIELDS

if TYPE_CHECKING:
    from accelerate import PartialState

__all__ = [
    "changed_fields",
    "check_settings",
    "described",
    "main_process_first",
    "processes",
    "remember_settings",
    "sole_user",
]

SETTINGS_FILE = "settings.json"
_FORMAT = JsonFormat(
    "record of settings", SettingsError, "give another output folder, or delete this one to train it anew"
)
_MAY_CHANGE = (
    "chunk_rows",
    "eval_steps",
    "gradient_checkpointing",
    "log_steps",
    "micro_batch",
    "report_to",
    "save_steps",
)
"""Fields of a stage that change how it is run and reported, not what is learned."""


def processes() -> "PartialState":
    """The processes of this run; a wait for one that reads a large corpus may last."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=1))


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
        raise TrainingError(
            f"another run is training in {folder}; wait for it, stop it, or give another output folder"
        ) from error


def described(settings: Any) -> dict[str, Any]:
    """A settings object as the JSON values that a folder remembers it by, files and folders by their whole path; None as none."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(settings), default=dict)) if settings is not None else {}
    return {name: _whole_paths(value, name) for name, value in plain.items()}


def _whole_paths(value: Any, field: str) -> Any:
    if isinstance(value, dict):
        return {name: _whole_paths(entry, name) for name, entry in value.items()}
    if isinstance(value, list):
        return [_whole_paths(entry, field) for entry in value]
    if isinstance(value, str) and field in (*SOURCE_FIELDS, "backbone") and Path(value).exists():
        return str(Path(value).resolve())
    return value


def remember_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Notes what the folder is begun with, and where it was then."""
    content = {**settings, "folder": str(folder.resolve())}
    write_file(folder / SETTINGS_FILE, [json.dumps(content, indent=2), "\n"])


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Compares settings with those the folder was begun with, if it was.

    It may have moved since, with what lies beside it, and what only concerns memory, checkpoints and reports may
    change.

    Raises:
        SettingsError: Naming the fields that differ, with both values.
    """
    path = folder / SETTINGS_FILE
    if not path.is_file():
        return
    before = _FORMAT.read(path)
    then, now = Path(before.get("folder", folder)).parent, folder.resolve().parent
    compared = {name: value for name, value in settings.items() if name not in _MAY_CHANGE}
    changed = changed_fields(before, compared, moved=lambda text: text.replace(f"{then}{os.sep}", f"{now}{os.sep}", 1))
    if changed:
        raise SettingsError(
            f"{folder} was begun with other settings: {'; '.join(changed)}. Give those again, or another output "
            f"folder, or delete {folder} to train it anew"
        )


def changed_fields(
    before: Mapping[str, Any], now: Mapping[str, Any], *, moved: Callable[[str], str] = str, prefix: str = ""
) -> list[str]:
    """`field was old, now new` for each field that differs; fields that only one of the two knows are newer than the other.

    Args:
        before: Fields with values, as JSON has them.
        now: The same.
        moved: What a path of `before` is called now.
        prefix: Put before the names.
    """
    found = []
    for name in now:
        if name not in before or _same(before[name], now[name], moved):
            continue
        if isinstance(before[name], Mapping) and isinstance(now[name], Mapping):
            found += changed_fields(before[name], now[name], moved=moved, prefix=f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name} was {json.dumps(before[name])}, now {json.dumps(now[name])}")
    return found


def _same(before: Any, now: Any, moved: Callable[[str], str]) -> bool:
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return all(_same(one, other, moved) for one, other in zip(before, now, strict=True))
    return bool(before == now or (isinstance(before, str) and moved(before) == now))
