"""Traits by hand, rank correlations against scipy's, and bins that hold every share."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from llm2comp_indexes.audit.histogram import format_bins, make_bins
from llm2comp_indexes.audit.traits import TRAITS, correlate, rank_correlation, text_traits


def test_traits_by_hand() -> None:
    traits = text_traits(["Ab 12", "é!?x"], [[5, 6, 5], [6, 7]])
    first, second = (dict(zip(TRAITS, values, strict=True)) for values in traits)
    assert first == {
        "tokens": 3,
        "digits": 2 / 5,
        "uppercase letters": 1 / 5,
        "other symbols": 0,
        "characters beyond ASCII": 0,
        "rare tokens": pytest.approx(2 / 3),  # 5 is in no other text, and stands twice
        "repeated tokens": pytest.approx(1 / 3),
    }
    assert (second["other symbols"], second["characters beyond ASCII"], second["rare tokens"]) == (0.5, 0.25, 0.5)


def test_rank_correlation_is_that_of_scipy() -> None:
    draw = np.random.default_rng(0)
    for _ in range(20):
        first, second = draw.integers(0, 6, 30).astype(float), draw.normal(size=30)
        second[:5] = 0.5
        assert rank_correlation(first, second) == pytest.approx(float(spearmanr(first, second).statistic), abs=1e-12)


def test_a_trait_that_does_not_vary_has_no_correlation() -> None:
    assert rank_correlation(np.ones(5), np.arange(5.0)) is None
    assert rank_correlation(np.ones(1), np.ones(1)) is None


def test_texts_without_a_share_are_left_out() -> None:
    traits = [(float(number), 0, 0, 0, 0, 0, 0) for number in range(10)]
    found = correlate(traits, [None, *(float(-number) for number in range(1, 10))])
    assert (found[0].trait, found[0].texts) == ("tokens", 9)
    assert found[0].value == pytest.approx(-1)
    assert found[0].chance == pytest.approx(1.96 / math.sqrt(8))
    assert found[1].value is None


@pytest.mark.parametrize("spread", [0.001, 0.05, 1.0, 40.0, 1e6])
def test_bins_hold_every_share_once(spread: float) -> None:
    shares = (spread * np.random.default_rng(1).normal(size=500)).tolist()
    bins = make_bins(shares)
    assert len(bins) <= 22
    for one in bins:
        assert one.rows == sum(one.begin <= share < one.end for share in shares)
    assert sum(one.rows for one in bins) == 500


def test_bins_as_text() -> None:
    bins = make_bins([0.11, 0.15, 0.15, 0.39])
    lines = format_bins(bins).splitlines()
    assert lines[0].split() == ["0.10", "to", "0.12", "#" * 20, "1"]
    assert lines[2].split() == ["0.14", "to", "0.16", "#" * 40, "2"]
    assert make_bins([0.5]) == [(0.5, 0.51, 1)]
