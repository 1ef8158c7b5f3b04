"""Queries and judgements in the layouts of BEIR and TREC."""

import gzip
from pathlib import Path

import pytest

from llm2comp.corpus.read import read_qrels, read_queries
from llm2comp.errors import CorpusError
from tests.paths import DATA


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("q.jsonl", '{"_id": "1", "text": "why?", "metadata": {}}\n{"_id": "2", "text": "how?"}\n'),
        ("q.json", '{"id": 1, "text": "why?"}\n{"id": 2, "text": "how?"}\n'),
        ("q.jsonl", '{"query_id": "1", "query": "why?"}\n{"query_id": "2", "query": "how?"}\n'),
        ("q.tsv", "qid\tquery\n1\twhy?\n2\thow?\n"),
    ],
)
def test_queries(tmp_path: Path, name: str, content: str) -> None:
    expected = {"1": "why?", "2": "how?"}
    assert read_queries(write(tmp_path / name, content)) == expected
    assert read_queries(write(tmp_path / f"{name}.gz", gzip.compress(content.encode()))) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ": no query in it"),
        ('{"_id": "1", "text": "a"}\n{"_id": 1, "text": "b"}', ":2: duplicate query id '1'"),
        (
            '{"text": "a"}',
            ":1: expected a string or a number in _id or id or query_id or query-id or qid, found None among the "
            "fields text",
        ),
        (
            '{"_id": "1", "text": ["a"]}',
            ":1: expected a string in text or query, found ['a'] among the fields _id, text",
        ),
        ("{", ":1: not JSON"),
    ],
)
def test_malformed_queries(tmp_path: Path, content: str, message: str) -> None:
    path = write(tmp_path / "q.jsonl", content)
    with pytest.raises(CorpusError) as caught:
        read_queries(path)
    assert str(caught.value).startswith(f"{path}{message}")


@pytest.mark.parametrize(
    "content",
    [
        "query-id\tcorpus-id\tscore\nq1\td 1\t2\nq1\td2\t0\nq2\td 1\t-1\n",
        "\ufeffquery-id\tcorpus-id\tscore\r\nq1\td 1\t2\r\nq1\td2\t0\r\nq2\td 1\t-1\r\n\r\n",
    ],
)
def test_beir_qrels(tmp_path: Path, content: str) -> None:
    expected = {"q1": {"d 1": 2, "d2": 0}, "q2": {"d 1": -1}}
    assert read_qrels(write(tmp_path / "test.tsv", content)) == expected
    assert read_qrels(write(tmp_path / "test.tsv.gz", gzip.compress(content.encode()))) == expected


def test_trec_qrels(tmp_path: Path) -> None:
    assert read_qrels(write(tmp_path / "qrels.txt", "101 0 FT-1 1\n101\tQ0\tFT-2\t0\n102 0  FT-1 2\n")) == {
        "101": {"FT-1": 1, "FT-2": 0},
        "102": {"FT-1": 2},
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": no judgement in it"),
        (b"query-id\tcorpus-id\tscore\n", ": no judgement in it"),
        (b"query-id\tcorpus-id\tscore\nq\td\n", ":2: 2 columns, expected 3, separated by tabs"),
        (b"query-id\tcorpus-id\tscore\nq\td\thigh\n", ":2: the score is 'high', expected a whole number"),
        (
            b"q d 1\n",
            ":1: 3 columns, expected 4 (TREC), or a first line query-id, corpus-id, score separated by tabs (BEIR)",
        ),
        (b"q 0 d 1\nq 0 d 2\n", ":2: a second score, 2, for query 'q' and document 'd'; it was 1"),
        (b"q 0 d 1\nq 0 \xff 2\n", ":2: not UTF-8"),
    ],
)
def test_malformed_qrels(tmp_path: Path, content: bytes, message: str) -> None:
    path = write(tmp_path / "qrels.tsv", content)
    with pytest.raises(CorpusError) as caught:
        read_qrels(path)
    assert str(caught.value).startswith(f"{path}{message}")


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data is not at {DATA}; LLM2COMP_DATA names its folder")
@pytest.mark.parametrize(
    ("name", "queries", "judgements"), [("scifact", 1109, 339), ("cranfield", 225, 1611), ("xquad", 1190, 1190)]
)
def test_real_sets_have_the_documented_size(name: str, queries: int, judgements: int) -> None:
    texts = read_queries(DATA / "eval" / name / "queries.jsonl.gz")
    qrels = read_qrels(DATA / "eval" / name / "qrels" / "test.tsv")
    assert len(texts) == queries
    assert sum(map(len, qrels.values())) == judgements
    assert qrels.keys() <= texts.keys()
