"""The rows that a run was begun with: resumed on others, it would train on some of them twice and on some never."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm2comp.checked_json import JsonFormat
from llm2comp.errors import SettingsError
from llm2comp.training.checkpoints import last_checkpoint
from llm2comp.training.run_folder import processes, write_run_file

__all__ = ["RowSet", "check_rows"]

_ROWS_FILE = "rows.json"
_FORMAT = JsonFormat("record of rows", SettingsError, "give another output folder, or delete this one to train again")


@dataclass(frozen=True, slots=True)
class RowSet:
    """Rows of a data set, in the order they are read."""

    count: int
    digest: Callable[[int], str]
    """Digest of the first rows, as many as it is called with."""


def check_rows(folder: Path, sets: Mapping[str, RowSet], steps: int) -> None:
    """Compares the rows of a run with those of its checkpoint; without a checkpoint, remembers them.

    A run that goes on with more updates may have further rows behind those that it had.

    Args:
        folder: Folder of the run.
        sets: Its data sets by name.
        steps: Number of updates.

    Raises:
        SettingsError: Naming the data sets that differ.
    """
    path = folder / _ROWS_FILE
    before: dict[str, Any] = _FORMAT.read(path) if path.is_file() and last_checkpoint(folder) else {}
    if before and (changes := _changes(before["sets"], sets, may_grow=steps > before["steps"])):
        raise SettingsError(
            f"{folder} was begun with other data: {'; '.join(changes)}. Give the same texts again, or another output "
            "folder"
        )
    if processes().is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        counts = {name: [rows.count, rows.digest(rows.count)] for name, rows in sets.items()}
        write_run_file(path, [json.dumps({"steps": steps, "sets": counts}, indent=2), "\n"])


def _changes(before: Mapping[str, Any], now: Mapping[str, RowSet], *, may_grow: bool) -> list[str]:
    """What differs, data set by data set."""
    changes = [f"{name} is new" for name in now.keys() - before.keys()]
    for name, (count, digest) in before.items():
        if name not in now:
            changes.append(f"{name} is missing")
        elif now[name].count < count or (now[name].count > count and not may_grow):
            changes.append(f"{name} had {count:,} rows, now {now[name].count:,}")
        elif now[name].digest(count) != digest:
            changes.append(f"the rows of {name} are others")
    return sorted(changes)
