"""What a table says of itself: whose it is, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import StoreError
from llm2comp_indexes import open_store_index, push_index
from llm2comp_indexes.stores.header import StoreHeader, parse_header
from tests.indexes.stores.conftest import documents

HEADER = StoreHeader(
    "f" * 64, "tiny", 8, "float16", True, EncoderOptions(truncate_dim=8), {"a.b": ("integer",)}, {"a": "json"}, False
)


def test_a_header_reads_back() -> None:
    assert parse_header(HEADER.to_json(), "here") == HEADER
    assert parse_header(StoreHeader("", None, 1).to_json().encode(), "here") == StoreHeader("", None, 1)


@pytest.mark.parametrize("text", [None, "", "customers", "[]", "{}", '{"llm2comp": 1}', "null", '"x"', b"\xff"])
def test_a_table_of_someone_else(text: Any) -> None:
    with pytest.raises(StoreError, match="here: .*(made by llm2comp, so it is left alone|description is damaged)"):
        parse_header(text, "here")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "written by a newer version of llm2comp; update it"),
        ({"dimension": 0}, "its description is damaged"),
        ({"dimension": "8"}, "its description is damaged"),
        ({"vector_type": "int4"}, "its description is damaged"),
        ({"fields": {"a": ["colour"]}}, "its description is damaged"),
        ({"fields": {"a": 3}}, "its description is damaged"),
        ({"encoder": {"engine": "steam"}}, "its description is damaged"),
        ({"chunked": 1}, "its description is damaged"),
    ],
)
def test_a_header_that_is_altered(change: dict[str, Any], message: str) -> None:
    content = json.loads(HEADER.to_json())
    content["llm2comp"] |= change
    with pytest.raises(StoreError, match=message):
        parse_header(json.dumps(content), "here")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dimension": 9}, "holds vectors of dimension 9, these have 8"),
        (
            {"fingerprint": "e" * 64},
            r"holds vectors of tiny \(fingerprint e{12}, truncate_dim 8\), these are of tiny",
        ),
        (
            {"encoder": EncoderOptions()},
            r"holds vectors of tiny \(fingerprint f{12}\), these are .*truncate_dim 8",
        ),
        ({"vector_type": "float32"}, "holds vectors of float32, these: float16"),
        ({"chunked": False}, "holds rows that are chunks: False, these: True"),
    ],
)
def test_what_does_not_fit_a_table(change: dict[str, Any], message: str) -> None:
    with pytest.raises(StoreError, match=rf"here: {message}.*name another table"):
        replace(HEADER, **change).check_same(HEADER, "here")


def test_fields_of_two_pushes_are_joined() -> None:
    other = replace(HEADER, fields={"a.b": ("text",), "c": ("flag",)}, all_fields=True)
    assert HEADER.joined(other).fields == {"a.b": ("integer", "text"), "c": ("flag",)}
    assert not HEADER.joined(other).all_fields
    assert HEADER.joined(replace(HEADER, fields=None)).fields is None


def make_foreign(url: str) -> Callable[[], int]:
    """Makes a table that llm2comp did not make; a function that counts its rows."""
    kind, path = url.partition("://")[0], url.partition("://")[2].partition("?")[0]
    if kind == "lancedb":
        import lancedb

        table = lancedb.connect(path).create_table("docs", [{"id": "x", "vector": [1.0, 2.0]}])
        return lambda: int(table.count_rows())
    if kind == "qdrant+file":
        from qdrant_client import QdrantClient, models

        def count() -> int:
            client = QdrantClient(path=path)
            rows = client.count("docs").count
            client.close()
            return rows

        client = QdrantClient(path=path)
        client.create_collection("docs", vectors_config=models.VectorParams(size=2, distance=models.Distance.COSINE))
        client.upsert("docs", models.Batch(ids=[1], vectors=[[1.0, 2.0]], payloads=[{}]))
        client.close()
        return count
    from pymilvus import MilvusClient

    milvus = MilvusClient(path)
    milvus.create_collection("docs", dimension=2)
    milvus.insert("docs", [{"id": 1, "vector": [1.0, 2.0]}])
    milvus.close()
    return lambda: 1


def test_a_file_that_is_none_of_milvus(tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite", reason="the client of this store is not installed")
    (tmp_path / "notes.db").write_text("mine")
    with pytest.raises(StoreError, match="cannot be opened: another process has it open, or it is no file of Milvus"):
        open_store_index(f"milvus://{tmp_path / 'notes.db'}")
    assert (tmp_path / "notes.db").read_text() == "mine"


def test_a_table_that_is_not_ours_is_left_alone(store_url: str, make_index: Callable[..., Path]) -> None:
    if store_url.startswith("postgresql"):
        pytest.skip("in test_postgres.py")
    count = make_foreign(store_url)
    with pytest.raises(StoreError, match="exists and was not made by llm2comp, so it is left alone") as failure:
        push_index(make_index(documents(3)), store_url, sync=True)
    assert "\n" not in str(failure.value)
    with pytest.raises(StoreError, match="was not made by llm2comp"):
        open_store_index(store_url)
    assert count() == 1


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the client leaves its lock file to the collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_folder_that_another_process_has_open(tmp_path: Path, make_index: Callable[..., Path]) -> None:
    qdrant = pytest.importorskip("qdrant_client")
    client = qdrant.QdrantClient(path=str(tmp_path / "q"))
    with pytest.raises(StoreError, match="another process has this folder open"):
        push_index(make_index(documents(2)), f"qdrant+file://{tmp_path / 'q'}")
    client.close()
