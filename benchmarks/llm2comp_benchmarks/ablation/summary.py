"""The result files of an ablation as runs: means over seeds, and the runs at the end of a stage."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llm2comp.errors import LLM2CompError
from llm2comp_benchmarks.results.kinds import ordered_tasks
from llm2comp_benchmarks.results.read import ResultFile, read_result_files
from llm2comp_benchmarks.results.record import Samples

__all__ = [
    "PRETEXTS",
    "STAGES",
    "Ablation",
    "Mean",
    "Run",
    "grouped",
    "mean_over_seeds",
    "pretext_place",
    "read_ablation_runs",
]

PRETEXTS = {
    "distillation": "CTKD",
    "continuation": "continuation (NLL)",
    "reconstruction": "reconstruction (RC)",
    "mntp": "LLM2Vec's MNTP",
    "none": "no pretext",
    "mean": "mean of the states",
    "weighted-mean": "weighted mean",
    "last-token": "last token",
    "prompteol": "PromptEOL",
    "metaeol": "MetaEOL",
}
"""Names of pretexts and baselines in tables, in the order of the paper's claim; others come last, as they are."""
STAGES = {
    "untrained": "no training",
    "pretext": "pretext only",
    "unsupervised": "+ UCL",
    "supervised": "+ UCL + SCL",
}
"""Titles of the stages; the first is the only one of a language model without training."""


def pretext_place(name: str) -> int:
    """Place of a pretext in tables."""
    return list(PRETEXTS).index(name) if name in PRETEXTS else len(PRETEXTS)


class Mean(NamedTuple):
    """A mean over seeds.

    Attributes:
        value: The mean.
        half: Half of its 95 % t-interval; None with a single seed.
        lowest: Least value of a seed.
        highest: Greatest value of a seed.
        seeds: Number of seeds.
    """

    value: float
    half: float | None
    lowest: float
    highest: float
    seeds: int

    def formatted(self, digits: int = 3) -> str:
        """The mean and half of its interval, such as `0.512 ± 0.013`; with one seed the mean alone."""
        return f"{self.value:.{digits}f}" + (f" ± {self.half:.{digits}f}" if self.half is not None else "")


def mean_over_seeds(values: Sequence[float]) -> Mean:
    """The mean of one value per seed, with Student's t-interval."""
    array = np.asarray(values, np.float64)
    half = None
    if len(array) > 1:
        from scipy.stats import t

        half = float(t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array)))
    return Mean(float(array.mean()), half, float(array.min()), float(array.max()), len(array))


@dataclass(frozen=True)
class Run:
    """One model of the ablation.

    Attributes:
        pretext: Objective of stage 1.
        stage: Its last stage.
        memory_tokens: k; 0 for mntp.
        seed: Of all stages.
        samples: Supervised samples it was trained on.
        pooling: "mean" or "cluster".
        scores: Value of the main metric by task.
        analysis: Figures of its embeddings by name; empty where not measured.
        values: Samples that the scores were computed from, by task; for tests between runs.
        training: Updates and seconds of its last stage; empty where they are not known.
    """

    pretext: str
    stage: str
    memory_tokens: int
    seed: int
    samples: int
    pooling: str
    scores: dict[str, float]
    analysis: dict[str, Any]
    values: dict[str, Samples] = field(default_factory=dict, repr=False)
    training: dict[str, float] = field(default_factory=dict)

    @property
    def lineage(self) -> str:
        """Name of the models that descend from the same start with the same seed."""
        return f"{self.pretext}-k{self.memory_tokens}-seed{self.seed}"

    def average(self, tasks: Iterable[str]) -> float:
        """Mean over the tasks."""
        values = [self.scores[task] for task in tasks]
        return sum(values) / len(values)


@dataclass(frozen=True)
class Ablation:
    """All models of an ablation.

    Attributes:
        runs: The models.
        kinds: Kind by task, in the order of tables: the tasks of all models at the end of a stage.
        curve: Those of them that models within stage 3 were measured on too.
        k: Memory tokens of the models that differ by pretext; models with another k are only compared by k.
        files: The result files, in the order of the runs.
        unfinished: Names of the files that still lack tasks, and are not among them.
    """

    runs: list[Run]
    kinds: dict[str, str]
    curve: list[str]
    k: int
    files: list[ResultFile]
    unfinished: list[str] = field(default_factory=list)

    def pick(self, **attributes: object) -> list[Run]:
        """The runs that have these attributes.

        By default with mean pooling and k memory tokens (0 for mntp).
        """
        attributes = {"pooling": "mean", **attributes}
        chosen = [run for run in self.runs if all(getattr(run, name) == value for name, value in attributes.items())]
        return chosen if "memory_tokens" in attributes else [run for run in chosen if run.memory_tokens in (0, self.k)]

    @property
    def settings(self) -> dict[str, Any]:
        """What the ablation says of itself: its name, the samples of each stage, the lineages of its plan."""
        return dict(self.files[0].settings["ablation"])

    @cached_property
    def most_samples(self) -> int:
        """Supervised samples of the finished models: those of the plan, or, if it is not known, the most there are."""
        if isinstance(samples := self.settings.get("samples"), dict) and "supervised" in samples:
            return int(samples["supervised"])
        return max((run.samples for run in self.runs if run.stage == "supervised"), default=0)

    def finished(self, stage: str, **attributes: object) -> list[Run]:
        """The runs at the end of a stage that have these attributes; see `pick`."""
        return self.pick(stage=stage, samples=self.most_samples if stage == "supervised" else 0, **attributes)

    @property
    def pretexts(self) -> list[str]:
        """Pretexts of the trained runs, in the order of the claim."""
        return sorted({run.pretext for run in self.runs if run.stage != "untrained"}, key=pretext_place)


def read_ablation_runs(folder: Path) -> Ablation | None:
    """The ablation whose result files are in the folder; None where there are none.

    Raises:
        LLM2CompError: A file is damaged or has no settings of an ablation, files are of two ablations, or no task is
            in all of them.
    """
    there = read_result_files(folder) if folder.is_dir() else []
    files = [file for file in there if not file.settings.get("missing")]
    if not files:
        return None
    names = {str((file.settings.get("ablation") or {}).get("ablation")) for file in files}
    if len(names) > 1:
        raise LLM2CompError(
            f"{folder}: files of {len(names)} ablations ({', '.join(sorted(names))}); give each a folder of its own"
        )
    runs = [_run(file) for file in files]
    last = Ablation(runs, {}, [], 0, files).most_samples
    kinds = ordered_tasks(file.tasks for file in files)
    ends = {
        task: kind
        for task, kind in kinds.items()
        if all(task in run.scores for run in runs if run.stage != "supervised" or run.samples == last)
    }
    curve = [task for task in ends if all(task in run.scores for run in runs)]
    if not curve:
        raise LLM2CompError(f"{folder}: no task is in all {len(files)} result files; run the ablation to its end")
    counted = Counter(
        run.memory_tokens for run in runs if run.memory_tokens and run.pretext != "distillation"
    ) or Counter(run.memory_tokens for run in runs)
    unfinished = [file.name for file in there if file.settings.get("missing")]
    return Ablation(runs, ends, curve, counted.most_common(1)[0][0] if counted else 0, files, unfinished)


def _run(file: ResultFile) -> Run:
    settings: Any = file.settings.get("ablation")
    try:
        pretext, stage, pooling = str(settings["pretext"]), str(settings["stage"]), str(settings.get("pooling", "mean"))
        k, seed, samples = (
            int(settings["memory_tokens"]),
            int(settings["seed"]),
            int(settings.get("supervised_samples", 0)),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LLM2CompError(
            f"{file.path}: settings.ablation does not name pretext, stage, memory_tokens and seed ({error}); run the "
            "ablation again"
        ) from error
    return Run(
        pretext,
        stage,
        k,
        seed,
        samples,
        pooling,
        {task: scores.score for task, scores in file.tasks.items()},
        file.beside.get("analysis") or {},
        {task: scores.samples for task, scores in file.tasks.items() if scores.samples},
        file.settings.get("training") or {},
    )


def grouped(runs: Iterable[Run], key: Callable[[Run], Any]) -> dict[Any, list[Run]]:
    """Runs by key, in order of appearance."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups
