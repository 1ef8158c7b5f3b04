"""The formats of an export: each writes blocks of rows to a place, and reads them back."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from llm2comp.corpus.documents import Document
from llm2comp.errors import SettingsError
from llm2comp.optional import optional_import
from llm2comp_indexes.export.arrow import from_batches, to_batches
from llm2comp_indexes.export.rows import Block

__all__ = ["FORMATS", "Format"]

_BLOCK = 2048


class Format(Protocol):
    """One format."""

    def write(self, place: Path, blocks: Iterable[Block], schema: Any, rows: int) -> None:
        """Writes so many rows to a file or folder that does not exist yet."""

    def read(self, place: Path, schema: Any) -> Iterator[Block]:
        """The rows that were written."""


class _Parquet:
    def write(self, place: Path, blocks: Iterable[Block], schema: Any, rows: int) -> None:
        from pyarrow import parquet

        with place.open("wb") as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in to_batches(blocks, schema):
                writer.write_batch(batch)

    def read(self, place: Path, schema: Any) -> Iterator[Block]:
        from pyarrow import parquet

        with place.open("rb") as file:
            yield from from_batches(parquet.ParquetFile(file).iter_batches(_BLOCK), schema)


class _Lance:
    def write(self, place: Path, blocks: Iterable[Block], schema: Any, rows: int) -> None:
        import pyarrow as pa

        reader = pa.RecordBatchReader.from_batches(schema, to_batches(blocks, schema))
        self._module().write_dataset(reader, str(place), schema=schema)

    def read(self, place: Path, schema: Any) -> Iterator[Block]:
        return from_batches(self._module().dataset(str(place)).to_batches(batch_size=_BLOCK), schema)

    @staticmethod
    def _module() -> Any:
        return optional_import("lance", extra="lance", needed_by="format lance", error_type=SettingsError)


class _JsonLines:
    def write(self, place: Path, blocks: Iterable[Block], schema: Any, rows: int) -> None:
        with place.open("wb") as file:
            for block in blocks:
                for row, vector in zip(block.rows, block.vectors.tolist(), strict=True):
                    file.write(_line({**_fields(row), "vector": vector}))

    def read(self, place: Path, schema: Any) -> Iterator[Block]:
        with place.open("rb") as file:
            for line in file:
                fields = json.loads(line)
                yield Block([_document(fields)], np.array([fields["vector"]], np.float32))


class _Numpy:
    """A folder: `vectors.npy` (rows, dimension), `ids.txt`, a line for each row, and `documents.jsonl`."""

    VECTORS, IDS, DOCUMENTS = "vectors.npy", "ids.txt", "documents.jsonl"

    def write(self, place: Path, blocks: Iterable[Block], schema: Any, rows: int) -> None:
        place.mkdir()
        shape = (rows, schema.field("vector").type.list_size)
        with (
            (place / self.VECTORS).open("wb") as vectors,
            (place / self.IDS).open("wb") as ids,
            (place / self.DOCUMENTS).open("wb") as documents,
        ):
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(vectors, header)
            for block in blocks:
                vectors.write(np.ascontiguousarray(block.vectors, "<f4").tobytes())
                for row in block.rows:
                    ids.write(_id_line(row.id))
                    documents.write(_line(_fields(row)))

    def read(self, place: Path, schema: Any) -> Iterator[Block]:
        vectors = np.load(place / self.VECTORS, mmap_mode="r")
        with (place / self.DOCUMENTS).open("rb") as documents, (place / self.IDS).open("rb") as ids:
            for vector, line, identifier in zip(vectors, documents, ids, strict=True):
                row = _document(json.loads(line))
                if _id_line(row.id) != identifier:
                    raise ValueError(f"ids.txt has {identifier!r:.80} for {row.id!r:.80}")
                yield Block([row], np.asarray(vector, np.float32)[None])


FORMATS: dict[str, Format] = {"parquet": _Parquet(), "npy": _Numpy(), "jsonl": _JsonLines(), "lance": _Lance()}
"""The formats by name."""


def _fields(row: Document) -> dict[str, Any]:
    return {"id": row.id, "title": row.title, "text": row.text, "metadata": row.metadata}


def _document(fields: dict[str, Any]) -> Document:
    return Document(fields["id"], fields["title"], fields["text"], fields["metadata"])


def _line(value: dict[str, Any]) -> bytes:
    """A line of JSON; half surrogate pairs, which UTF-8 cannot hold, are escaped."""
    try:
        return json.dumps(value, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(value).encode() + b"\n"


def _id_line(identifier: str) -> bytes:
    """The id as a line.

    Raises:
        SettingsError: It has a line break, or cannot be encoded.
    """
    try:
        line = identifier.encode()
    except UnicodeEncodeError:
        line = b"\n"
    if b"\n" in line or b"\r" in line or not line.strip():
        raise SettingsError(
            f"the id {identifier!r:.80} does not fit a line of a file of ids, which format npy has; take another format"
        )
    return line + b"\n"
