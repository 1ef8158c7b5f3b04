"""Result of a run: metrics of each task, and what is needed to reproduce and judge them."""

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
"""Entries of a result file that are not tasks."""
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
_FEATURES = (
    *("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_fp16", "amx_int8"),
    *("asimd", "bf16", "i8mm", "sve", "sve2"),  # of ARM
)
"""Instructions that decide how fast matrices are multiplied, by Linux's names."""
_DIGITS = 5  # of sample values; tables show four


@dataclass(frozen=True)
class Samples:
    """Values that a task's main metric was computed from, for intervals and paired tests.

    Attributes:
        metric: Name of the metric.
        statistic: How the metric is computed: the mean of the values; Spearman's correlation of values and truth; the
            average precision of ranking by the values, where truth is 0 or 1.
        unit: What one value was measured on.
        values: One value for each unit.
        truth: Human judgements of the same units, for all statistics but the mean.
        ids: Names of the units, if they have any.
    """

    metric: str
    statistic: Literal["mean", "spearman", "average_precision"]
    unit: Literal["query", "pair", "example", "split"]
    values: list[float]
    truth: list[float] | None = None
    ids: list[str] | None = None

    @classmethod
    def of_queries(cls, metric: str, per_query: dict[str, dict[str, float]]) -> "Samples":
        """Samples of a metric that is a mean over queries."""
        return cls(metric, "mean", "query", [scores[metric] for scores in per_query.values()], ids=list(per_query))

    def record(self) -> dict[str, Any]:
        """Entry of a result file; values are rounded to five digits."""
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
    """Result of one task.

    Attributes:
        task: Name of the task, the key in result files.
        metrics: Values from 0 to 1 (correlations: -1 to 1) by mteb's metric name.
        details: Data of the task: files, split, counts.
        seconds: Wall time, encoding included.
        per_query: Metrics by query; empty for tasks without queries.
        run: Rankings that the metrics were computed from; empty for tasks without any.
        samples: Values that the main metric was computed from; None if they are not known.
    """

    task: str
    metrics: dict[str, float]
    details: dict[str, Any]
    seconds: float
    per_query: dict[str, dict[str, float]] = field(default_factory=dict, repr=False)
    run: Run = field(default_factory=dict, repr=False)
    samples: Samples | None = field(default=None, repr=False)


def check_task_names(names: list[str]) -> None:
    """Raise before the work starts if one file cannot hold the results of these tasks.

    Raises:
        SettingsError: Two tasks have the same name, or a task has the name of one of RESERVED.
    """
    for name in names:
        if name in RESERVED or names.count(name) > 1:
            raise SettingsError(
                f"two entries of the results would be called {name!r}; rename the folder or file, or evaluate them "
                "one by one"
            )


def result_record(results: list[TaskResult], settings: dict[str, Any], *, threads: int | None = None) -> dict[str, Any]:
    """Task → metric → value, and the entries settings, versions, hardware, commit, seconds and samples.

    Args:
        results: Results of the tasks.
        settings: Settings of the run.
        threads: Number of threads of the processes that did the work; None: that of this process.
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
    """Write the record of the results as JSON, whole or not at all."""
    write_record(path, result_record(results, settings))


def write_record(path: str | Path, record: dict[str, Any]) -> None:
    """Write a result record as indented JSON, whole or not at all; the samples of a task are on one line."""
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
    # Of torch only if it is loaded: scoring a run file needs neither torch nor a device.
    torch = sys.modules.get("torch")
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())] if torch else []
    return {
        "processor": _processor(),
        "features": _features(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads() if torch else None,
        "gpus": gpus,
    }


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _features() -> list[str]:
    """Those of `_FEATURES` that the processor has; empty where the system does not list them."""
    flags = (_cpuinfo("flags") or _cpuinfo("Features")).split()
    return [name for name in _FEATURES if name in flags]


def _cpuinfo(field: str) -> str:
    """The first value of a field of Linux's list of processors; empty if there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def _commit() -> str | None:
    """Commit of the checkout that tracks this file; None for an installed copy."""
    here = Path(__file__).resolve()
    try:
        subprocess.run(
            ["git", "ls-files", "--error-unmatch", here.name], cwd=here.parent, check=True, capture_output=True
        )
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=here.parent,
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def format_table(results: list[TaskResult]) -> str:
    """The results as an aligned table, one line a task; `-` where a task has no such metric."""
    metrics = list(dict.fromkeys(name for result in results for name in result.metrics))
    rows = [["task", *metrics]]
    rows += [
        [result.task, *(f"{result.metrics[name]:.4f}" if name in result.metrics else "-" for name in metrics)]
        for result in results
    ]
    return aligned_table(rows)


def format_tables(results: list[TaskResult]) -> str:
    """The results as tables (see `format_table`), one for the tasks of each set of metrics."""
    kinds: dict[tuple[str, ...], list[TaskResult]] = {}
    for result in results:
        kinds.setdefault(tuple(sorted(result.metrics)), []).append(result)
    return "\n\n".join(map(format_table, kinds.values()))


def format_main_metrics(results: list[TaskResult]) -> str:
    """The metric that mteb ranks by and its value, one line a task."""
    rows = [["task", "metric", "score"]]
    for result in results:
        metric = result.details["main_metric"]
        value = result.metrics.get(metric, result.metrics.get("main_score"))
        rows.append([result.task, metric, "-" if value is None else f"{value:.4f}"])
    return aligned_table(rows)
