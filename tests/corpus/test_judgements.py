"""Queries and judgements in the layouts of BEIR and TREC."""

import gzip
import json
import os
import threading
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from llm2comp.corpus.read import read_corpus, read_qrels, read_queries
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
        (
            b"query-id\tcorpus-id\tscore\nq\td\n",
            ":2: 2 fields, expected 3 as in the header: query-id, corpus-id, score",
        ),
        (b"query-id\tcorpus-id\tscore\nq\td\thigh\n", ":2: the score is 'high', expected a whole number"),
        (b"q d\n", ":1: 2 columns, expected 4: qid, iteration, docid, score, separated by spaces or tabs"),
        (b"q 0 d 1\nq d 1\n", ":2: 3 columns, expected 4"),
        (b"q d 1.5\n", ":1: the score is '1.5', expected a whole number"),
        (b"q d nan\n", ":1: the score is 'nan', expected a whole number"),
        (b"q 0 d 1\nq 0 d 2\n", ":2: a second score, 2, for query 'q' and document 'd'; it was 1"),
        (b"q 0 d 1\nq 0 \xff 2\n", ":2: not UTF-8"),
    ],
)
def test_malformed_qrels(tmp_path: Path, content: bytes, message: str) -> None:
    path = write(tmp_path / "qrels.tsv", content)
    with pytest.raises(CorpusError) as caught:
        read_qrels(path)
    assert str(caught.value).startswith(f"{path}{message}")


PAIRS = {"q1": {"d1": 1, "d2": 0}, "q2": {"d1": 2}}


@pytest.mark.parametrize(
    "content",
    [
        "q1 0 d1 1\nq1 0 d2 0\nq2 0 d1 2\n",
        "q1\t0  d1 \t1\r\n\r\nq1 \t Q0\td2   0 \r\n  q2 0 d1\t2\r\n",
        "q1 0 d1 1\rq1 0 d2 0\rq2 0 d1 2\r",
        "q1 d1 1\nq1\td2 0\nq2   d1\t2",
        "qid docid score\nq1 d1 1.0\nq1 d2 0\nq2 d1 2.0",
        "qid\tdocid\trelevance\nq1\td1\t1\nq1\td2\t0\nq2\td1\t2",
        "query_id\titeration\tdoc_id\trel\nq1\t0\td1\t1\nq1\t0\td2\t0\nq2\t0\td1\t2",
    ],
)
@pytest.mark.parametrize("name", ["qrels.tsv", "qrels.txt", "qrels"])
def test_qrels_of_other_tools(tmp_path: Path, name: str, content: str) -> None:
    assert read_qrels(write(tmp_path / name, content)) == PAIRS


def test_ids_with_spaces_of_any_kind(tmp_path: Path) -> None:
    assert read_qrels(write(tmp_path / "q.txt", "q\u00a01 0 d\u00a02 1\n")) == {"q\u00a01": {"d\u00a02": 1}}
    assert read_qrels(write(tmp_path / "q.tsv", "q 1\td 2 x\t1\nq\td\t1\n")) == {"q 1": {"d 2 x": 1}, "q": {"d": 1}}


ROWS = [("1", "d1", 1.0), ("1", "d2", 0.0), ("2", "d1", 2.0)]


@pytest.mark.parametrize("names", [("query-id", "corpus-id", "score"), ("qid", "docid", "relevance")])
@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json", ".csv", ".parquet"])
def test_qrels_as_records(tmp_path: Path, suffix: str, names: tuple[str, ...]) -> None:
    """With the whole numbers of pandas, which are floats where a column has gaps."""
    path = tmp_path / f"test{suffix}"
    rows = [dict(zip(names, (float(query), *others), strict=True)) for query, *others in ROWS]
    if suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif suffix == ".csv":
        write(path, "\n".join([",".join(names), *(f"{query},{document},{score}" for query, document, score in ROWS)]))
    else:
        write(path, "\n".join(map(json.dumps, rows)))
    assert read_qrels(path) == {"1": {"d1": 1, "d2": 0}, "2": {"d1": 2}}


def test_csv_judgements_without_a_header(tmp_path: Path) -> None:
    assert read_qrels(write(tmp_path / "q.csv", "q1,d1,1\nq1,d2,0\nq2,d1,2\n")) == PAIRS
    assert read_qrels(write(tmp_path / "r.csv", "q1,0,d1,1\nq1,0,d2,0\nq2,0,d1,2\n")) == PAIRS


@pytest.mark.parametrize("name", ["q.jsonl", "q.ndjson", "q.parquet"])
def test_query_ids_of_pandas_are_whole_numbers(tmp_path: Path, name: str) -> None:
    rows = [{"qid": 12.0, "text": "why?"}, {"qid": 1.5, "text": "how?"}]
    path = tmp_path / name
    if name.endswith("parquet"):
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        write(path, "\n".join(map(json.dumps, rows)))
    assert read_queries(path) == {"12": "why?", "1.5": "how?"}


def test_a_title_named_as_a_column_is_no_header(tmp_path: Path) -> None:
    path = write(tmp_path / "collection.tsv", "1\tabc\ttitle\n2\tdef\tid\n")
    documents = [(document.id, document.text, document.title) for document in read_corpus(path)]
    assert documents == [("1", "abc", "title"), ("2", "def", "id")]


def test_topics_without_a_header(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "topics.tsv", '1\t"why\n2\thow?"\n')
    assert read_queries(path) == {"1": '"why', "2": 'how?"'}
    [message] = [message for message in caplog.messages if "column name" in message]
    assert message.startswith(f"{path}: the first line has no known column name, so it is a row")
    caplog.clear()
    assert read_queries(path, header=False) == {"1": '"why', "2": 'how?"'}
    assert not caplog.messages
    with pytest.raises(CorpusError, match="expected a string or a number in _id"):
        read_queries(path, header=True)


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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("content", ["q1 0 d1 1\n", "query-id\tcorpus-id\tscore\nq1\td1\t1\n"])
def test_judgements_from_a_pipe(tmp_path: Path, content: str) -> None:
    """It can be read once: to open it again would wait forever."""
    path, judged = tmp_path / "qrels.tsv", list[object]()
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: judged.append(read_qrels(path)), daemon=True)
    reader.start()
    path.write_text(content)
    reader.join(30)
    assert judged == [{"q1": {"d1": 1}}]
