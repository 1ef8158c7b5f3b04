"""Folder of a run or a stage: the settings it was begun with, and a lock against a second run."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from llm2comp.atomic import write_file
from llm2comp.checked_json import JsonFormat
from llm2comp.errors import SettingsError, TrainingError, one_line
from llm2comp.model_folder import check_name
from llm2comp.training.sources import SOURCE_FIELDS

if TYPE_CHECKING:
    from accelerate import PartialState

__all__ = [
    "changed_fields",
    "check_settings",
    "main_process_first",
    "processes",
    "remember_settings",
    "settings_values",
    "sole_user",
    "updates_before",
    "write_run_file",
    "writing",
]

SETTINGS_FILE = "settings.json"
_FORMAT = JsonFormat(
    "record of settings", SettingsError, "give another output folder, or delete this one to train again"
)
_MAY_CHANGE = (
    "chunk_rows",
    "eval_steps",
    "gradient_checkpointing",
    "log_steps",
    "micro_batch",
    "report_to",
    "save_steps",
    "stop_diverged",
)
"""Fields of a stage that affect memory, checkpoints and reports, but not the trained weights."""

_LENGTH = ("decay_steps", "steps", "warmup_steps")
"""Fields that change when a run is continued with more updates."""


def processes() -> "PartialState":
    """State of this run's processes, which wait up to a day for one another: reading a large corpus takes long."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=1))


@contextmanager
def main_process_first() -> Iterator[bool]:
    """Runs the block in the main process before the others; yields whether this is the main process."""
    state = processes()
    with state.main_process_first():
        yield state.is_main_process


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Locks a folder against other runs.

    Raises:
        TrainingError: If another run uses it, or it cannot be made.
        ModelFolderError: If its name is not UTF-8, so that no model can be saved there.
    """
    check_name(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(
            f"{folder}: cannot be made a folder of a run ({error.strerror}); give another output folder"
        ) from error
    if not processes().is_main_process:
        yield
        return
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise TrainingError(
            f"another run is writing to {folder}; wait for it, stop it, or give another output folder"
        ) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Names the file of a run that the block cannot write.

    Raises:
        TrainingError: Instead of an OSError of the block.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise TrainingError(
            f"{path} could not be written: {reason}. Free space there and start again: it goes on from the last "
            "checkpoint"
        ) from error


def write_run_file(path: Path, parts: Iterable[str | bytes]) -> None:
    """Writes a file of a run atomically; an unfinished one, left by a run that was killed, is replaced.

    Only the process that has locked the folder writes there, so the unfinished file can have a fixed name.

    Raises:
        TrainingError: If it cannot be written.
    """
    with writing(path):
        write_file(path, parts, draft=f".{path.name}.unfinished")


def settings_values(settings: Any) -> dict[str, Any]:
    """Settings as JSON values, with absolute paths of existing files and folders; no values for None."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(settings), default=dict)) if settings is not None else {}
    return {name: _absolute_paths(value, name) for name, value in plain.items()}


def _absolute_paths(value: Any, field: str) -> Any:
    if isinstance(value, dict):
        return {name: _absolute_paths(entry, name) for name, entry in value.items()}
    if isinstance(value, list):
        return [_absolute_paths(entry, field) for entry in value]
    if isinstance(value, str) and field in (*SOURCE_FIELDS, "backbone") and Path(value).exists():
        return str(Path(value).resolve())
    return value


def remember_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Writes the settings a folder is begun with, and where the folder is."""
    content = {**settings, "folder": str(folder.resolve())}
    write_run_file(folder / SETTINGS_FILE, [json.dumps(content, indent=2), "\n"])


def check_settings(folder: Path, settings: Mapping[str, Any], *, may_grow: bool = False) -> None:
    """Compares settings with those a folder was begun with, if it was begun.

    Settings of memory, checkpoints and reports may change, and the folder may have moved together with the files
    beside it.

    Args:
        folder: The folder.
        settings: The present settings.
        may_grow: Whether `steps` may be more than before; warm-up and decay, which follow from it, may then change.

    Raises:
        SettingsError: Naming the fields that differ, with both values.
    """
    path = folder / SETTINGS_FILE
    if not path.is_file():
        return
    before = _FORMAT.read(path)
    then, now = Path(before.get("folder", folder)).parent, folder.resolve().parent
    may_change = (*_MAY_CHANGE, *(_LENGTH if may_grow and updates_before(folder, settings) else ()))
    compared = {name: value for name, value in settings.items() if name not in may_change}
    changed = changed_fields(before, compared, moved=lambda text: text.replace(f"{then}{os.sep}", f"{now}{os.sep}", 1))
    if changed:
        raise SettingsError(
            f"{folder} was begun with other settings: {'; '.join(changed)}. Give those again, or another output "
            f"folder, or delete {folder} to train again"
        )


def updates_before(folder: Path, settings: Mapping[str, Any]) -> int | None:
    """Updates that a folder was begun with, if those of the settings are more; None otherwise."""
    path = folder / SETTINGS_FILE
    before = _FORMAT.read(path).get("steps") if path.is_file() else None
    return before if isinstance(before, int) and before < settings.get("steps", 0) else None


def changed_fields(
    before: Mapping[str, Any], now: Mapping[str, Any], *, moved: Callable[[str], str] = str, prefix: str = ""
) -> list[str]:
    """Messages `field was old, now new` for all fields that differ; fields that only one of the two has are ignored.

    Args:
        before: Earlier fields with values, as in JSON.
        now: Present fields with values.
        moved: Maps an earlier path to the present one.
        prefix: Prefix of the field names.
    """
    messages = []
    for name in now:
        if name not in before or _same(before[name], now[name], moved):
            continue
        if isinstance(before[name], Mapping) and isinstance(now[name], Mapping) and before[name] and now[name]:
            messages += changed_fields(before[name], now[name], moved=moved, prefix=f"{prefix}{name}.")
        else:
            messages.append(f"{prefix}{name} was {json.dumps(before[name])}, now {json.dumps(now[name])}")
    return messages


def _same(before: Any, now: Any, moved: Callable[[str], str]) -> bool:
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return all(_same(one, other, moved) for one, other in zip(before, now, strict=True))
    return bool(before == now or (isinstance(before, str) and moved(before) == now))
