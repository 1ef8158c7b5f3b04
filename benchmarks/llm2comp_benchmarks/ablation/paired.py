"""Intervals of differences between models of an ablation, over the queries, pairs and texts they were measured on."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from llm2comp_benchmarks.ablation.summary import Run
from llm2comp_benchmarks.results.record import Samples
from llm2comp_benchmarks.results.resampling import counts_of, statistic_of

__all__ = ["Interval", "paired_interval"]

_RESAMPLES = 10_000
_NUMBERS_AT_ONCE = 2_000_000
_KEPT = 512


class Interval(NamedTuple):
    """Ends of a confidence interval."""

    low: float
    high: float


def paired_interval(
    first: Sequence[Run], second: Sequence[Run], tasks: Sequence[str], *, level: float
) -> Interval | None:
    """The paired percentile bootstrap interval of a difference of averages over tasks, `first` minus `second`.

    In each resample the queries, pairs or texts of every task are drawn with replacement, the same for all models;
    scores are averaged over models of the same kind (seeds), then over tasks. The interval says what other texts of the
    same tasks would change, not what another seed or another task would.

    Args:
        first: Models of one kind.
        second: Models of the other.
        tasks: The tasks.
        level: Confidence; for one of m comparisons at 95 % together, 1 - 0.05 / m (Bonferroni).

    Returns:
        None where a model has no samples of a task, where their numbers differ, or where a resample has no score.
    """
    total = np.zeros(_RESAMPLES)
    for task in tasks:
        sides = [[_draws_of(run, task) for run in runs] for runs in (first, second)]
        drawn = [draws for side in sides for draws in side if draws is not None]
        if len(drawn) < len(first) + len(second) or not _same_samples(task, [*first, *second]):
            return None
        ours, theirs = (np.mean([draws for draws in side if draws is not None], axis=0) for side in sides)
        total += (ours - theirs) / len(tasks)
    if not np.isfinite(total).all():
        return None
    low, high = np.quantile(total, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _same_samples(task: str, runs: Sequence[Run]) -> bool:
    """Whether all runs were measured on the same samples of a task, in the same order."""
    samples = [run.values[task] for run in runs]
    alike: set[Any] = {(len(each.values), each.statistic, tuple(each.ids or ())) for each in samples}
    return len(alike) == 1


def _draws_of(run: Run, task: str) -> NDArray[np.float64] | None:
    """Scores of a run in all resamples of a task; the same resamples for every run."""
    samples = run.values.get(task)
    if samples is None:
        return None
    truth = tuple(samples.truth) if samples.truth is not None else None
    return _draws(task, tuple(samples.values), truth, samples.statistic)


@lru_cache(maxsize=_KEPT)
def _draws(
    task: str, values: tuple[float, ...], truth: tuple[float, ...] | None, statistic: Any
) -> NDArray[np.float64]:
    size = len(values)
    score = statistic_of(Samples("", statistic, "query", list(values), list(truth) if truth is not None else None))
    chance = np.random.default_rng([crc32(task.encode()), size])  # alike for all runs of a task, not for all tasks
    at_once = max(1, _NUMBERS_AT_ONCE // size)
    parts = [
        score(counts_of(chance.integers(size, size=(min(at_once, _RESAMPLES - begun), size))))
        for begun in range(0, _RESAMPLES, at_once)
    ]
    return np.concatenate(parts)
