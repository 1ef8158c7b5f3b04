"""The result of a run: metrics of each task, with what is needed to make and to judge the numbers again."""

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from llm2comp.atomic import write_output
from llm2comp.errors import SettingsError
from llm2comp_benchmarks.metrics import Run
from llm2comp_benchmarks.results.tables import aligned_table

__all__ = [
    "RESERVED",
    "Samples",
    "TaskResult",
    "check_task_names",
    "format_main_metrics",
    "format_table",
    "format_tables",
    "result_record",
    "write_record",
    "write_results",
]

RESERVED = ("settings", "versions", "hardware", "commit", "seconds", "samples")
"""Entries of a result file that stand beside the tasks."""
_PACKAGES = (
    "llm2comp",
    "torch",
    "transformers",
    "sentence-transformers",
    "numpy",
    "scipy",
    "scikit-learn",
    "pytrec_eval-terrier",
    "mteb",
)
_DIGITS = 5  # of sample values: a tenth of the last digit that tables show


@dataclass(frozen=True)
class Samples:
    """What a task's main metric was computed from, part by part, so that intervals and paired tests can be drawn from it.

    Attributes:
        metric: Which of the task's metrics.
        statistic: How the metric comes from the values: their mean; Spearman's correlation of values and truth; the
            average precision of ranking by the values, where truth is 0 or 1.
        unit: What one value stands for.
        values: One for each unit.
        truth: For all statistics but the mean: what people say of the same units.
        ids: Names of the units, where they have any.
    """

    metric: str
    statistic: Literal["mean", "spearman", "average_precision"]
    unit: Literal["query", "pair", "example", "split"]
    values: list[float]
    truth: list[float] | None = None
    ids: list[str] | None = None

    @classmethod
    def of_queries(cls, metric: str, per_query: dict[str, dict[str, float]]) -> "Samples":
        """The metric of every query."""
        return cls(metric, "mean", "query", [scores[metric] for scores in per_query.values()], ids=list(per_query))

    def record(self) -> dict[str, Any]:
        """The entry in a result file; values are rounded to five digits."""
        entry = {
            "metric": self.metric,
            "statistic": self.statistic,
            "unit": self.unit,
            "ids": self.ids,
            "values": _rounded(self.values),
        }
        return entry if self.truth is None else entry | {"truth": _rounded(self.truth)}


def _rounded(values: list[float]) -> list[float]:
    return [round(float(value), _DIGITS) for value in values]


@dataclass(frozen=True)
class TaskResult:
    """What one task measured.

    Attributes:
        task: Its name, the key in result files.
        metrics: Values from 0 to 1 (a correlation: -1 to 1) by mteb's metric name.
        details: What the numbers rest on: files, split, counts.
        seconds: Wall time, the encoding included.
        per_query: The metrics of every query; empty where a task has no queries.
        run: The rankings the metrics were computed from; empty where a task has none.
        samples: What the main metric was computed from; None where that is not known.
    """

    task: str
    metrics: dict[str, float]
    details: dict[str, Any]
    seconds: float
    per_query: dict[str, dict[str, float]] = field(default_factory=dict, repr=False)
    run: Run = field(default_factory=dict, repr=False)
    samples: Samples | None = field(default=None, repr=False)


def check_task_names(names: list[str]) -> None:
    """Raise before the work starts if the results of these tasks could not stand in one file.

    Raises:
        SettingsError: Two tasks of one name, or a task named like an entry that stands beside the tasks.
    """
    for name in names:
        if name in RESERVED or names.count(name) > 1:
            raise SettingsError(
                f"two entries of the results would be called {name!r}; rename the folder or file, or evaluate them "
                "one by one"
            )


def result_record(results: list[TaskResult], settings: dict[str, Any], *, threads: int | None = None) -> dict[str, Any]:
    """Task → metric → value, and beside the tasks settings, versions, hardware, commit, seconds and samples.

    Args:
        results: Of the tasks.
        settings: What the run was asked for.
        threads: Of the processes that did the work; None: of this one.
    """
    check_task_names([result.task for result in results])
    return {
        **{result.task: result.metrics for result in results},
        "settings": settings | {"tasks": {result.task: result.details for result in results}},
        "versions": {"python": platform.python_version()} | {package: _version(package) for package in _PACKAGES},
        "hardware": _hardware() | ({} if threads is None else {"threads": threads}),
        "commit": _commit(),
        "seconds": {result.task: round(result.seconds, 3) for result in results},
        "samples": {result.task: result.samples.record() for result in results if result.samples},
    }


def write_results(path: str | Path, results: list[TaskResult], settings: dict[str, Any]) -> None:
    """Write `result_record` as JSON, whole or not at all."""
    write_record(path, result_record(results, settings))


def write_record(path: str | Path, record: dict[str, Any]) -> None:
    """Write a result record as JSON, whole or not at all: indented, but the samples of a task in one line, or they would bury the rest."""
    head = json.dumps(
        {key: value for key, value in record.items() if key != "samples"}, indent=2, ensure_ascii=False
    ).removesuffix("\n}")
    lines = [
        f"    {json.dumps(task, ensure_ascii=False)}: {json.dumps(entry, ensure_ascii=False)}"
        for task, entry in record["samples"].items()
    ]
    samples = "{\n" + ",\n".join(lines) + "\n  }" if lines else "{}"
    write_output(path, [head, ',\n  "samples": ', samples, "\n}\n"])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _hardware() -> dict[str, Any]:
    # Read from torch only where it is loaded: scoring a run file needs none, and then no device took part.
    torch = sys.modules.get("torch")
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())] if torch else []
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads() if torch else None,
        "gpus": gpus,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str | None:
    """The commit of the checkout this file is tracked in; None for an installed copy."""
    here = Path(__file__).resolve()
    try:
        subprocess.run(
            ["git", "ls-files", "--error-unmatch", here.name], cwd=here.parent, check=True, capture_output=True
        )
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=here.parent,
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def format_table(results: list[TaskResult]) -> str:
    """The results as an aligned table, a line a task; `-` where a task does not have a metric."""
    metrics = list(dict.fromkeys(name for result in results for name in result.metrics))
    rows = [["task", *metrics]]
    rows += [
        [result.task, *(f"{result.metrics[name]:.4f}" if name in result.metrics else "-" for name in metrics)]
        for result in results
    ]
    return aligned_table(rows)


def format_tables(results: list[TaskResult]) -> str:
    """The results as one table (see `format_table`) for each set of metrics, in the order in which they come."""
    kinds: dict[tuple[str, ...], list[TaskResult]] = {}
    for result in results:
        kinds.setdefault(tuple(sorted(result.metrics)), []).append(result)
    return "\n\n".join(map(format_table, kinds.values()))


def format_main_metrics(results: list[TaskResult]) -> str:
    """A line a task: the metric that mteb ranks by, and its value."""
    rows = [["task", "metric", "score"]]
    for result in results:
        metric = result.details["main_metric"]
        value = result.metrics.get(metric, result.metrics.get("main_score"))
        rows.append([result.task, metric, "-" if value is None else f"{value:.4f}"])
    return aligned_table(rows)
