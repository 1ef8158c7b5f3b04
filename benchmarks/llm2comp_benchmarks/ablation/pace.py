"""How long the updates of an ablation's stages take: written while they are trained, read for forecasts and reports."""

import json
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llm2comp.training.checkpoints import last_checkpoint, step_of
from llm2comp.training.metrics import read_metrics

__all__ = ["Pace", "UpdateTimes", "read_pace"]

_TIMES_FILE = "times.jsonl"


class UpdateTimes(TrainerCallback):
    """Appends the time of each update to a file of the stage's folder, without held-out losses and checkpoints."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _TIMES_FILE
        self._begun = 0.0

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Starts the clock."""
        self._begun = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Writes the time since then."""
        entry = {"step": state.global_step, "seconds": round(time.perf_counter() - self._begun, 4)}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


class Pace(NamedTuple):
    """How far a stage is, and how fast.

    Attributes:
        done: Updates that a run would not repeat.
        seconds: Median time of an update; None where none was timed. A pause of the machine does not move it.
        tokens_per_second: Median of the reports; None without one.
    """

    done: int
    seconds: float | None
    tokens_per_second: float | None


def read_pace(folder: Path, updates: int, mark: str) -> Pace:
    """The pace of a stage in a folder.

    Args:
        folder: Folder of the stage, which need not exist.
        updates: Updates of the whole stage.
        mark: File by which a finished model is recognized.
    """
    checkpoint = last_checkpoint(folder) if folder.is_dir() else None
    finished = (folder / "model" / mark).is_file()
    times = {entry["step"]: entry["seconds"] for entry in _entries(folder / _TIMES_FILE)}
    rates = [entry["tokens_per_second"] for entry in read_metrics(folder) if "tokens_per_second" in entry]
    return Pace(
        done=updates if finished else step_of(checkpoint) if checkpoint else 0,
        seconds=median(times.values()) if times else None,
        tokens_per_second=median(rates) if rates else None,
    )


def _entries(path: Path) -> list[dict[str, Any]]:
    """Entries in order; an incomplete last line is ignored."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries
