"""Indexes of documents in memory: dicts, data frames, documents of other libraries, iterators that are read once."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas
import polars
import pyarrow
import pytest
from langchain_core.documents import Document as LangChainDocument
from llama_index.core.schema import NodeWithScore, TextNode

from llm2comp.corpus.documents import Document
from llm2comp.errors import CorpusError, SettingsError
from llm2comp_indexes import (
    FieldNames,
    IndexOptions,
    add_documents,
    build_index,
    encode_shard,
    open_index,
)
from llm2comp_indexes.builder.blocks import BLOCK
from llm2comp_indexes.format.manifest import read_manifest
from tests.word_encoder import WordEncoder

FLAT = IndexOptions(type="flat")
ROWS = [
    {"id": "a", "title": "Bread", "text": "It rises.", "year": 1999, "day": date(2024, 1, 31), "price": None},
    {"id": "b", "title": "", "text": "It falls.", "year": 2000, "day": date(2024, 2, 1), "price": 1.5},
]
DOCUMENTS = [
    Document("a", "Bread", "It rises.", {"year": 1999, "day": "2024-01-31", "price": None}),
    Document("b", "", "It falls.", {"year": 2000, "day": "2024-02-01", "price": 1.5}),
]


def build(rows: Any, output: Path, **options: Any) -> Any:
    return build_index(rows, output, model=WordEncoder(), options=FLAT, **options)


def add(rows: Any, folder: Path, **options: Any) -> tuple[int, ...]:
    return add_documents(folder, rows, model=WordEncoder(), **options)[:3]


def held(folder: Path) -> list[Document]:
    with open_index(folder, model=WordEncoder()) as index:
        hits = index.search(["bread"], k=100)[0]
        return sorted((Document(hit.id, hit.title, hit.text, hit.metadata) for hit in hits), key=lambda one: one.id)


@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        tuple(ROWS),
        iter(ROWS),
        (row for row in ROWS),
        DOCUMENTS,
        pandas.DataFrame(ROWS),
        pandas.DataFrame(ROWS).convert_dtypes(),
        polars.DataFrame(ROWS),
        pyarrow.Table.from_pylist(ROWS),
    ],
    ids=["list", "tuple", "iterator", "generator", "documents", "pandas", "pandas-dtypes", "polars", "arrow"],
)
def test_rows_of_many_kinds(rows: Any, tmp_path: Path) -> None:
    report = build(rows, tmp_path / "idx")
    assert report.documents == 2
    assert held(tmp_path / "idx") == DOCUMENTS
    assert add(ROWS, tmp_path / "idx") == (0, 0, 2)
    [source] = read_manifest(tmp_path / "idx").sources or ()
    assert (source.name, source.root) == ("rows", "rows")


def test_documents_of_langchain(tmp_path: Path) -> None:
    rows = [LangChainDocument("It rises.", metadata={"page": 3}), LangChainDocument("It falls.", id="b")]
    build(rows, tmp_path / "idx", source="notes")
    first, second = held(tmp_path / "idx")
    assert first == Document("b", "", "It falls.")
    assert second.id.startswith("notes#")
    assert (second.text, second.metadata) == ("It rises.", {"page": 3})
    assert add(rows, tmp_path / "idx", source="notes") == (0, 0, 2)


def test_nodes_of_llama_index(tmp_path: Path) -> None:
    nodes = [TextNode(id_="a", text="It rises.", metadata={"page": 3}), NodeWithScore(node=TextNode(id_="b", text="x"))]
    build(nodes, tmp_path / "idx")
    assert held(tmp_path / "idx") == [Document("a", "", "It rises.", {"page": 3}), Document("b", "", "x")]


def test_ids_are_made_of_content_and_the_name_of_the_source(tmp_path: Path) -> None:
    rows = [{"text": "bread"}, {"text": "rain"}, {"text": "rain"}]
    build(rows, tmp_path / "idx", source="faq")
    assert [one.id.split("#")[0] for one in held(tmp_path / "idx")] == ["faq"] * 3
    assert add(iter(rows), tmp_path / "idx") == (0, 0, 3)
    assert add([{"text": "snow"}, *rows], tmp_path / "idx", source="faq") == (1, 0, 3)
    assert add(rows, tmp_path / "idx", source="other") == (3, 0, 0)
    with pytest.raises(SettingsError, match="in the index as the sources faq, other; choose one"):
        add(rows, tmp_path / "idx")
    with pytest.raises(SettingsError, match="positions in rows in memory are ids only within one input"):
        build(rows, tmp_path / "idx2", ids_are_positions=True)
    build(rows, tmp_path / "idx2", ids_are_positions=True, source="faq")
    assert [one.id for one in held(tmp_path / "idx2")] == ["faq/rows:1", "faq/rows:2", "faq/rows:3"]


def test_fields_of_rows(tmp_path: Path) -> None:
    rows = [{"Page": 7, "Body": "bread", "year": 1}]
    build(rows, tmp_path / "idx", fields=FieldNames("page", text=("body",)))
    assert held(tmp_path / "idx") == [Document("7", "", "bread", {"year": 1})]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a"}, 7], "row 2: of type int, expected a Document, a dict, a Document of LangChain or a node"),
        (iter(["a.jsonl"]), "row 1: of type str, expected"),
        ([{"text": "a"}, {"id": 1, "body_": "b"}], "row 2: no text; expected one of the fields"),
        ([Document("a", "", 5)], "row 1: the text is of type int, expected a string"),
        ([SimpleNamespace(page_content=None, metadata={})], "row 1: the text is of type NoneType"),
        ([{"id": 1, "text": "a"}, {"id": "1", "text": "b"}], "row 2: duplicate id '1'"),
        ([{"text": "a", "x": float("inf")}], "row 1: 'x' is inf"),
        (pandas.DataFrame([["a", "b"]], columns=["text", "text"]), "rows: a column name occurs twice: text, text"),
        (iter([]), "rows: an empty corpus"),
    ],
)
def test_rows_that_do_not_fit(rows: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=message):
        build(rows, tmp_path / "idx")
    assert not (tmp_path / "idx").exists()


def test_rows_are_skipped_and_counted(tmp_path: Path) -> None:
    report = build([{"text": "a"}, 7, {"text": None}], tmp_path / "idx", on_error="skip")
    assert (report.documents, report.skipped) == (1, 2)


@pytest.mark.parametrize("corpora", [7, None, {"text": "a"}, b"a.jsonl", polars.DataFrame(ROWS).lazy()])
def test_neither_rows_nor_paths(corpora: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"corpora is of type {type(corpora).__name__}, expected paths"):
        build(corpora, tmp_path / "idx")


def test_a_string_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "bread"}\n')
    assert build(str(tmp_path / "a.jsonl"), tmp_path / "idx").documents == 1
    with pytest.raises(CorpusError, match="b.jsonl: no such file"):
        build(str(tmp_path / "b.jsonl"), tmp_path / "idx2")
    with pytest.raises(SettingsError, match="at least one corpus"):
        build([], tmp_path / "idx2")


def test_errors_of_a_generator_pass_through_and_the_build_resumes(tmp_path: Path) -> None:
    def generate(count: int) -> Iterator[dict[str, Any]]:
        for row in range(3 * BLOCK):
            if row == count:
                raise LookupError("the database is gone")
            yield {"text": f"bread {row}"}

    with pytest.raises(LookupError, match="^'?the database is gone'?$"):
        build(generate(2 * BLOCK + 5), tmp_path / "idx")
    report = build(generate(-1), tmp_path / "idx")
    assert report.documents == 3 * BLOCK
    assert report.encoded <= 2 * BLOCK


def test_a_shard_of_rows(tmp_path: Path) -> None:
    report = encode_shard(iter(ROWS), tmp_path / "shards", model=WordEncoder())
    assert report.documents == 2
