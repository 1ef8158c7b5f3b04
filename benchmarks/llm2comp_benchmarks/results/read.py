"""Result files read back: what `llm2comp eval --json` wrote, checked before numbers are drawn from it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llm2comp.errors import LLM2CompError
from llm2comp_benchmarks.results.record import RESERVED, Samples

__all__ = ["ResultFile", "TaskScores", "hardware_of", "read_result_file", "read_result_files"]

_BESIDE_TASKS = (*RESERVED, "analysis")
_STATISTICS = ("mean", "spearman", "average_precision")
# What a file says its tasks are ranked by comes first; in a file that says nothing, the first of these that is there.
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
    """One task of a result file: metrics by name, what they rest on, and their samples if the file has them."""

    metrics: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)
    samples: Samples | None = None

    @property
    def main_metric(self) -> str:
        """The metric the task is ranked by."""
        told = self.samples.metric if self.samples else self.details.get("main_metric")
        return next((name for name in (told, *_MAIN_METRICS) if name in self.metrics), next(iter(self.metrics)))

    @property
    def score(self) -> float:
        """The value of the main metric."""
        return self.metrics[self.main_metric]


@dataclass(frozen=True)
class ResultFile:
    """A run: its tasks by name, and everything that stands beside them in the file."""

    path: Path
    tasks: dict[str, TaskScores]
    settings: dict[str, Any]
    beside: dict[str, Any]

    @property
    def name(self) -> str:
        """The file's name without ending, by which tables call the system."""
        return self.path.stem


def read_result_file(path: str | Path) -> ResultFile:
    """The run in a file of `llm2comp eval --json`.

    Raises:
        LLM2CompError: No such file, not JSON, not such a result, or samples that cannot be what they say they are.
    """
    file = Path(path)
    record = _read_json(file)
    settings = record.get("settings")
    if not isinstance(settings, dict) or not isinstance(settings.get("tasks", {}), dict):
        raise LLM2CompError(
            f"{file}: not a result file, it has no settings; expected what `llm2comp eval --json FILE` writes"
        )
    samples = record.get("samples", {})
    if not isinstance(samples, dict):
        raise LLM2CompError(
            f"{file}: its samples are not an object of tasks; expected what `llm2comp eval --json FILE` writes"
        )
    tasks = {}
    for name, metrics in record.items():
        if name not in _BESIDE_TASKS:
            numbers = _metrics(metrics, f"{file}: {name}")
            read = _samples(samples[name], numbers, f"{file}: samples of {name}") if samples.get(name) else None
            tasks[name] = TaskScores(numbers, settings.get("tasks", {}).get(name) or {}, read)
    if not tasks:
        raise LLM2CompError(f"{file}: no task in it has a score")
    return ResultFile(
        file,
        tasks,
        settings,
        {name: record.get(name) for name in ("versions", "hardware", "commit", "seconds", "analysis")},
    )


def read_result_files(folder: Path) -> list[ResultFile]:
    """Every run of `llm2comp eval` in a folder, by name; files of other benchmarks, which name no tasks in their settings, are passed over.

    Raises:
        LLM2CompError: A file of the folder is not JSON, or a run is damaged.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        settings = _read_json(path).get("settings")
        if isinstance(settings, dict) and settings.get("tasks"):
            found.append(read_result_file(path))
    return found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LLM2CompError(
            f"{path}: {error.strerror}; expected a result file of `llm2comp eval --json FILE`"
        ) from error
    except UnicodeDecodeError as error:
        raise LLM2CompError(
            f"{path}: not text in UTF-8; expected a result file of `llm2comp eval --json FILE`"
        ) from error
    except json.JSONDecodeError as error:
        raise LLM2CompError(
            f"{path}:{error.lineno}: not JSON ({error.msg}); expected a result file of `llm2comp eval --json FILE`"
        ) from error
    if not isinstance(record, dict):
        raise LLM2CompError(
            f"{path}: not a result file, it holds no object; expected what `llm2comp eval --json FILE` writes"
        )
    return record


def _metrics(found: Any, place: str) -> dict[str, float]:
    numbers = (
        {name: float(value) for name, value in found.items() if _is_number(value)} if isinstance(found, dict) else {}
    )
    if not numbers:
        raise LLM2CompError(
            f"{place}: no metric has a number; expected metric → value, as `llm2comp eval --json FILE` writes it"
        )
    return numbers


def _samples(found: Any, metrics: dict[str, float], place: str) -> Samples:
    try:
        ids, truth = found.get("ids"), found.get("truth")
        samples = Samples(
            found["metric"],
            found["statistic"],
            found["unit"],
            list(map(float, found["values"])),
            None if truth is None else list(map(float, truth)),
            None if ids is None else list(map(str, ids)),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LLM2CompError(
            f"{place}: damaged ({type(error).__name__}: {error}); run `llm2comp eval --json FILE` again"
        ) from error
    if wrong := _fault(samples, metrics):
        raise LLM2CompError(f"{place}: {wrong}; run `llm2comp eval --json FILE` again")
    return samples


def _fault(samples: Samples, metrics: dict[str, float]) -> str | None:
    values, truth, ids = samples.values, samples.truth, samples.ids
    if samples.statistic not in _STATISTICS:
        return f"the statistic is {samples.statistic!r}, expected one of {', '.join(_STATISTICS)}"
    if samples.metric not in metrics:
        return f"they are of {samples.metric!r}, which the task does not have"
    if not values or not np.isfinite(values).all():
        return "the values are not one finite number or more"
    if (truth is None) != (samples.statistic == "mean") or (
        truth is not None and (len(truth) != len(values) or not np.isfinite(truth).all())
    ):
        return f"the truth does not fit {len(values)} values and the statistic {samples.statistic}"
    if ids is not None and (len(ids) != len(values) or len(set(ids)) != len(ids)):
        return f"{len(set(ids))} different ids for {len(values)} values"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def hardware_of(run: ResultFile) -> str:
    """What it ran on, in words."""
    hardware = run.beside["hardware"] or {}
    if hardware.get("gpus"):
        return ", ".join(hardware["gpus"])
    threads = hardware.get("threads")
    return f"{hardware.get('processor', 'unknown processor')}, {threads or hardware.get('cores', '?')} thread{'' if threads == 1 else 's'}"
