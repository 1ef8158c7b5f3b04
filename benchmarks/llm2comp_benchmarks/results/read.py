"""Reader of the result files that `llm2comp eval --json` writes. They are checked before numbers are used."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llm2comp.checked_json import JsonFormat, take
from llm2comp.errors import LLM2CompError
from llm2comp_benchmarks.results.record import RESERVED, Samples

__all__ = ["ResultFile", "TaskScores", "hardware_of", "read_record", "read_result_file", "read_result_files"]

_BESIDE_TASKS = (*RESERVED, "analysis")
_FORMAT = JsonFormat(
    "result file", LLM2CompError, "expected what `llm2comp eval --json FILE` writes", most_bytes=1 << 30
)
_SAMPLES = JsonFormat("record of samples", LLM2CompError, "run `llm2comp eval --json FILE` again")
_STATISTICS = ("mean", "spearman", "average_precision")
# Main metrics of files that name none: the first that a task has.
_MAIN_METRICS = (
    "ndcg_at_10",
    "cosine_spearman",
    "accuracy",
    "v_measure",
    "cosine_ap",
    "max_ap",
    "ap",
    "map",
    "map_at_1000",
    "main_score",
)


@dataclass(frozen=True)
class TaskScores:
    """One task of a result file: metrics by name, details of the data, and samples if the file has them."""

    metrics: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)
    samples: Samples | None = None

    @property
    def main_metric(self) -> str:
        """The metric the task is ranked by."""
        named = self.samples.metric if self.samples else self.details.get("main_metric")
        return next((name for name in (named, *_MAIN_METRICS) if name in self.metrics), next(iter(self.metrics)))

    @property
    def score(self) -> float:
        """The value of the main metric."""
        return self.metrics[self.main_metric]


@dataclass(frozen=True)
class ResultFile:
    """A run: its tasks by name, its settings, and the other entries of the file."""

    path: Path
    tasks: dict[str, TaskScores]
    settings: dict[str, Any]
    beside: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the system in tables: the file's name without its ending."""
        return self.path.stem


def read_result_file(path: str | Path) -> ResultFile:
    """The run in a file of `llm2comp eval --json`.

    Raises:
        LLM2CompError: The file is missing, not JSON, not a result file, or has impossible samples.
    """
    file = Path(path)
    record = read_record(file)
    with _FORMAT.parsing(file):
        settings, samples = take(record, "settings", dict), record.get("samples", {})
        details = settings.get("tasks", {})
        if not isinstance(samples, dict) or not isinstance(details, dict):
            raise ValueError("its samples or the tasks of its settings are not an object of tasks")
    tasks = {}
    for name, metrics in record.items():
        if name not in _BESIDE_TASKS:
            numbers = _metrics(metrics, f"{file}: {name}")
            read = _samples(samples[name], numbers, f"{file}: samples of {name}") if samples.get(name) else None
            tasks[name] = TaskScores(numbers, details.get(name) or {}, read)
    if not tasks:
        raise LLM2CompError(f"{file}: no task in it has a score")
    beside = {name: record.get(name) for name in ("versions", "hardware", "commit", "seconds", "analysis")}
    return ResultFile(file, tasks, settings, beside)


def read_result_files(folder: Path) -> list[ResultFile]:
    """Every run of `llm2comp eval` in a folder, by name.

    Files of other benchmarks, whose settings name no tasks, are skipped.

    Raises:
        LLM2CompError: A file of the folder is not JSON, or a run is damaged.
    """
    runs = []
    for path in sorted(folder.glob("*.json")):
        settings = read_record(path).get("settings")
        if isinstance(settings, dict) and settings.get("tasks"):
            runs.append(read_result_file(path))
    return runs


def read_record(path: Path) -> dict[str, Any]:
    """The object in a result file, unchecked.

    Raises:
        LLM2CompError: The file cannot be read, or is not JSON with an object.
    """
    return _FORMAT.read(path)


def _metrics(metrics: Any, place: str) -> dict[str, float]:
    numbers = (
        {name: float(value) for name, value in metrics.items() if _is_number(value)}
        if isinstance(metrics, dict)
        else {}
    )
    if not numbers:
        raise LLM2CompError(
            f"{place}: no metric has a number; expected metric → value, as `llm2comp eval --json FILE` writes it"
        )
    return numbers


def _samples(content: Any, metrics: dict[str, float], place: str) -> Samples:
    with _SAMPLES.parsing(place):
        if not isinstance(content, dict):
            raise ValueError("they are not an object")
        statistic, unit = take(content, "statistic", str), take(content, "unit", str)
        samples = Samples(
            take(content, "metric", str),
            statistic,  # type: ignore[arg-type]  # checked below
            unit,  # type: ignore[arg-type]  # shown only
            _numbers(content, "values"),
            None if content.get("truth") is None else _numbers(content, "truth"),
            None if content.get("ids") is None else list(map(str, take(content, "ids", list))),
        )
        _check(samples, metrics)
    return samples


def _numbers(content: dict[str, Any], name: str) -> list[float]:
    values = take(content, name, list)
    if not values or not all(map(_is_number, values)):
        raise ValueError(f'"{name}" is not one finite number or more')
    return list(map(float, values))


def _check(samples: Samples, metrics: dict[str, float]) -> None:
    values, truth, ids = samples.values, samples.truth, samples.ids
    if samples.statistic not in _STATISTICS:
        raise ValueError(f"the statistic is {samples.statistic!r}, expected one of {', '.join(_STATISTICS)}")
    if samples.metric not in metrics:
        raise ValueError(f"they are of {samples.metric!r}, which the task does not have")
    if (truth is None) != (samples.statistic == "mean") or (truth is not None and len(truth) != len(values)):
        raise ValueError(f"the truth does not fit {len(values)} values and the statistic {samples.statistic}")
    if ids is not None and (len(ids) != len(values) or len(set(ids)) != len(ids)):
        raise ValueError(f"{len(set(ids))} different ids for {len(values)} values")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def hardware_of(run: ResultFile) -> str:
    """Hardware of the run, as text."""
    hardware = run.beside["hardware"] or {}
    if hardware.get("gpus"):
        return ", ".join(hardware["gpus"])
    threads = hardware.get("threads")
    count = f"{threads or hardware.get('cores', '?')} thread{'' if threads == 1 else 's'}"
    return f"{hardware.get('processor', 'unknown processor')}, {count}"
