"""The bulk loader of each store as its documentation shows it, and how its table is dropped."""

import struct
import time
import uuid
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from llm2comp_benchmarks.cost.push.vectors import MadeRows
from llm2comp_indexes.stores.url import StoreUrl

__all__ = ["drop", "load"]

_BATCH = 1000


def load(url: StoreUrl, made: MadeRows) -> float:
    """Seconds in which the store's own loader writes the rows to a new table, without an index."""
    return _LOADERS[url.kind](url, made)


def drop(url: StoreUrl) -> None:
    """Drops the table, if it is there."""
    if url.kind == "postgresql":
        import psycopg
        from psycopg import sql

        with psycopg.connect(url.address, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(url.table)))
    elif url.kind == "lancedb":
        import lancedb

        with suppress(ValueError):
            lancedb.connect(url.path).drop_table(url.table)
    elif url.kind == "milvus":
        client = _milvus(url)
        client.drop_collection(url.table)
        client.close()
    else:
        client = _qdrant(url)
        client.delete_collection(url.table)
        client.close()


def _load_postgres(url: StoreUrl, made: MadeRows) -> float:
    """As the example of pgvector's Python client: binary COPY, a call for each row."""
    import psycopg
    from psycopg import sql
    from psycopg.adapt import Dumper
    from psycopg.pq import Format
    from psycopg.types import TypeInfo
    from psycopg.types.json import Jsonb

    with psycopg.connect(url.address, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        info = TypeInfo.fetch(connection, "vector")
        assert info is not None
        info.register(connection)
        number = info.oid

        class VectorDumper(Dumper):
            oid = number
            format = Format.BINARY

            def dump(self, obj: Any) -> bytes:
                numbers: bytes = obj.astype(">f4").tobytes()
                return struct.pack(">HH", len(obj), 0) + numbers

        connection.adapters.register_dumper(np.ndarray, VectorDumper)
        table = sql.Identifier(url.table)
        connection.execute(
            sql.SQL(
                "CREATE TABLE {} (id text PRIMARY KEY, title text, text text, metadata jsonb, embedding vector({}))"
            ).format(table, sql.Literal(made.vectors.shape[1]))
        )
        start = time.perf_counter()
        with (
            connection.cursor() as cursor,
            cursor.copy(sql.SQL("COPY {} FROM STDIN WITH (FORMAT BINARY)").format(table)) as copy,
        ):
            copy.set_types(["text", "text", "text", "jsonb", "vector"])
            for row, vector in zip(made.documents, made.vectors, strict=True):
                copy.write_row((row.id, row.title, row.text, Jsonb(row.metadata), vector))
        return time.perf_counter() - start


def _load_qdrant(url: StoreUrl, made: MadeRows) -> float:
    """`upload_collection`, in one process."""
    from qdrant_client import models

    client = _qdrant(url)
    parameters = models.VectorParams(size=made.vectors.shape[1], distance=models.Distance.DOT)
    client.create_collection(url.table, vectors_config=parameters)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # local mode warns of many rows
        client.upload_collection(
            url.table,
            vectors=made.vectors,
            payload=[
                {"id": row.id, "title": row.title, "text": row.text, "metadata": row.metadata} for row in made.documents
            ],
            ids=[str(uuid.uuid5(uuid.NAMESPACE_URL, row.id)) for row in made.documents],
            batch_size=_BATCH,
            wait=True,
        )
    seconds = time.perf_counter() - start
    client.close()
    return seconds


def _load_lance(url: StoreUrl, made: MadeRows) -> float:
    """`create_table` from one Arrow table."""
    import lancedb
    import pyarrow as pa

    database = lancedb.connect(url.path)
    start = time.perf_counter()
    table = pa.table(
        {
            "id": [row.id for row in made.documents],
            "title": [row.title for row in made.documents],
            "text": [row.text for row in made.documents],
            "metadata": [row.metadata for row in made.documents],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(made.vectors.ravel()), made.vectors.shape[1]),
        }
    )
    database.create_table(url.table, data=table)
    return time.perf_counter() - start


def _load_milvus(url: StoreUrl, made: MadeRows) -> float:
    """`insert`, a thousand rows at once."""
    from pymilvus import DataType

    client = _milvus(url)
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=65_535)
    for name in ("title", "text"):
        schema.add_field(name, DataType.VARCHAR, max_length=65_535)
    schema.add_field("metadata", DataType.JSON)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=made.vectors.shape[1])
    client.create_collection(url.table, schema=schema)
    start = time.perf_counter()
    for first in range(0, len(made.documents), _BATCH):
        part = slice(first, first + _BATCH)
        rows = [
            {"id": row.id, "title": row.title, "text": row.text, "metadata": row.metadata, "vector": vector}
            for row, vector in zip(made.documents[part], made.vectors[part], strict=True)
        ]
        client.insert(url.table, rows)
    client.flush(url.table)
    seconds = time.perf_counter() - start
    client.close()
    return seconds


def _qdrant(url: StoreUrl) -> Any:
    from llm2comp_indexes.stores.qdrant import QdrantStore

    return QdrantStore(url)._client()


def _milvus(url: StoreUrl) -> Any:
    from pymilvus import MilvusClient

    return MilvusClient(url.path)


_LOADERS: dict[str, Callable[[StoreUrl, MadeRows], float]] = {
    "postgresql": _load_postgres,
    "qdrant": _load_qdrant,
    "qdrant+https": _load_qdrant,
    "qdrant+file": _load_qdrant,
    "lancedb": _load_lance,
    "milvus": _load_milvus,
}
