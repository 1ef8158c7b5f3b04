"""Milvus Lite: a collection in a file of this machine."""

import json
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp.errors import LLM2CompError, SettingsError, StoreError, one_line
from llm2comp.optional import optional_import
from llm2comp_indexes.filters.parse import Where
from llm2comp_indexes.format.columns import to_double
from llm2comp_indexes.search.hits import Hit
from llm2comp_indexes.stores.contract import Scanned
from llm2comp_indexes.stores.header import StoreHeader, VectorType, parse_header
from llm2comp_indexes.stores.milvus_filter import quote_text, to_expression
from llm2comp_indexes.stores.refusals import check_dimension, require_header
from llm2comp_indexes.stores.rows import StoreRows, hash_vectors, in_groups
from llm2comp_indexes.stores.url import StoreUrl

__all__ = ["MilvusStore"]

_MOST_DIMENSIONS = 32_768
_MOST_CHARACTERS = 65_535
_EFFORT = 100
_KEY = "llm2comp"


class MilvusStore:
    """A collection of Milvus Lite, as `Store` describes.

    Its fields are id, title, text, metadata (JSON), vector and a digest; its properties hold the header. Vectors are
    float32 in it, also those whose numbers are float16.
    """

    rows_per_write = 1000
    typed = False

    def __init__(self, url: StoreUrl) -> None:
        self.url = url
        self._milvus = optional_import(
            "pymilvus", extra="milvus", needed_by="a store in Milvus", error_type=SettingsError
        )
        optional_import("milvus_lite", extra="milvus", needed_by="a store in Milvus", error_type=SettingsError)
        for name in ("pymilvus", "milvus_lite"):  # they log a traceback before each of their errors
            logging.getLogger(name).setLevel(logging.CRITICAL)
        logging.getLogger("grpc._server").addFilter(_is_no_gap)
        self._lock = threading.RLock()
        self._open: Any = None
        self._header: StoreHeader | None = None

    def check_vectors(self, dimension: int, vector_type: VectorType) -> None:
        """As `Store`."""
        check_dimension(dimension, _MOST_DIMENSIONS, "Milvus")

    def read_header(self) -> StoreHeader | None:
        """As `Store`."""
        if not Path(self.url.path).exists():
            return None
        with self._errors() as client:
            if not client.has_collection(self.url.table):
                return None
            properties = client.describe_collection(self.url.table).get("properties") or {}
        self._header = parse_header(properties.get(_KEY), str(self.url))
        return self._header

    def create(self, header: StoreHeader) -> None:
        """As `Store`."""
        kind, there = self._milvus.DataType, self.read_header() is not None
        properties = {_KEY: header.to_json()}
        with self._errors() as client:
            if there:
                client.alter_collection_properties(self.url.table, properties=properties)
            else:
                schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
                schema.add_field("id", kind.VARCHAR, is_primary=True, max_length=_MOST_CHARACTERS)
                for name in ("title", "text"):
                    schema.add_field(name, kind.VARCHAR, max_length=_MOST_CHARACTERS)
                schema.add_field("metadata", kind.JSON)
                schema.add_field("vector", kind.FLOAT_VECTOR, dim=header.dimension)
                schema.add_field("llm2comp_digest", kind.INT64)
                client.create_collection(self.url.table, schema=schema, properties=properties)
        self._header = header

    def write(self, parts: Iterable[StoreRows], *, new: bool = False) -> None:
        """As `Store`."""
        for rows in in_groups(parts, self.rows_per_write):
            _check_lengths(rows.rows)
            content = [
                {
                    "id": row.id,
                    "title": row.title,
                    "text": row.text,
                    "metadata": _to_metadata(metadata),
                    "vector": vector,
                    "llm2comp_digest": digest,
                }
                for row, vector, metadata, digest in zip(
                    rows.rows, rows.vectors.astype(np.float32), rows.metadata, rows.digests, strict=True
                )
            ]
            with self._errors() as client:
                client.upsert(self.url.table, content)
        with self._errors() as client:
            client.flush(self.url.table)

    def delete(self, ids: Sequence[str]) -> None:
        """As `Store`."""
        with self._errors() as client:
            client.delete(self.url.table, filter=_among(ids))
            client.flush(self.url.table)

    def scan(self, *, vectors: bool) -> Iterator[Scanned]:
        """As `Store`."""
        dtype = np.dtype(self._known_header().vector_type)
        names = ["id", "llm2comp_digest", *(["vector"] if vectors else [])]
        with self._errors() as client:
            client.load_collection(self.url.table)
            for batch in self._pages(client, names):
                stored = np.array([row["vector"] for row in batch], np.float32).astype(dtype) if vectors else None
                yield Scanned(
                    [row["id"] for row in batch],
                    [row["llm2comp_digest"] for row in batch],
                    None if stored is None else hash_vectors(stored),
                )

    def _pages(self, client: Any, names: Sequence[str], expression: str = "") -> Iterator[Any]:
        """Rows that the expression lets through, by their ids; the client's own iterator fails at ids with quotes."""
        after = ""
        while True:
            both = " and ".join(filter(None, (after, expression)))
            rows = client.query(
                self.url.table, filter=both, output_fields=names, limit=self.rows_per_write, iterator="True"
            )
            if rows:
                yield rows
            if len(rows) < self.rows_per_write:
                return
            after = f"id > {quote_text(rows[-1]['id'])}"

    def _known_header(self) -> StoreHeader:
        return require_header(self._header or self.read_header(), self.url)

    def finish(self) -> bool:
        """As `Store`."""
        with self._errors() as client:
            if client.list_indexes(self.url.table):
                return False
            index = client.prepare_index_params()
            index.add_index("vector", index_type="HNSW", metric_type="IP", params={"M": 16, "efConstruction": 200})
            client.create_index(self.url.table, index)
            client.load_collection(self.url.table)
        return True

    def count(self) -> int:
        """As `Store`."""
        with self._errors() as client:
            client.load_collection(self.url.table)
            return int(client.query(self.url.table, filter="", output_fields=["count(*)"])[0]["count(*)"])

    def nearest(
        self, queries: NDArray[np.float32], k: int, *, where: Where | None = None, effort: int | None = None
    ) -> list[list[Hit]]:
        """As `Store`."""
        expression = to_expression(where, self._known_header().fields) if where else ""
        if not len(queries):
            return []
        with self._errors() as client:
            client.load_collection(self.url.table)
            answers = client.search(
                self.url.table,
                data=list(queries),
                anns_field="vector",
                filter=expression,
                limit=k,
                output_fields=["id", "title", "text", "metadata"],
                search_params={"metric_type": "IP", "params": {"ef": max(k, effort or max(_EFFORT, 2 * k))}},
            )
            return [
                list(map(_hit, answer)) if len(answer) >= k else self._compare(client, query, k, expression)
                for query, answer in zip(queries, answers, strict=True)
            ]

    def _compare(self, client: Any, query: NDArray[np.float32], k: int, expression: str) -> list[Hit]:
        """The k best of all rows that pass the filter: the graph finds few of them if they are few."""
        best: list[tuple[float, str]] = []
        for batch in self._pages(client, ["id", "vector"], expression):
            scores = np.array([row["vector"] for row in batch], np.float32) @ query
            best += zip(scores.tolist(), (row["id"] for row in batch), strict=True)
            best = sorted(best, key=lambda pair: -pair[0])[:k]
        if not best:
            return []
        chosen = _among([identifier for _, identifier in best])
        names = ["id", "title", "text", "metadata"]
        fields = {row["id"]: row for row in client.query(self.url.table, filter=chosen, output_fields=names)}
        return [_hit({"entity": fields[identifier], "distance": score}) for score, identifier in best]

    def close(self) -> None:
        """As `Store`."""
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None

    @contextmanager
    def _errors(self) -> Iterator[Any]:
        """The client, used by one thread at a time; its errors become one line each."""
        with self._lock:
            try:
                if self._open is None:
                    self._open = self._milvus.MilvusClient(self.url.path)
                yield self._open
            except LLM2CompError:
                raise
            except (self._milvus.MilvusException, OSError, ValueError, RuntimeError) as error:
                reason = getattr(error, "message", "") or one_line(error)
                if reason == "Open local milvus failed":
                    reason = "cannot be opened: another process has it open, or it is no file of Milvus Lite"
                raise StoreError(f"{self.url}: {one_line(Exception(reason))}") from error


def _among(ids: Sequence[str]) -> str:
    """Expression for the rows of these ids."""
    return f"id in [{', '.join(map(quote_text, ids))}]"


def _check_lengths(rows: Sequence[Document]) -> None:
    """Raises StoreError if a text is longer than those that Milvus takes."""
    for row in rows:
        for name, text in (("id", row.id), ("title", row.title), ("text", row.text)):
            if len(text) > _MOST_CHARACTERS:
                raise StoreError(
                    f'row "{row.id:.80}": its {name} has {len(text):,} characters, of which Milvus Lite takes '
                    f"{_MOST_CHARACTERS:,}; build the index with --chunk-tokens, or take another store"
                )


def _to_metadata(metadata: bytes) -> dict[str, Any]:
    """The metadata as Milvus takes it.

    Fields without a value are left out, for `exists` would be true of them. Whole numbers beyond 64 bits become floats.
    """
    plain = json.loads(metadata, parse_int=_to_number)
    return {name: value for name, value in plain.items() if value is not None}


def _to_number(digits: str) -> float:
    number = int(digits)
    return number if abs(number) < 1 << 63 else to_double(number)


def _hit(row: Any) -> Hit:
    fields = row["entity"]
    return Hit(fields["id"], float(row["distance"]), fields["title"], fields["text"], fields["metadata"])


def _is_no_gap(record: logging.LogRecord) -> bool:
    """Whether a line of the log says more than that Milvus Lite lacks a method, which clients get by without."""
    return not (record.exc_info and isinstance(record.exc_info[1], NotImplementedError))
