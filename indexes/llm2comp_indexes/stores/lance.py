"""LanceDB: a table in a folder, with a typed column for each metadata field."""

import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp.errors import LLM2CompError, SettingsError, StoreError, one_line
from llm2comp.optional import optional_import
from llm2comp_indexes.export.arrow import MetadataTypes, from_batches, make_schema, to_batches
from llm2comp_indexes.export.rows import Block
from llm2comp_indexes.filters.parse import Where
from llm2comp_indexes.search.hits import Hit
from llm2comp_indexes.stores.contract import Scanned
from llm2comp_indexes.stores.header import StoreHeader, VectorType, parse_header
from llm2comp_indexes.stores.lance_filter import quote_text, to_sql
from llm2comp_indexes.stores.refusals import require_header
from llm2comp_indexes.stores.rows import StoreRows, hash_vectors, in_groups
from llm2comp_indexes.stores.url import StoreUrl

__all__ = ["LanceStore"]

_DIGEST, _KEY = "llm2comp_digest", "llm2comp"
_MOST_DIMENSIONS = 1 << 16
_INDEXED_FROM = 20_000  # rows; fewer are compared in milliseconds
_EFFORT = 100
_RUST_PLACE = re.compile(r",? *(?:/|rust/)\S+\.rs:\d+(?::\d+)?")


class LanceStore:
    """A table of LanceDB, as `Store` describes.

    Its columns are those of an export (id, title, text, metadata as a struct, vector) and a digest, whose field carries
    the header. Every write is one version of the table.
    """

    rows_per_write = 1 << 16
    typed = True

    def __init__(self, url: StoreUrl) -> None:
        self.url = url
        self._lancedb = optional_import(
            "lancedb", extra="lancedb", needed_by="a store in LanceDB", error_type=SettingsError
        )
        self._lock = threading.RLock()
        self._opened: Any = None
        self._header: StoreHeader | None = None

    def check_vectors(self, dimension: int, vector_type: VectorType) -> None:
        """As `Store`."""
        if dimension > _MOST_DIMENSIONS:
            raise SettingsError(f"vectors of dimension {dimension:,}: keep fewer numbers with --truncate-dim")

    def read_header(self) -> StoreHeader | None:
        """As `Store`."""
        table = self._find_table()
        if table is None:
            return None
        fields = {field.name: field.metadata or {} for field in table.schema}
        self._header = parse_header(fields.get(_DIGEST, {}).get(_KEY.encode()), str(self.url))
        return self._header

    def create(self, header: StoreHeader) -> None:
        """As `Store`. New metadata fields, or a type that has become another one, make the table be rewritten."""
        known = self.read_header()
        for name in header.types or {}:
            if "\0" in name:
                raise StoreError(
                    f"{self.url}: the metadata field {name!r:.80} has a null character, with which LanceDB has no "
                    "column; rename it"
                )
        with self._errors():
            if known is None:
                self._opened = self._database().create_table(self.url.table, schema=_schema(header))
            elif known.types == header.types:
                update = {"path": _DIGEST, "metadata": {_KEY: header.to_json()}}
                self._table().update_field_metadata(update)
            else:
                self._rewrite(known, header)
        self._header = header

    def _rewrite(self, known: StoreHeader, header: StoreHeader) -> None:
        """Gives all rows the columns of the header, in one version of the table."""
        import pyarrow as pa

        batches = self._table().search(None).to_batches(self.rows_per_write)
        parts = (_to_batch(rows, header) for rows in _read_rows(batches, known))
        reader = pa.RecordBatchReader.from_batches(_schema(header), parts)
        self._opened = self._database().create_table(self.url.table, data=reader, mode="overwrite")

    def write(self, parts: Iterable[StoreRows], *, new: bool = False) -> None:
        """As `Store`."""
        for rows in in_groups(parts, self.rows_per_write):
            batch = _to_batch(rows, self._known_header())
            with self._errors():
                if new:
                    self._table().add(batch)
                    continue
                changed = f"target.{_DIGEST} <> source.{_DIGEST}"
                merge = self._table().merge_insert("id").when_matched_update_all(where=changed)
                merge.when_not_matched_insert_all().execute(batch)

    def delete(self, ids: Sequence[str]) -> None:
        """As `Store`."""
        with self._errors():
            self._table().delete(f"id IN ({', '.join(map(quote_text, ids))})")

    def scan(self, *, vectors: bool) -> Iterator[Scanned]:
        """As `Store`."""
        names = ["id", _DIGEST, *(["vector"] if vectors else [])]
        with self._errors():
            for batch in self._table().search(None).select(names).to_batches():
                if batch.num_rows:
                    hashes = hash_vectors(_vectors(batch)) if vectors else None
                    yield Scanned(batch.column("id").to_pylist(), batch.column(_DIGEST).to_pylist(), hashes)

    def finish(self) -> bool:
        """As `Store`; small tables have no index, since all their rows are compared quickly."""
        with self._errors():
            table = self._table()
            if indexes := table.list_indices():
                if not table.index_stats(indexes[0].name).num_unindexed_rows:
                    return False
                table.optimize()
                return True
            if table.count_rows() < _INDEXED_FROM:
                return False
            table.optimize()
            table.create_index("vector", config=self._lancedb.index.HnswFlat(distance_type="dot"))
            return True

    def count(self) -> int:
        """As `Store`."""
        with self._errors():
            return int(self._latest().count_rows())

    def nearest(
        self, queries: NDArray[np.float32], k: int, *, where: Where | None = None, effort: int | None = None
    ) -> list[list[Hit]]:
        """As `Store`. If the index finds too few rows, all of them are compared."""
        header = self._known_header()
        condition = to_sql(where, header.types) if where else None
        answers = []
        with self._errors():
            table = self._latest()
            for vector in queries:
                query = table.search(vector, vector_column_name="vector").distance_type("dot").limit(k)
                query = query.ef(max(k, effort or max(_EFFORT, 2 * k)))
                query = query.select([*(name for name in table.schema.names if name != _DIGEST), "_distance"])
                query = query.where(condition, prefilter=True) if condition else query
                batch = query.to_arrow()
                if batch.num_rows < k:
                    batch = query.bypass_vector_index().to_arrow()
                answers.append(_to_hits(batch, header))
        return answers

    def close(self) -> None:
        """As `Store`."""
        self._opened = None

    def _known_header(self) -> StoreHeader:
        return require_header(self._header or self.read_header(), self.url)

    def _database(self) -> Any:
        return self._lancedb.connect(self.url.path)

    def _find_table(self) -> Any:
        """The table at its last version; None: there is none."""
        if not (folder := Path(self.url.path)).exists():
            return None
        if not folder.is_dir():
            raise StoreError(f"{self.url}: a file, expected a folder; name another")
        with self._errors():
            try:
                self._opened = self._database().open_table(self.url.table)
            except ValueError as error:
                if "not found" in str(error):
                    return None
                raise
            return self._opened

    def _table(self) -> Any:
        with self._lock:
            if self._opened is None and self._find_table() is None:
                raise StoreError(f"{self.url}: there is no such table")
            return self._opened

    def _latest(self) -> Any:
        table = self._table()
        table.checkout_latest()
        return table

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turns errors of the driver, which are of many types, into one line each."""
        try:
            yield
        except LLM2CompError:
            raise
        except PermissionError as error:
            raise StoreError(f"{self.url}: no permission ({one_line(error)})") from error
        except Exception as error:
            reason = _RUST_PLACE.sub("", one_line(error))
            raise StoreError(f"{self.url}: {reason}") from error


def _schema(header: StoreHeader) -> Any:
    import pyarrow as pa

    schema = _export_schema(header)
    number = pa.float16() if header.vector_type == "float16" else pa.float32()
    vector = pa.field("vector", pa.list_(pa.field("item", number), header.dimension), nullable=False)
    digest = pa.field(_DIGEST, pa.int64(), nullable=False, metadata={_KEY: header.to_json()})
    return schema.set(schema.get_field_index("vector"), vector).append(digest)


def _export_schema(header: StoreHeader) -> Any:
    return make_schema(None if header.types is None else MetadataTypes.of(header.types), header.dimension)


def _to_batch(rows: StoreRows, header: StoreHeader) -> Any:
    import pyarrow as pa

    schema, dtype = _schema(header), np.dtype(header.vector_type)
    [batch] = to_batches([Block(rows.rows, rows.vectors.astype(np.float32, copy=False))], _export_schema(header))
    flat = pa.array(np.ascontiguousarray(rows.vectors, dtype).ravel())
    columns = [batch.column(name) for name in schema.names[:-2]]
    columns.append(pa.FixedSizeListArray.from_arrays(flat, type=schema.field("vector").type))
    return pa.record_batch([*columns, pa.array(rows.digests, pa.int64())], schema=schema)


def _read_rows(batches: Any, header: StoreHeader) -> Iterator[StoreRows]:
    for batch in batches:
        if batch.num_rows:
            vectors = _vectors(batch)
            yield StoreRows(_documents(batch, header), vectors, [], batch.column(_DIGEST).to_pylist(), [])


def _documents(batch: Any, header: StoreHeader) -> list[Document]:
    """The documents of a batch, whose vectors are left aside."""
    import pyarrow as pa

    schema = _export_schema(replace(header, dimension=1))
    empty = pa.FixedSizeListArray.from_arrays(pa.nulls(batch.num_rows, pa.float32()), 1)
    columns = [empty if name == "vector" else batch.column(name) for name in schema.names]
    [block] = from_batches([pa.record_batch(columns, names=schema.names)], schema)
    return block.rows


def _vectors(batch: Any) -> NDArray[np.floating]:
    column = batch.column("vector")
    stored: NDArray[np.floating] = column.flatten().to_numpy(zero_copy_only=False).reshape(batch.num_rows, -1)
    return stored


def _to_hits(table: Any, header: StoreHeader) -> list[Hit]:
    if not table.num_rows:
        return []
    [batch] = table.combine_chunks().to_batches()
    scores = [1 - distance for distance in batch.column("_distance").to_pylist()]
    return [
        Hit(row.id, score, row.title, row.text, row.metadata)
        for row, score in zip(_documents(batch, header), scores, strict=True)
    ]
