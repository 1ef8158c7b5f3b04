"""Intervals and tests against scipy's, against cases worked out by hand, and on simulated data."""

from itertools import product

import numpy as np
import pytest
from numpy.typing import ArrayLike

from llm2comp_benchmarks.compare.significance import holm, interval, paired_difference, smallest_p
from llm2comp_benchmarks.results.record import Samples

stats = pytest.importorskip("scipy.stats")


def _mean(values: ArrayLike) -> Samples:
    return Samples("ndcg_at_10", "mean", "query", np.asarray(values, np.float64).tolist())


def _against(statistic: str, values: ArrayLike, truth: ArrayLike) -> Samples:
    return Samples(
        "metric", statistic, "pair", np.asarray(values, np.float64).tolist(), np.asarray(truth, np.float64).tolist()
    )


def test_the_interval_of_a_mean_is_scipys() -> None:
    values = np.random.default_rng(1).beta(1, 2, 120)
    result = interval(_mean(values), seed=4, resamples=2000)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(4)
    ).confidence_interval
    assert result == pytest.approx((expected.low, expected.high))


def test_the_interval_of_a_correlation_is_scipys() -> None:
    generator = np.random.default_rng(2)
    truth = generator.normal(size=60)
    values = truth + generator.normal(size=60)
    result = interval(_against("spearman", values, truth), seed=4, resamples=500)
    expected = stats.bootstrap(
        (values, truth),
        lambda first, second: stats.spearmanr(first, second).statistic,
        n_resamples=500,
        paired=True,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(4),
    ).confidence_interval
    assert result == pytest.approx((expected.low, expected.high))


def test_the_randomisation_test_goes_through_all_signs_of_few_samples() -> None:
    first, second = np.array([0.1, 0.5, 0.2, 0.9, 0.4, 0.3]), np.array([0.4, 0.4, 0.6, 1.0, 0.8, 0.5])
    differences = second - first
    flipped = [abs(np.dot(signs, differences)) for signs in product((-1, 1), repeat=6)]
    expected = np.mean([total >= abs(differences.sum()) - 1e-12 for total in flipped])
    result = paired_difference(_mean(first), _mean(second))
    assert (
        expected == 6 / 64
    )  # as they are, the one loss turned, the loss and as large a gain turned; and the three mirrored
    assert result.p == pytest.approx(expected)
    assert result.value == pytest.approx(differences.mean())
    assert result.test == "randomisation"


def test_the_drawn_randomisation_test_is_near_the_exact_one() -> None:
    generator = np.random.default_rng(3)
    first = generator.random(14)
    second = first + generator.normal(0.05, 0.3, 14)
    exact = paired_difference(_mean(first), _mean(second), resamples=2**14).p
    drawn = paired_difference(_mean(first), _mean(second), resamples=2**13).p
    assert 0.02 < exact < 0.5
    assert drawn == pytest.approx(exact, abs=0.02)


def test_samples_without_a_difference_change_the_mean_but_not_the_test() -> None:
    first, second = np.array([0.1, 0.5, 0.2, 0.9]), np.array([0.4, 0.6, 0.6, 1.0])
    alone = paired_difference(_mean(first), _mean(second))
    among = paired_difference(_mean([*first, 0, 0, 0, 0]), _mean([*second, 0, 0, 0, 0]))
    assert among.p == alone.p == 2 / 16
    assert among.value == pytest.approx(alone.value / 2)


@pytest.mark.parametrize("statistic", ["mean", "spearman", "average_precision"])
def test_a_system_does_not_differ_from_itself(statistic: str) -> None:
    generator = np.random.default_rng(6)
    truth = (generator.random(40) < 0.5).astype(float)
    samples = (
        _mean(generator.random(40)) if statistic == "mean" else _against(statistic, truth + generator.random(40), truth)
    )
    result = paired_difference(samples, samples, resamples=200)
    assert (result.value, result.interval, result.p) == (0.0, (0.0, 0.0), 1.0)


@pytest.mark.parametrize("statistic", ["spearman", "average_precision"])
def test_a_model_that_knows_beats_one_that_guesses(statistic: str) -> None:
    generator = np.random.default_rng(7)
    truth = (generator.random(300) < 0.4).astype(float)
    guess, knows = generator.random(300), truth + generator.random(300)
    result = paired_difference(_against(statistic, guess, truth), _against(statistic, knows, truth), resamples=500)
    assert result.interval is not None
    assert 0 < result.interval.low < result.value < result.interval.high
    assert result.p == pytest.approx(2 / 501)


def test_a_seed_gives_the_same_numbers_again_and_another_gives_others() -> None:
    samples = _mean(np.random.default_rng(8).random(100))
    assert (
        interval(samples, seed=1, resamples=300)
        == interval(samples, seed=1, resamples=300)
        != interval(samples, seed=2, resamples=300)
    )


def test_there_is_no_interval_of_one_sample_nor_where_a_resample_has_no_score() -> None:
    assert interval(_mean([0.5])) is None
    assert interval(_against("average_precision", [0.1, 0.2, 0.3], [0, 0, 1])) is None


def test_too_few_samples_cannot_reach_a_small_p() -> None:
    better = paired_difference(_mean([0.0] * 4), _mean([1.0, 0.9, 0.8, 0.7]))
    assert better.p == smallest_p(_mean([0.0] * 4), 10_000) == 0.125
    assert smallest_p(_mean([0.0] * 400), 9999) == 2 / 10_000


def test_holms_correction() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx(
        [0.03, 0.06, 0.06, 0.02]
    )  # 0.005·4, 0.01·3, 0.03·2, then no less than before
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("statistic", ["mean", "spearman", "average_precision"])
def test_nineteen_in_twenty_intervals_hold_the_truth(statistic: str) -> None:
    generator = np.random.default_rng(9)
    size, runs = 150, 300
    drawn = [_simulated(statistic, generator, size) for _ in range(runs)]
    expected = (
        1 / 3
        if statistic == "mean"
        else float(np.mean([_score(_simulated(statistic, generator, 20_000)) for _ in range(20)]))
    )
    intervals = [interval(samples, seed=number, resamples=400) for number, samples in enumerate(drawn)]
    held = np.mean([ends is not None and ends.low <= expected <= ends.high for ends in intervals])
    assert 0.915 <= held <= 0.985  # 0.95 give or take 2.7 standard errors of 300 runs


def _simulated(statistic: str, generator: np.random.Generator, size: int) -> Samples:
    if statistic == "mean":
        return _mean(generator.beta(0.5, 1, size))
    truth = generator.normal(size=size) if statistic == "spearman" else (generator.random(size) < 0.3).astype(float)
    return _against(statistic, truth + generator.normal(size=size), truth)


def _score(samples: Samples) -> float:
    from sklearn.metrics import average_precision_score

    if samples.statistic == "spearman":
        return float(stats.spearmanr(samples.values, samples.truth).statistic)
    return float(average_precision_score(samples.truth, samples.values))


@pytest.mark.parametrize("statistic", ["mean", "spearman", "average_precision"])
def test_one_in_twenty_equal_pairs_of_systems_is_called_different(statistic: str) -> None:
    generator = np.random.default_rng(10)
    runs = [_equal_systems(statistic, generator) for _ in range(300)]
    p_values = [paired_difference(*pair, seed=number, resamples=400).p for number, pair in enumerate(runs)]
    assert 0.015 <= np.mean(np.asarray(p_values) < 0.05) <= 0.085


def _equal_systems(statistic: str, generator: np.random.Generator, size: int = 150) -> tuple[Samples, Samples]:
    if statistic == "mean":
        hardness = generator.random(size)
        return _mean(hardness * generator.random(size)), _mean(hardness * generator.random(size))
    truth = generator.normal(size=size) if statistic == "spearman" else (generator.random(size) < 0.3).astype(float)
    shared = truth + generator.normal(size=size)
    return _against(statistic, shared + generator.normal(size=size), truth), _against(
        statistic, shared + generator.normal(size=size), truth
    )
