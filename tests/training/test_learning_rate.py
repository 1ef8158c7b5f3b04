"""The learning rate of the published runs; their own figures are compared in tests/test_golden.py."""

from typing import Any

import pytest

from llm2comp.training.loop import learning_rate

SHAPE: dict[str, Any] = {"total": 100, "warmup": 10, "peak": 1e-3, "floor": 1e-5}


def test_it_rises_from_the_floor_to_the_peak_and_falls_to_the_floor() -> None:
    rates = [learning_rate(update, **SHAPE) for update in range(1, 103)]
    assert rates[0] == rates[1] == SHAPE["floor"]
    assert max(rates) == rates[10] == rates[11] == SHAPE["peak"]
    assert all(before < after for before, after in zip(rates[1:10], rates[2:11], strict=True))
    assert all(before > after for before, after in zip(rates[11:], rates[12:], strict=False))
    assert rates[101] == pytest.approx(SHAPE["floor"])
    steps = {round(after - before, 12) for before, after in zip(rates[11:100], rates[12:101], strict=True)}
    assert len(steps) == 1, "the decay is linear"


def test_the_warmup_grows_with_the_logarithm() -> None:
    rates = [learning_rate(update, total=10**6, warmup=1000, peak=1.0, floor=0.0) for update in (11, 101, 1001)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1.0], rel=1e-3)


@pytest.mark.parametrize("warmup", [0, 1])
def test_no_warmup_starts_at_the_peak(warmup: int) -> None:
    assert learning_rate(1, total=10, warmup=warmup, peak=2.0, floor=0.5) == 2.0
    assert learning_rate(10, total=10, warmup=warmup, peak=2.0, floor=0.5) < 1.0


def test_it_stays_at_the_floor_after_the_end() -> None:
    assert learning_rate(5000, **SHAPE) == SHAPE["floor"]
