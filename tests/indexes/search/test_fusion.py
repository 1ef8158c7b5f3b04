"""Reciprocal rank fusion, compared with the formula."""

from collections import defaultdict

import numpy as np
import pytest
from numpy.typing import NDArray

from llm2comp.errors import SettingsError
from llm2comp_indexes.search.fusion import fuse

A = np.array([[4, 7, 1], [2, -1, -1]])
B = np.array([[7, 9], [-1, -1]])


def test_a_row_scores_the_sum_of_its_reciprocal_ranks() -> None:
    scores, rows = fuse([A, B], k=4)
    assert rows.tolist() == [[7, 4, 9, 1], [2, -1, -1, -1]]
    assert scores[0] == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62, 1 / 63])
    assert scores[1] == pytest.approx([1 / 61, 0, 0, 0])


def test_weights_and_the_constant() -> None:
    scores, rows = fuse([A, B], weights=[1, 3], k=2, constant=1)
    assert rows[0].tolist() == [7, 9]
    assert scores[0] == pytest.approx([1 / 3 + 3 / 2, 3 / 3])
    assert fuse([A, B], weights=[1, 0], k=4).rows.tolist() == [[4, 7, 1, -1], [2, -1, -1, -1]]


def test_equal_scores_are_ordered_by_row_whatever_the_order_of_their_parts() -> None:
    ranks = np.array(
        [[50, 3, 20], [3, 20, 50], [20, 50, 3]]
    )  # equal sums; 1/61 + 1/62 + 1/63 depends on the order in its last bit
    assert fuse(list(ranks[:, None, :]), k=3).rows.tolist() == [[3, 20, 50]]
    for constant in (1, 7, 60):
        rankings = list(np.array([[9, 8, 7, 6], [8, 7, 6, 9], [7, 6, 9, 8], [6, 9, 8, 7]])[:, None, :])
        assert fuse(rankings, k=4, constant=constant).rows.tolist() == [[6, 7, 8, 9]]


def reference(rankings: list[NDArray[np.int64]], weights: list[float], k: int) -> list[list[tuple[int, float]]]:
    answers = []
    for query in range(len(rankings[0])):
        sums: dict[int, float] = defaultdict(float)
        for ranking, weight in zip(rankings, weights, strict=True):
            for rank, row in enumerate(ranking[query].tolist(), start=1):
                if row >= 0:
                    sums[row] += weight / (60 + rank)
        answers.append(sorted(sums.items(), key=lambda pair: (-round(pair[1], 12), pair[0]))[:k])
    return answers


def test_random_rankings_agree_with_the_reference() -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        rankings = [
            np.array([random.permutation(60)[:depth] for _ in range(7)]) for depth in random.integers(1, 40, size=3)
        ]
        for ranking in rankings:
            ranking[random.random(ranking.shape) < 0.2] = -1
        scores, rows = fuse(rankings, weights=[1.0, 0.5, 2.0], k=25)
        for own_scores, own_rows, expected in zip(scores, rows, reference(rankings, [1.0, 0.5, 2.0], 25), strict=True):
            assert own_rows[own_rows >= 0].tolist() == [row for row, _ in expected]
            assert own_scores[own_rows >= 0] == pytest.approx([score for _, score in expected])


def test_nothing_found_and_no_queries() -> None:
    scores, rows = fuse([np.full((2, 3), -1), np.empty((2, 0), dtype=np.int64)], k=2)
    assert rows.tolist() == [[-1, -1], [-1, -1]]
    assert not scores.any()
    assert fuse([np.empty((0, 3), dtype=np.int64)], k=2).rows.shape == (0, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rankings": []}, "expected at least one"),
        ({"rankings": [A, B[:1]]}, "same queries"),
        ({"weights": [1]}, "1 numbers for 2 rankings"),
        ({"weights": [1, -1]}, "weights is"),
        ({"weights": [0, 0]}, "at least one above 0"),
        ({"weights": [1, float("nan")]}, "weights is"),
        ({"k": 0}, "k is 0"),
        ({"constant": -1}, "constant is -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        fuse(**({"rankings": [A, B]} | settings))
