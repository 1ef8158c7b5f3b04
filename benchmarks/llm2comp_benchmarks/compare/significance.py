"""Bootstrap intervals of scores, paired tests between two systems, and Holm's correction for several tests.

On tests for the means of retrieval measures: Smucker, Allan, Carterette, *A comparison of statistical significance
tests for information retrieval evaluation*, CIKM 2007 (the randomisation test; it and the bootstrap agree with the
t-test, sign and Wilcoxon tests do not), and Sakai, *Evaluating evaluation metrics based on the bootstrap*, SIGIR 2006.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp_benchmarks.results.record import Samples
from llm2comp_benchmarks.results.resampling import counts_of, statistic_of

__all__ = ["LEVEL", "Difference", "Interval", "holm", "interval", "paired_difference", "smallest_p"]

LEVEL = 0.95
"""Confidence of the intervals."""
_NUMBERS_AT_ONCE = 2_000_000


class Interval(NamedTuple):
    """Ends of a confidence interval."""

    low: float
    high: float


class Difference(NamedTuple):
    """The second system minus the first, on the same samples.

    Attributes:
        value: Difference of the two scores.
        interval: Its bootstrap interval; None where the samples are too few or too much alike.
        p: Two-sided p-value of "there is no difference".
        test: "randomisation" or "bootstrap".
    """

    value: float
    interval: Interval | None
    p: float
    test: str


def interval(samples: Samples, *, seed: int = 0, resamples: int = 10_000) -> Interval | None:
    """The 95 % percentile bootstrap interval of a score; None where there is none.

    Efron and Tibshirani, *An introduction to the bootstrap*, 1993, chapter 13. Samples are drawn with replacement, the
    value and truth of a pair together. There is no interval for a single sample, or where a resample has no score (a
    correlation of equal values).
    """
    return _ends(_bootstrap(len(samples.values), statistic_of(samples), seed, resamples))


def paired_difference(first: Samples, second: Samples, *, seed: int = 0, resamples: int = 10_000) -> Difference:
    """The difference of two systems that were measured on the same samples in the same order.

    For means, p is that of the paired randomisation test (Fisher 1935; Smucker et al. 2007): without a difference each
    sample's difference could as well have the other sign. All patterns of signs are counted if there are at most
    `resamples`, else that many are drawn.

    Correlations and average precision have no value for a single sample. Both systems are resampled together, and p is
    twice the share of differences on the rarer side of 0, at which an interval of level 1 - p would just reach 0 (Efron
    and Tibshirani 1993, section 15.4).

    The observed pattern counts as one more in both, so that p is never 0 (Phipson and Smyth, 2010).

    Args:
        first: Samples of one system.
        second: Samples of the other one, as many.
        seed: Of the draws.
        resamples: Number of draws.
    """
    score_first, score_second = statistic_of(first), statistic_of(second)

    def difference(counts: NDArray[Any]) -> NDArray[np.float64]:
        return score_second(counts) - score_first(counts)

    value = float(difference(np.ones((1, len(first.values))))[0])
    drawn = _bootstrap(len(first.values), difference, seed, resamples)
    if first.statistic == "mean":
        return Difference(
            value,
            _ends(drawn),
            _randomisation_p(np.subtract(second.values, first.values), seed, resamples),
            "randomisation",
        )
    return Difference(value, _ends(drawn), _bootstrap_p(drawn), "bootstrap")


def smallest_p(samples: Samples, resamples: int) -> float:
    """The smallest p that `paired_difference` can return for these samples.

    With five samples of a mean, for example, 2 of 32 patterns of signs are the most extreme.
    """
    drawn = 2 / (resamples + 1)
    return max(drawn, 2.0 ** (1 - len(samples.values))) if samples.statistic == "mean" else drawn


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for the number of tests, so that the familywise error rate stays at the level.

    Holm, *A simple sequentially rejective multiple test procedure*, 1979.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values, np.float64)[order] * factors), 1.0)
    return [float(p) for p in corrected]


def _bootstrap(size: int, score: Callable[[NDArray[Any]], NDArray[np.float64]], seed: int, resamples: int) -> Any:
    """Scipy's bootstrap result over the positions of the samples; None for a single sample."""
    if size < 2:
        return None
    from scipy import stats

    with warnings.catch_warnings():
        # a resample without a score, which _ends looks for
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        return stats.bootstrap(
            (np.arange(size),),
            lambda positions, axis: score(counts_of(positions)),
            n_resamples=resamples,
            batch=max(1, _NUMBERS_AT_ONCE // size),
            vectorized=True,
            confidence_level=LEVEL,
            method="percentile",
            rng=np.random.default_rng(seed),
        )


def _ends(drawn: Any) -> Interval | None:
    if drawn is None or not np.isfinite(drawn.bootstrap_distribution).all():
        return None
    return Interval(float(drawn.confidence_interval.low), float(drawn.confidence_interval.high))


def _randomisation_p(differences: NDArray[np.float64], seed: int, resamples: int) -> float:
    moved = differences[differences != 0]  # a sign changes nothing where the difference is 0
    if not len(moved):
        return 1.0
    from scipy import stats

    result = stats.permutation_test(
        (moved,),
        lambda signed, axis: signed.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, _NUMBERS_AT_ONCE // len(moved)),
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def _bootstrap_p(drawn: Any) -> float:
    if drawn is None or not np.isfinite(drawn.bootstrap_distribution).all():
        return 1.0
    differences = drawn.bootstrap_distribution
    rarer = min((differences <= 0).sum(), (differences >= 0).sum())
    return min(1.0, 2 * (int(rarer) + 1) / (len(differences) + 1))
