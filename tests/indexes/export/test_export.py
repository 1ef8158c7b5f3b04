"""Exports in every format: what other tools read of them, types of metadata, and what goes wrong."""

import errno
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

from llm2comp.corpus.documents import Document
from llm2comp.errors import IndexFolderError, LLM2CompError, SettingsError
from llm2comp_indexes import (
    IndexOptions,
    VectorFiles,
    add_documents,
    build_from_vectors,
    build_index,
    delete_documents,
    export_index,
    open_index,
)
from llm2comp_indexes.export import files as formats
from llm2comp_indexes.export.arrow import MetadataTypes, make_schema
from llm2comp_indexes.export.rows import Block
from llm2comp_indexes.export.run import _plain
from llm2comp_indexes.format.documents import DocumentReader
from llm2comp_indexes.format.segment_writer import SegmentWriter
from tests.word_encoder import WordEncoder

ROWS: list[dict[str, Any]] = [
    {
        "_id": "a",
        "title": "Bread",
        "text": "how bread rises",
        "year": 2001,
        "price": 1.5,
        "new": True,
        "tags": ["x", "é"],
    },
    {
        "_id": "b",
        "title": "",
        "text": "the moon\nand \u2028 the tides",
        "year": 2002,
        "price": 2,
        "tags": [],
        "o": {"p": 1},
    },
    {"_id": "c d", "title": "Ünï", "text": "rain", "year": None, "price": 3.25, "mixed": "text", "sizes": [1, 2.5]},
    {"_id": "e", "title": "T", "text": "prime numbers", "mixed": 4, "large": 2**70, "sizes": []},
]
KINDS = {
    "year": "int64",
    "price": "double",
    "new": "bool",
    "tags": "list:string",
    "o": "json",
    "mixed": "json",
    "sizes": "list:double",
    "large": "json",
}
TARGETS = {"parquet": "out.parquet", "jsonl": "out.jsonl", "npy": "out", "lance": "out.lance"}


@pytest.fixture
def folder(tmp_path: Path, write_corpus: Callable[..., Path]) -> Path:
    """An index in two segments, with a deleted document between the others."""
    doomed = {"_id": "gone", "text": "to be deleted", "secret": 1}
    build_index([write_corpus([*ROWS[:2], doomed])], tmp_path / "idx", model=WordEncoder())
    add_documents(tmp_path / "idx", [write_corpus(ROWS[2:], "more.jsonl")], model=WordEncoder())
    delete_documents(tmp_path / "idx", ["gone"])
    return tmp_path / "idx"


@pytest.fixture
def vectors(folder: Path) -> NDArray[np.float32]:
    """The vectors, in the order of ROWS."""
    contents = [f"{row['title']}\n{row['text']}" if row["title"] else row["text"] for row in ROWS]
    return WordEncoder().encode_document(contents)


def needs(format: str) -> None:
    if format == "lance":
        pytest.importorskip("lance", reason="format lance needs pylance, of 200 MB: pip install 'llm2comp[lance]'")


def metadata_of(row: dict[str, Any]) -> dict[str, Any]:
    others = {name: value for name, value in row.items() if name not in ("_id", "title", "text")}
    return {name: value for name, value in others.items() if value is not None}


@pytest.mark.parametrize("format", TARGETS)
def test_every_format_holds_all_rows(folder: Path, tmp_path: Path, format: Any, vectors: NDArray[np.float32]) -> None:
    needs(format)
    target = tmp_path / TARGETS[format]
    seen: list[str] = []
    report = export_index(folder, target, format=format, progress=lambda phase, done: seen.append(f"{phase} {done}"))
    assert (report.rows, report.dimension) == (4, 32)
    assert report.fields == KINDS
    assert report.bytes == sum(file.stat().st_size for file in (target, *target.rglob("*")) if file.is_file())
    assert seen[-1] == "rows read back 4"
    types = pa.schema([("vector", pa.list_(pa.float32(), 32))])
    if format in ("parquet", "lance"):
        kinds = MetadataTypes()
        with open_index(folder, model=WordEncoder()) as index:
            for segment in index.segments:
                kinds.add(
                    segment.documents[row] for row in range(segment.rows) if segment.alive is None or segment.alive[row]
                )
        types = make_schema(kinds, 32)
    blocks = list(formats.FORMATS[format].read(target, types))
    rows = [row for block in blocks for row in block.rows]
    assert [(row.id, row.title, row.text) for row in rows] == [(row["_id"], row["title"], row["text"]) for row in ROWS]
    found = [{name: value for name, value in row.metadata.items() if value is not None} for row in rows]
    assert found == list(map(metadata_of, ROWS))
    assert np.array_equal(np.concatenate([block.vectors for block in blocks]), vectors)
    assert not list(tmp_path.glob(".*"))


def test_parquet_has_typed_columns(folder: Path, tmp_path: Path) -> None:
    export_index(folder, tmp_path / "out.parquet")
    schema = parquet.read_schema(tmp_path / "out.parquet")
    assert schema.names == ["id", "title", "text", "metadata", "vector"]
    assert schema.field("vector").type == pa.list_(pa.float32(), 32)
    types = {field.name: field.type for field in schema.field("metadata").type}
    assert types == {
        "year": pa.int64(),
        "price": pa.float64(),
        "new": pa.bool_(),
        "tags": pa.list_(pa.string()),
        "o": pa.string(),
        "mixed": pa.string(),
        "sizes": pa.list_(pa.float64()),
        "large": pa.string(),
    }
    metadata = parquet.read_table(tmp_path / "out.parquet").column("metadata").to_pylist()
    assert json.loads(metadata[1]["o"]) == {"p": 1}
    assert (json.loads(metadata[2]["mixed"]), json.loads(metadata[3]["mixed"])) == ("text", 4)


def test_pandas_reads_parquet(folder: Path, tmp_path: Path, vectors: NDArray[np.float32]) -> None:
    import pandas

    export_index(folder, tmp_path / "out.parquet")
    frame = pandas.read_parquet(tmp_path / "out.parquet")
    assert list(frame["id"]) == [row["_id"] for row in ROWS]
    assert np.array_equal(np.stack(list(frame["vector"])), vectors)
    assert frame["metadata"][0]["year"] == 2001


def test_datasets_reads_parquet_and_json_lines(folder: Path, tmp_path: Path, vectors: NDArray[np.float32]) -> None:
    datasets = pytest.importorskip("datasets")
    export_index(folder, tmp_path / "out.parquet")
    cache = str(tmp_path / "cache")
    rows = datasets.Dataset.from_parquet(str(tmp_path / "out.parquet"), cache_dir=cache)
    assert rows["id"][:] == [row["_id"] for row in ROWS]
    assert np.array_equal(np.array(rows["vector"][:], np.float32), vectors)
    assert rows[0]["metadata"]["price"] == 1.5


def test_duckdb_reads_parquet(folder: Path, tmp_path: Path, vectors: NDArray[np.float32]) -> None:
    duckdb = pytest.importorskip("duckdb")
    export_index(folder, tmp_path / "out.parquet")
    query = f"SELECT id, metadata.year, vector FROM '{tmp_path / 'out.parquet'}' WHERE metadata.year > 2001"
    [(identifier, year, vector)] = duckdb.sql(query).fetchall()
    assert (identifier, year) == ("b", 2002)
    assert np.array_equal(np.array(vector, np.float32), vectors[1])


def test_qdrant_searches_what_was_exported(folder: Path, tmp_path: Path, vectors: NDArray[np.float32]) -> None:
    qdrant = pytest.importorskip("qdrant_client")
    export_index(folder, tmp_path / "out.parquet")
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    client = qdrant.QdrantClient(":memory:")
    models = qdrant.models
    client.create_collection("docs", vectors_config=models.VectorParams(size=32, distance=models.Distance.COSINE))
    points = [
        models.PointStruct(id=number, vector=row["vector"], payload={"id": row["id"], **row["metadata"]})
        for number, row in enumerate(table)
    ]
    client.upsert("docs", points)
    [query] = WordEncoder().encode_query(["the moon and the tides"])
    best = client.query_points("docs", query=query.tolist(), limit=4).points
    with open_index(folder, model=WordEncoder()) as index:
        [hits] = index.search(["the moon and the tides"], k=4)
    assert [point.payload["id"] for point in best] == [hit.id for hit in hits]
    client.close()


def test_an_export_as_npy_is_built_again(folder: Path, tmp_path: Path, vectors: NDArray[np.float32]) -> None:
    export_index(folder, tmp_path / "out", format="npy")
    assert np.array_equal(np.load(tmp_path / "out" / "vectors.npy"), vectors)
    files = VectorFiles([tmp_path / "out" / "vectors.npy"], tmp_path / "out" / "ids.txt")
    build_from_vectors(files, tmp_path / "again", corpora=[tmp_path / "out" / "documents.jsonl"])
    with open_index(tmp_path / "again", model=WordEncoder()) as index:
        [hits] = index.search(["bread"], k=1)
        assert (hits[0].id, hits[0].title, hits[0].metadata["year"]) == ("a", "Bread", 2001)


def test_chunks_and_stores_of_few_bytes(tmp_path: Path, write_corpus: Callable[..., Path]) -> None:
    corpus = write_corpus([{"_id": "a", "text": "bread rises in the oven"}])
    build_index([corpus], tmp_path / "idx", model=WordEncoder(), options=IndexOptions(store="int8"))
    export_index(tmp_path / "idx", tmp_path / "out.parquet")
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.schema.names == ["id", "title", "text", "vector"]  # no metadata, no column
    with open_index(tmp_path / "idx", model=WordEncoder()) as index:
        stored = index.segments[0].storage.read(np.array([0]))
    assert np.array_equal(np.array(table.column("vector").to_pylist(), np.float32), stored)


def test_more_fields_than_columns_are_one_json_text(tmp_path: Path, write_corpus: Callable[..., Path]) -> None:
    corpus = write_corpus({"_id": f"d{row}", "text": "bread", f"field{row}": row} for row in range(1_001))
    build_index([corpus], tmp_path / "idx", model=WordEncoder())
    report = export_index(tmp_path / "idx", tmp_path / "out.parquet")
    assert report.fields == {"": "json"}
    metadata = parquet.read_table(tmp_path / "out.parquet").column("metadata").to_pylist()
    assert json.loads(metadata[7]) == {"field7": 7}


def test_half_a_surrogate_pair(tmp_path: Path) -> None:
    """Earlier versions indexed such texts; Arrow and UTF-8 cannot hold them."""
    rows = [Document("a", "", "bread \ud800 moon", {"x": "\udfff", "\ud800": 1, "list": ["\ud800"]})]
    with SegmentWriter(tmp_path, 2, "float32", header={}) as writer:
        writer.append(rows, np.array([[1, 0]], np.float32))
        writer.finish()
    block = Block([DocumentReader(tmp_path / "documents.jsonl", tmp_path / "documents.offsets", 1)[0]], np.ones((1, 2)))
    types = MetadataTypes()
    types.add(block.rows)
    for name in ("parquet", "jsonl", "npy"):
        formats.FORMATS[name].write(tmp_path / name, [block], make_schema(types, 2), 1)
        [read] = formats.FORMATS[name].read(tmp_path / name, make_schema(types, 2))
        assert _plain(read.rows[0]) == _plain(rows[0])


@pytest.mark.parametrize("format", ["parquet", "jsonl", "npy"])
def test_no_space_left_half_way(folder: Path, tmp_path: Path, format: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written = formats.FORMATS[format]

    class Full:
        def write(self, place: Path, blocks: Iterable[Block], schema: Any, rows: int) -> None:
            def fail() -> Iterator[Block]:
                yield next(iter(blocks))
                raise OSError(errno.ENOSPC, "No space left on device")

            written.write(place, fail(), schema, rows)

    monkeypatch.setitem(formats.FORMATS, format, Full())
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(LLM2CompError, match="out: cannot be written .No space left on device.; nothing is left behind"):
        export_index(folder, tmp_path / "out", format=format)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_what_does_not_read_back_is_not_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet_format = formats.FORMATS["parquet"]

    class Rounding:
        def write(self, place: Path, blocks: Iterable[Block], schema: Any, rows: int) -> None:
            rounded = (Block(rows, vectors.round(1)) for rows, vectors in blocks)
            parquet_format.write(place, rounded, schema, rows)

        read = staticmethod(parquet_format.read)

    class Losing(Rounding):
        def write(self, place: Path, blocks: Iterable[Block], schema: Any, rows: int) -> None:
            parquet_format.write(place, list(blocks)[:1], schema, rows)

    for format, message in (
        (Rounding(), "row 1 .id 'a'. reads back as another one"),
        (Losing(), "2 of 4 rows read back"),
    ):
        monkeypatch.setitem(formats.FORMATS, "parquet", format)
        with pytest.raises(LLM2CompError, match=message):
            export_index(folder, tmp_path / "out.parquet")
        assert not list(tmp_path.glob("*out*"))


def test_refusals(folder: Path, tmp_path: Path, write_corpus: Callable[..., Path]) -> None:
    (tmp_path / "there").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for target, message in (
        (tmp_path / "there", "there: exists, and is kept; name another target with -o"),
        (tmp_path / "link", "link: exists"),
        (tmp_path / "no" / "x.parquet", "there is no folder"),
        (folder / "x.parquet", "lies in the folder of the index"),
    ):
        with pytest.raises(LLM2CompError, match=message):
            export_index(folder, target)
    assert (tmp_path / "there").read_text() == "kept"
    with pytest.raises(SettingsError, match="format is 'csv', expected one of parquet, npy, jsonl, lance"):
        export_index(folder, tmp_path / "x", format="csv")
    with pytest.raises(IndexFolderError, match="no such index folder"):
        export_index(tmp_path / "none", tmp_path / "x")
    delete_documents(folder, [row["_id"] for row in ROWS])
    with pytest.raises(SettingsError, match="holds no documents, so there is nothing to export"):
        export_index(folder, tmp_path / "x")
    build_index([write_corpus([{"_id": "a\nb", "text": "x"}])], tmp_path / "lines", model=WordEncoder())
    with pytest.raises(SettingsError, match="does not fit a line of a file of ids, which format npy has"):
        export_index(tmp_path / "lines", tmp_path / "x", format="npy")
    assert not (tmp_path / "x").exists()


def test_altered_vectors_are_not_exported(folder: Path, tmp_path: Path) -> None:
    file = folder / "segments" / "000001" / "vectors.faiss"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(IndexFolderError, match="vectors.faiss"):
        export_index(folder, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()
