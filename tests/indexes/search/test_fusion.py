"""Fusion by ranks and by scores, compared with the formulas."""

from collections import defaultdict

import numpy as np
import pytest
from numpy.typing import NDArray

from llm2comp.errors import SettingsError
from llm2comp_indexes.format.vectors import Neighbors
from llm2comp_indexes.search.fusion import fuse_ranks, fuse_scores

A = np.array([[4, 7, 1], [2, -1, -1]])
B = np.array([[7, 9], [-1, -1]])


def test_a_row_scores_the_sum_of_its_reciprocal_ranks() -> None:
    scores, rows = fuse_ranks([A, B], k=4)
    assert rows.tolist() == [[7, 4, 9, 1], [2, -1, -1, -1]]
    assert scores[0] == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62, 1 / 63])
    assert scores[1] == pytest.approx([1 / 61, 0, 0, 0])


def test_weights_and_the_constant() -> None:
    scores, rows = fuse_ranks([A, B], weights=[1, 3], k=2, constant=1)
    assert rows[0].tolist() == [7, 9]
    assert scores[0] == pytest.approx([1 / 3 + 3 / 2, 3 / 3])
    assert fuse_ranks([A, B], weights=[1, 0], k=4).rows.tolist() == [[4, 7, 1, -1], [2, -1, -1, -1]]


def test_equal_scores_are_ordered_by_row_whatever_the_order_of_their_parts() -> None:
    ranks = np.array(
        [[50, 3, 20], [3, 20, 50], [20, 50, 3]]
    )  # equal sums; 1/61 + 1/62 + 1/63 depends on the order in its last bit
    assert fuse_ranks(list(ranks[:, None, :]), k=3).rows.tolist() == [[3, 20, 50]]
    for constant in (1, 7, 60):
        rankings = list(np.array([[9, 8, 7, 6], [8, 7, 6, 9], [7, 6, 9, 8], [6, 9, 8, 7]])[:, None, :])
        assert fuse_ranks(rankings, k=4, constant=constant).rows.tolist() == [[6, 7, 8, 9]]


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
        scores, rows = fuse_ranks(rankings, weights=[1.0, 0.5, 2.0], k=25)
        for own_scores, own_rows, expected in zip(scores, rows, reference(rankings, [1.0, 0.5, 2.0], 25), strict=True):
            assert own_rows[own_rows >= 0].tolist() == [row for row, _ in expected]
            assert own_scores[own_rows >= 0] == pytest.approx([score for _, score in expected])


def test_nothing_found_and_no_queries() -> None:
    scores, rows = fuse_ranks([np.full((2, 3), -1), np.empty((2, 0), dtype=np.int64)], k=2)
    assert rows.tolist() == [[-1, -1], [-1, -1]]
    assert not scores.any()
    assert fuse_ranks([np.empty((0, 3), dtype=np.int64)], k=2).rows.shape == (0, 2)


def neighbors(*lists: dict[int, float]) -> Neighbors:
    """One ranking, of each query its rows with their scores, best first."""
    depth = max(map(len, lists))
    scores = [[*found.values()] + [-np.inf] * (depth - len(found)) for found in lists]
    rows = [[*found] + [-1] * (depth - len(found)) for found in lists]
    return Neighbors(np.array(scores, np.float32), np.array(rows, np.int64).reshape(len(lists), depth))


VECTORS = neighbors({4: 0.9, 7: 0.8, 1: 0.5, 2: 0.1}, {4: 0.3, 7: 0.2, 1: 0.1})
WORDS = neighbors({7: 12.0, 9: 6.0, 2: 3.0}, {9: 5.0})


def test_a_row_scores_the_weighted_mean_of_its_scaled_scores() -> None:
    scores, rows = fuse_scores([VECTORS, WORDS], weights=[1, 3], k=6)
    # By vectors 1, 7/8, 1/2 and 0, by words 1, 1/3 and 0; the second query 1, 1/2 and 0, and 1
    assert rows.tolist() == [[7, 4, 9, 1, 2, -1], [9, 4, 7, 1, -1, -1]]
    assert scores[0] == pytest.approx([7 / 32 + 3 / 4, 1 / 4, 1 / 4, 1 / 8, 0, 0])
    assert scores[1] == pytest.approx([3 / 4, 1 / 4, 1 / 8, 0, 0, 0])


def test_the_worst_of_few_that_match_is_above_what_does_not_match() -> None:
    scores, rows = fuse_scores([VECTORS, WORDS], weights=[0, 1], least=[None, 0.0], k=3)
    assert rows.tolist() == [[7, 9, 2], [9, -1, -1]]
    assert scores == pytest.approx(np.array([[1, 1 / 2, 1 / 4], [1, 0, 0]]))
    full = fuse_scores([VECTORS, WORDS], weights=[0, 1], least=[None, 0.0], k=3, window=2)
    assert full.scores[0] == pytest.approx([1, 0, -1 / 2])  # what does not match may be as good as the second


def test_the_first_results_depend_neither_on_k_nor_on_depth_and_all_others_follow() -> None:
    random = np.random.default_rng(3)
    deep = []
    for _ in range(2):
        rows = np.array([random.permutation(400)[:300] for _ in range(5)])
        deep.append(Neighbors(-np.sort(-random.normal(size=(5, 300)), axis=1).astype(np.float32), rows))
    shallow = [Neighbors(ranking.scores[:, :100], ranking.rows[:, :100]) for ranking in deep]
    weights = [0.3, 0.7]
    few, many = fuse_scores(shallow, weights=weights, k=10), fuse_scores(deep, weights=weights, k=1000)
    assert np.array_equal(many.rows[:, :10], few.rows)
    assert np.allclose(many.scores[:, :10], few.scores)
    for query in range(5):
        rows, scores = many.rows[query][many.rows[query] >= 0], many.scores[query][many.rows[query] >= 0]
        listed = {*deep[0].rows[query].tolist(), *deep[1].rows[query].tolist()}
        first = {*shallow[0].rows[query].tolist(), *shallow[1].rows[query].tolist()}
        assert set(rows.tolist()) == listed
        assert set(rows[: len(first)].tolist()) == first
        assert (scores[: len(first)] >= 0).all()
        assert (scores[len(first) :] <= 0).all()
        assert (np.diff(scores) <= 0).all()
        # Beyond the windows: the same straight line through the first and the hundredth score, below 0
        lines = []
        for ranking in deep:
            top, bottom = float(ranking.scores[query, 0]), float(ranking.scores[query, 99])
            its = dict(zip(ranking.rows[query].tolist(), ranking.scores[query].tolist(), strict=True))
            least = float(ranking.scores[query, -1])
            lines.append({row: (its.get(row, least) - bottom) / (top - bottom) for row in listed})
        expected = {row: 0.3 * lines[0][row] + 0.7 * lines[1][row] for row in listed - first}
        beyond = dict(zip(rows[len(first) :].tolist(), scores[len(first) :].tolist(), strict=True))
        assert beyond == pytest.approx(expected, abs=1e-5)


def test_equal_scores_are_ordered_by_row_and_count_as_the_best() -> None:
    scores, rows = fuse_scores([neighbors({9: 2.0, 3: 2.0, 5: 2.0})], k=3)
    assert (rows.tolist(), scores.tolist()) == ([[3, 5, 9]], [[1, 1, 1]])
    parts = [neighbors({1: 3.0, 2: 2.0, 3: 1.0, 4: 0.0}), neighbors({2: 3.0, 1: 2.0, 4: 1.0, 3: 0.0})]
    assert fuse_scores(parts, k=4).rows.tolist() == [[1, 2, 3, 4]]


def test_where_a_window_is_of_one_score_every_row_of_that_score_is_in_it() -> None:
    words = neighbors({1: 5.0, 2: 5.0, 3: 5.0, 4: 4.0})
    nearest = neighbors({3: 0.9, 4: 0.8, 6: 0.7, 1: 0.6})
    scores, rows = fuse_scores([nearest, words], weights=[1, 1], k=6, window=2)
    # By vectors 1, 0, -1 and -2; by words 1, 1, 1 and 0; beyond both windows is row 6 alone
    assert rows.tolist() == [[3, 1, 2, 4, 6, -1]]
    assert scores[0] == pytest.approx([1, 1 / 2, 1 / 2, 0, -1 / 2, 0])


def test_scores_of_nothing_found_and_of_no_queries() -> None:
    nothing = Neighbors(np.full((2, 3), -np.inf, np.float32), np.full((2, 3), -1))
    empty = Neighbors(np.empty((2, 0), np.float32), np.empty((2, 0), np.int64))
    assert fuse_scores([nothing, empty], k=2).rows.tolist() == [[-1, -1], [-1, -1]]
    assert fuse_scores([nothing, VECTORS], k=1).rows.tolist() == [[4], [4]]
    no_queries = Neighbors(np.empty((0, 3), np.float32), np.empty((0, 3), np.int64))
    assert fuse_scores([no_queries], k=2).rows.shape == (0, 2)


def test_large_weights_are_like_small_ones_and_a_window_has_rows() -> None:
    small, large = (fuse_scores([VECTORS, WORDS], weights=[part, part], k=4) for part in (1e-300, 1e308))
    assert np.array_equal(small.scores, large.scores)
    with pytest.raises(SettingsError, match="window is 0"):
        fuse_scores([VECTORS], window=0)
    with pytest.raises(SettingsError, match="1 numbers for 2 rankings"):
        fuse_scores([VECTORS, WORDS], weights=[1])


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
        fuse_ranks(**({"rankings": [A, B]} | settings))
