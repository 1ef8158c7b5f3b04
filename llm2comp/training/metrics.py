"""`metrics.jsonl`: reports of a run, one JSON object per line; interruptions do not repeat any step."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm2comp.training.run_folder import write_run_file, writing

__all__ = ["METRICS_FILE", "append_metrics", "read_metrics", "rewind_metrics"]

METRICS_FILE = "metrics.jsonl"


def append_metrics(folder: Path, entry: Mapping[str, Any]) -> None:
    """Appends an entry; numbers that JSON does not have (NaN, infinity) become null.

    Raises:
        TrainingError: If it cannot be written.
    """
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in entry.items()
    }
    path = folder / METRICS_FILE
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(plain) + "\n")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Entries in order; an incomplete last line is ignored."""
    path = folder / METRICS_FILE
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def rewind_metrics(folder: Path, step: int | None) -> None:
    """Drops the entries after a step, which a run resumed from there reports again; without a step, all of them."""
    kept = [entry for entry in read_metrics(folder) if step is not None and entry.get("step", 0) <= step]
    if (folder / METRICS_FILE).is_file():
        write_run_file(folder / METRICS_FILE, [json.dumps(entry) + "\n" for entry in kept])
