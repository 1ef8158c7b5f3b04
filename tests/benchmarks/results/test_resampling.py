"""Scores from counts equal those of the written-out resample, as scipy and scikit-learn compute them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from llm2comp_benchmarks.results.record import Samples
from llm2comp_benchmarks.results.resampling import counts_of, statistic_of

stats = pytest.importorskip("scipy.stats")


def _samples(statistic: str, values: NDArray[np.float64], truth: NDArray[np.float64] | None) -> Samples:
    return Samples("metric", statistic, "pair", values.tolist(), None if truth is None else truth.tolist())


def _positions(size: int) -> NDArray[np.int64]:
    return np.random.default_rng(5).integers(0, size, (20, size))


def test_counts_say_how_often_each_position_was_drawn() -> None:
    assert counts_of(np.array([[0, 0, 2], [1, 1, 1]])).tolist() == [[2, 0, 1], [0, 3, 0]]
    assert counts_of(np.array([2, 2, 0])).tolist() == [1, 0, 2]


def test_mean() -> None:
    values = np.random.default_rng(1).normal(size=50)
    positions = _positions(50)
    assert statistic_of(_samples("mean", values, None))(counts_of(positions)) == pytest.approx(
        values[positions].mean(axis=1)
    )


@pytest.mark.parametrize("steps", [3, 1000])
def test_spearman_with_many_and_with_few_equal_values(steps: int) -> None:
    generator = np.random.default_rng(2)
    truth = generator.integers(0, 6, 80).astype(float)
    values = np.round(truth / 6 + generator.normal(size=80), 5 if steps > 3 else 0)
    positions = _positions(80)
    expected = [stats.spearmanr(values[row], truth[row]).statistic for row in positions]
    assert statistic_of(_samples("spearman", values, truth))(counts_of(positions)) == pytest.approx(expected)


@pytest.mark.parametrize("digits", [0, 6])
def test_average_precision_with_many_and_with_no_equal_values(digits: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(3)
    truth = (generator.random(60) < 0.3).astype(float)
    values = np.round(truth + generator.normal(size=60), digits)
    positions = _positions(60)
    expected = [metrics.average_precision_score(truth[row], values[row]) for row in positions]
    assert statistic_of(_samples("average_precision", values, truth))(counts_of(positions)) == pytest.approx(expected)


def test_what_has_no_score_is_not_a_number() -> None:
    alike = np.array([[3, 0, 0]])
    assert np.isnan(statistic_of(_samples("spearman", np.array([1.0, 2, 3]), np.array([1.0, 2, 3])))(alike)).all()
    assert np.isnan(
        statistic_of(_samples("average_precision", np.array([1.0, 2, 3]), np.array([0.0, 1, 0])))(alike)
    ).all()
