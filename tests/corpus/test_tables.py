"""Folders and patterns of files of rows, with the partitions that their folders name."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import dataset, parquet

from llm2comp.corpus.documents import Document
from llm2comp.corpus.fields import FieldNames
from llm2comp.corpus.read import read_corpus
from llm2comp.corpus.size import estimate_documents
from llm2comp.corpus.sources import default_name, name_sources
from llm2comp.errors import CorpusError


def jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts(corpus: str | Path, **options: Any) -> dict[str, str]:
    return {one.id: one.text for one in read_corpus(corpus, **options)}


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Rows with ids in files of three kinds, two of them in partitions, beside files that are none."""
    root = tmp_path / "lake"
    jsonl(root / "b.jsonl", {"id": "1", "text": "one"}, {"id": "2", "text": "two"})
    (root / "a.csv").write_text("id,text\n3,three\n")
    for year, identifier in (("2023", "4"), ("2024", "5")):
        folder = root / f"year={year}" / "lang=en%20GB"
        folder.mkdir(parents=True)
        parquet.write_table(pyarrow.table({"id": [identifier], "text": ["t"]}), folder / "part-0.parquet")
    (root / "_SUCCESS").write_text("")
    jsonl(root / "_temporary.jsonl", {"id": "9", "text": "unfinished"})
    jsonl(root / ".hidden" / "c.jsonl", {"id": "9", "text": "hidden"})
    return root


def test_a_folder_of_files_of_rows(lake: Path) -> None:
    assert list(texts(lake)) == ["3", "1", "2", "4", "5"]
    assert estimate_documents([lake]) == 5


@pytest.mark.parametrize(
    ("pattern", "ids"),
    [
        ("*.jsonl", ["1", "2"]),
        ("**/*.parquet", ["4", "5"]),
        ("year=202[34]/*/part-?.parquet", ["4", "5"]),
        ("{}", None),
    ],
)
def test_patterns(pattern: str, ids: list[str] | None, lake: Path) -> None:
    if ids is None:
        with pytest.raises(CorpusError, match="no such file or folder"):
            texts(lake / pattern)
        return
    assert list(texts(lake / pattern)) == ids
    assert estimate_documents([lake / pattern]) == len(ids)


def test_partitions_are_those_of_pyarrow(lake: Path) -> None:
    read = (
        dataset.dataset(lake, partitioning="hive", format="parquet", exclude_invalid_files=True).to_table().to_pylist()
    )
    expected = {row["id"]: {"year": row["year"], "lang": row["lang"]} for row in read}
    documents = {one.id: one.metadata for one in read_corpus(lake / "**" / "*.parquet")}
    assert documents == expected == {"4": {"year": 2023, "lang": "en GB"}, "5": {"year": 2024, "lang": "en GB"}}


@pytest.mark.parametrize(
    ("folder", "metadata"),
    [
        ("zip=007", {"zip": "007"}),
        ("n=-12", {"n": -12}),
        ("n=--1", {"n": "--1"}),
        ("n=", {"n": ""}),
        ("n=__HIVE_DEFAULT_PARTITION__", {"n": None}),
        ("a=b=c", {"a": "b=c"}),
        ("=x", {}),
        ("n=1/n=2", {"n": 2}),
        ("n=٣", {"n": "٣"}),
    ],
)
def test_values_of_partitions(folder: str, metadata: dict[str, Any], tmp_path: Path) -> None:
    jsonl(tmp_path / folder / "c.jsonl", {"id": "1", "text": "t"})
    assert list(read_corpus(tmp_path)) == [Document("1", "", "t", metadata)]


@pytest.mark.parametrize(
    ("folders", "values"),
    [
        (["month=01", "month=09", "month=10"], ["01", "09", "10"]),
        (["month=1", "month=10", "month=__HIVE_DEFAULT_PARTITION__"], [1, 10, None]),
        (["month=10", "month=unknown"], ["10", "unknown"]),
    ],
)
def test_values_of_a_partition_are_of_one_type(folders: list[str], values: list[Any], tmp_path: Path) -> None:
    for folder in folders:
        jsonl(tmp_path / folder / "c.jsonl", {"id": folder, "text": "t"})
    assert [one.metadata["month"] for one in read_corpus(tmp_path)] == values


def test_a_field_of_the_row_goes_before_a_partition(tmp_path: Path) -> None:
    jsonl(tmp_path / "year=1" / "c.jsonl", {"id": "1", "text": "t", "year": 2}, {"id": "2", "text": "t"})
    assert [one.metadata for one in read_corpus(tmp_path)] == [{"year": 2}, {"year": 1}]


def test_a_corpus_may_be_one_partition(tmp_path: Path) -> None:
    path = tmp_path / "lake" / "year=2023" / "month=1" / "c.jsonl"
    jsonl(path, {"text": "t"})
    expected = {"year": 2023, "month": 1}
    ids = []
    for corpus in (path.parents[1], path.parent / "*.jsonl", path):
        [document] = read_corpus(corpus, name="lake", ids_are_positions=True)
        assert document.metadata == expected
        ids.append(document.id)
    assert ids == ["lake/month=1/c.jsonl:1", "lake/c.jsonl:1", "lake/c.jsonl:1"]


def test_a_partition_may_be_a_chosen_field(tmp_path: Path) -> None:
    jsonl(tmp_path / "lang=en" / "c.jsonl", {"id": "1", "text": "t", "page": 3})
    assert list(read_corpus(tmp_path, fields=FieldNames(title="lang", metadata=("page",)))) == [
        Document("1", "en", "t", {"page": 3})
    ]


def test_rows_of_equal_files_get_ids_of_their_own(tmp_path: Path) -> None:
    """Equal rows are numbered; positions hold the file's path."""
    for part in ("a", "b"):
        jsonl(tmp_path / "data" / part / "c.jsonl", {"text": "same"})
    by_content = list(texts(tmp_path / "data"))
    assert by_content[1] == f"{by_content[0]}-2"
    assert by_content[0].startswith("data#")
    positions = texts(tmp_path / "data", ids_are_positions=True)
    assert list(positions) == ["data/a/c.jsonl:1", "data/b/c.jsonl:1"]
    assert texts(tmp_path / "data" / "*" / "c.jsonl", ids_are_positions=True) == positions


def test_a_pattern_of_texts(tmp_path: Path) -> None:
    for name in ("a.md", "b.txt", "sub/c.md"):
        path = tmp_path / "docs" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(name)
    assert texts(tmp_path / "docs" / "**" / "*.md") == {"docs/a.md": "a.md", "docs/sub/c.md": "sub/c.md"}


def test_a_pattern_is_one_source_named_by_its_folder(tmp_path: Path) -> None:
    pattern = tmp_path / "docs" / "**" / "*.md"
    assert default_name(pattern) == "docs"
    [first] = name_sources([pattern])
    assert name_sources([pattern], [first]) == [first]
    assert first.root == str(pattern.resolve())


def test_a_name_with_brackets_is_a_name_where_there_is_such_a_file(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "notes [old].jsonl", {"id": "1", "text": "t"})
    assert texts(path) == {"1": "t"}
    assert default_name(path) == "notes [old].jsonl"


def test_texts_beside_rows_are_read_and_the_rows_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.txt").write_text("text")
    jsonl(tmp_path / "rows.jsonl", {"id": "1", "text": "t"})
    assert list(texts(tmp_path).values()) == ["text"]
    [line] = caplog.messages
    assert line == (
        f"{tmp_path}: only the texts are read, not the files of rows beside them (rows.jsonl): name them, or a pattern"
    )
    assert texts(tmp_path / "*.jsonl") == {"1": "t"}


@pytest.mark.parametrize("corpus", ["*.parquet", "source", "empty", "**"])
def test_nothing_that_can_be_read(corpus: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "code.py").write_text("pass")
    message = {
        "*.parquet": "no file matches the pattern$",
        "source": "a folder without texts and rows; a pattern reads its code: '.*source/\\*\\*/\\*.py'$",
        "empty": "a folder without files of a known kind; expected a BEIR folder",
        "**": "no file of a known kind matches the pattern; expected a BEIR folder",
    }[corpus]
    with pytest.raises(CorpusError, match=message):
        texts(tmp_path / corpus)


def test_a_malformed_row_is_named_by_its_file(lake: Path) -> None:
    path = jsonl(lake / "z.jsonl", {"id": "6", "text": "t"}, {"id": "7"})
    with pytest.raises(CorpusError, match=rf"^{path}:2: no text"):
        texts(lake)


def test_a_beir_folder_without_its_corpus_is_refused(tmp_path: Path) -> None:
    jsonl(tmp_path / "queries.jsonl", {"id": "q1", "text": "a question"})
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    with pytest.raises(CorpusError, match=r"a folder without corpus\.jsonl, beside queries\.jsonl"):
        texts(tmp_path)
    jsonl(tmp_path / "documents.jsonl", {"id": "d1", "text": "t"})
    assert texts(tmp_path / "documents.jsonl") == {"d1": "t"}


def test_what_spark_and_delta_leave_beside_is_left_out(tmp_path: Path) -> None:
    jsonl(tmp_path / "_delta_log" / "0.json", {"protocol": 1})
    jsonl(tmp_path / "_temporary" / "0" / "part.jsonl", {"id": "1", "text": "unfinished"})
    jsonl(tmp_path / "_x=1" / "part.jsonl", {"id": "1", "text": "t"})
    assert list(read_corpus(tmp_path)) == [Document("1", "", "t", {"_x": 1})]
    assert texts(tmp_path / "**" / "*.json*") == {"1": "t"}


def test_a_partition_within_metadata(tmp_path: Path) -> None:
    jsonl(tmp_path / "Year=2023" / "b.jsonl", {"id": "1", "text": "t", "metadata": {"year": "2022"}})
    jsonl(tmp_path / "Year=2024" / "b.jsonl", {"id": "2", "text": "t", "metadata": {"page": 1}})
    chosen = read_corpus(tmp_path, fields=FieldNames(metadata=("year",)))
    assert [one.metadata for one in chosen] == [{"year": "2022"}, {"year": 2024}]


def test_tables_of_one_folder_may_have_different_columns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.csv").write_text("id,subject,text\n1,S,t\n")
    (tmp_path / "b.csv").write_text("id,text,lang\n2,t,en\n")
    names = FieldNames(title="subject", metadata=("lang", "page"))
    assert list(read_corpus(tmp_path, fields=names)) == [
        Document("1", "S", "t"),
        Document("2", "", "t", {"lang": "en"}),
    ]
    assert caplog.messages == [f"{tmp_path}: no row has the field page; the fields are id, subject, text, lang"]


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\n')
    documents = read_corpus(path)
    next(documents)
    with path.open("a") as file:
        file.write('{"text": "c"}\n')
    with pytest.raises(CorpusError, match=f"^{path}: changed while it was read; read it again"):
        list(documents)
