"""Scores of resamples, given as counts of each sample, so that values are sorted only once."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp_benchmarks.results.record import Samples

__all__ = ["counts_of", "statistic_of"]

Counts = NDArray[Any]
"""Number of times that each of n samples is in each of r resamples: (r, n)."""
Score = Callable[[Counts], NDArray[np.float64]]


def counts_of(positions: NDArray[np.int64]) -> Counts:
    """Counts (r, n) of resamples given as positions (r, n); counts (n,) of a single resample (n,)."""
    rows = np.atleast_2d(positions)
    resamples, size = rows.shape
    flat = (rows + size * np.arange(resamples)[:, None]).ravel()
    counts = np.bincount(flat, minlength=resamples * size).reshape(resamples, size)
    return counts if positions.ndim > 1 else counts[0]


def statistic_of(samples: Samples) -> Score:
    """Function from counts (r, n) to scores (r,), or from counts (n,) to a score; NaN where a resample has no score.

    The score is that of the written-out resample: its mean, Spearman's correlation with mean ranks for equal values, or
    average precision as scikit-learn defines it (the sum over thresholds of precision times the step of recall; equal
    values are one threshold).
    """
    values = np.asarray(samples.values, np.float64)
    if samples.statistic == "mean":
        return lambda counts: np.asarray(counts @ values / counts.sum(axis=-1))
    truth = np.asarray(samples.truth, np.float64)
    return _spearman(values, truth) if samples.statistic == "spearman" else _average_precision(values, truth > 0)


class _Ties:
    """Groups of equal values, in ascending order."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        self.order = np.argsort(values, kind="stable")
        _, self.starts, self.group = np.unique(values[self.order], return_index=True, return_inverse=True)

    def sums(self, weights: NDArray[Any]) -> NDArray[Any]:
        """Sums of the weights (…, n) by group."""
        return np.add.reduceat(weights[..., self.order], self.starts, axis=-1)

    def ranks(self, counts: Counts) -> NDArray[np.float64]:
        """Rank of every sample in the resample, (…, n): the mean of the ranks of its group."""
        sizes = self.sums(counts)
        middles = np.cumsum(sizes, axis=-1) - (sizes - 1) / 2
        ranks = np.empty(counts.shape)
        ranks[..., self.order] = middles[..., self.group]
        return ranks


def _spearman(values: NDArray[np.float64], truth: NDArray[np.float64]) -> Score:
    ties_of_values, ties_of_truth = _Ties(values), _Ties(truth)

    def score(counts: Counts) -> NDArray[np.float64]:
        middle = (counts.sum(axis=-1, keepdims=True) + 1) / 2
        first, second = ties_of_values.ranks(counts) - middle, ties_of_truth.ranks(counts) - middle
        spread = (counts * first**2).sum(axis=-1) * (counts * second**2).sum(axis=-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((counts * first * second).sum(axis=-1) / np.sqrt(spread))

    return score


def _average_precision(values: NDArray[np.float64], relevant: NDArray[np.bool_]) -> Score:
    ties = _Ties(-values)

    def score(counts: Counts) -> NDArray[np.float64]:
        hits = ties.sums(counts * relevant)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.cumsum(hits, axis=-1) / np.cumsum(ties.sums(counts), axis=-1)
            steps = np.where(hits > 0, hits * precision, 0.0)  # before the first sample drawn, precision is 0 / 0
            return np.asarray(steps.sum(axis=-1) / hits.sum(axis=-1))

    return score
