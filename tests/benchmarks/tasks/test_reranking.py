"""Candidate lists: values worked out by hand, and files that cannot be such a set."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import CorpusError
from llm2comp_benchmarks import evaluate, read_reranking

LINES = [
    {"query": "a b c", "positive": ["a b c", "a x y"], "negative": ["a b x", "w x y"]},
    {"query": "d e", "positive": ["d e"], "negative": ["d e", "x"]},
]


def write(file: Path, lines: list[Any]) -> Path:
    file.write_text(
        "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines), encoding="utf-8"
    )
    return file


def test_values(tmp_path: Path, encoder: Any) -> None:
    """Positives of the first query are first and third; that of the second is below a negative of the same words."""
    pytest.importorskip("pytrec_eval")
    result = evaluate(encoder, read_reranking(write(tmp_path / "some.jsonl", LINES)))
    assert result.metrics["map_at_1000"] == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)
    assert result.metrics["mrr_at_10"] == pytest.approx((1 + 1 / 2) / 2)
    assert (result.samples.ids, result.samples.values) == (["q1", "q2"], pytest.approx([5 / 6, 1 / 2]))
    assert result.details == {
        "source": str(tmp_path / "some.jsonl"),
        "split": None,
        "queries": 2,
        "positives": 3,
        "negatives": 4,
    }
    assert encoder.queries == ["a b c", "d e"]  # queries are encoded as such


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"some\.jsonl:3: not JSON"),
        ("[]", r"some\.jsonl:3: a JSON list, expected one object"),
        ("{}", r"some\.jsonl:3: expected .*the query is missing"),
        ('{"query": "a", "query": "b"}', r"some\.jsonl:3: the key 'query' stands twice in one object"),
        (
            {"query": 1, "positive": ["a"], "negative": ["b"]},
            r"some\.jsonl:3: expected .*the query is missing or no text",
        ),
        (
            {"query": "a", "positive": [], "negative": ["b"]},
            r"some\.jsonl:3: 'positive' is \[\], expected a list of one text or more",
        ),
        ({"query": "a", "positive": ["a"]}, r"some\.jsonl:3: 'negative' is null, expected a list"),
        ({"query": "a", "positive": ["a"], "negative": "b"}, r"some\.jsonl:3: 'negative' is \"b\", expected a list"),
    ],
)
def test_bad_lines(tmp_path: Path, line: Any, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        read_reranking(write(tmp_path / "some.jsonl", [*LINES, line]))


def test_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"some\.jsonl: no query in it"):
        read_reranking(write(tmp_path / "some.jsonl", []))
