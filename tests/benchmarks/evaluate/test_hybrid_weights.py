"""Scores of hybrid search at each weight: those of single evaluations, and of vectors and words alone at the ends."""

from collections.abc import Callable
from pathlib import Path

import pytest

from llm2comp_benchmarks.evaluate.hybrid_weights import format_weights, measure_weights
from llm2comp_benchmarks.evaluate.own_index import evaluate_index
from llm2comp_indexes import IndexOptions, SearchOptions, build_index, open_index
from tests.word_encoder import WordEncoder

pytest.importorskip("pytrec_eval", reason="needs the extra eval")

TEXTS = ["red stone", "blue sea sea", "sea stone tower", "tower of red sea", "stone stone blue"]


def test_each_weight_is_an_evaluation(tmp_path: Path) -> None:
    documents = [{"id": f"d{number}", "text": text} for number, text in enumerate(TEXTS)]
    encoder = WordEncoder()
    build_index(documents, tmp_path / "idx", model=encoder, options=IndexOptions(hybrid=True))
    queries, qrels = {"a": "red sea", "b": "stone tower"}, {"a": {"d3": 1}, "b": {"d2": 2, "d4": 1}}
    with open_index(tmp_path / "idx", model=encoder) as index:
        rows = measure_weights(index, queries, qrels, weights=(0.0, 0.3, 1.0))
        found: Callable[..., float] = lambda mode, **options: evaluate_index(  # noqa: E731
            index, queries, qrels, mode=mode, options=SearchOptions(**options)
        ).metrics["ndcg_at_10"]
        expected = [found("bm25"), found("hybrid"), found("dense")]
    assert [row["ndcg_at_10"] for row in rows if row["fusion"] == "scores"] == pytest.approx(expected)
    assert [row["ndcg_at_10"] for row in rows if row["fusion"] == "ranks"][::2] == pytest.approx(expected[::2])
    assert [(row["vectors"], row["words"]) for row in rows[:3]] == [(0.0, 1.0), (0.3, 0.7), (1.0, 0.0)]


def test_the_best_of_each_fusion_is_bold() -> None:
    scores = {"scores": (0.5, 0.75), "ranks": (0.5, 0.25)}
    rows = [
        {"fusion": fusion, "vectors": share, "words": 1 - share, "ndcg_at_10": score}
        for fusion, pair in scores.items()
        for share, score in zip((0.0, 1.0), pair, strict=True)
    ]
    lines = format_weights({"rows": rows}).splitlines()
    assert lines[0] == "| weight of vectors | 0 | 1 |"
    assert lines[2:] == ["| by scores | 0.500 | **0.750** |", "| by ranks | **0.500** | 0.250 |"]
