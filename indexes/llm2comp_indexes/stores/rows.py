"""Rows as stores take them: vectors in the precision of the table, and a digest that tells whether a row changed."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp.errors import StoreError
from llm2comp_indexes.format.columns import encodable
from llm2comp_indexes.stores.header import StoreHeader

__all__ = ["StoreRows", "hash_ids", "hash_vectors", "in_groups", "make_rows", "to_json", "to_stored"]

_MOST_BYTES = 1 << 27
_to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode  # json.dumps would make one for each row


class StoreRows(NamedTuple):
    """Rows with what a store keeps of them.

    Attributes:
        rows: Documents, or chunks of them.
        vectors: Vectors (rows, dimension), float32 or float16.
        metadata: The metadata of each row as JSON, `to_json`.
        digests: Of each row, 64 bits of a hash over its fields and its vector, as a signed number.
        hashes: Of each vector, as `hash_vectors`.
    """

    rows: list[Document]
    vectors: NDArray[np.floating]
    metadata: list[bytes]
    digests: list[int]
    hashes: list[int]


def make_rows(rows: Sequence[Document], vectors: NDArray[np.floating], header: StoreHeader) -> StoreRows:
    """Rows for a table with this header.

    Args:
        rows: Documents, or chunks of them.
        vectors: Their unit vectors (rows, any dimension from that of the table up); longer ones are cut and get unit
            length again.
        header: The table's.

    Raises:
        StoreError: A vector is too short, not finite, or too large for the precision.
    """
    stored = to_stored(vectors, header)
    hashes, metadata = hash_vectors(stored), [to_json(row.metadata) for row in rows]
    digests = list(map(_digest, rows, metadata, hashes))
    return StoreRows(list(rows), stored, metadata, digests, hashes)


def _digest(row: Document, metadata: bytes, vector: int) -> int:
    """64 bits of a hash over all of a row, as a signed number."""
    texts = [text.encode("utf-8", "surrogatepass") for text in (row.id, row.title, row.text)]
    parts = [*texts, metadata, vector.to_bytes(8, "big", signed=True)]
    lengths = b"%d %d %d " % tuple(map(len, texts))  # so that no two rows run into the same bytes
    return _signed(hashlib.blake2b(lengths + b"".join(parts), digest_size=8).digest())


def to_stored(vectors: NDArray[np.floating], header: StoreHeader) -> NDArray[np.floating]:
    """The vectors in the dimension and precision of the table.

    Raises:
        StoreError: As `make_rows`.
    """
    if vectors.ndim != 2 or vectors.shape[1] < header.dimension:
        raise StoreError(f"vectors of shape {vectors.shape}, and the table holds vectors of {header.dimension} numbers")
    if vectors.shape[1] > header.dimension:
        cut = vectors[:, : header.dimension].astype(np.float32)
        vectors = cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12)
    with np.errstate(over="ignore"):
        stored: NDArray[np.floating] = np.ascontiguousarray(vectors, np.dtype(header.vector_type).newbyteorder("<"))
    if not np.isfinite(stored).all():
        raise StoreError(f"a vector is not finite as {header.vector_type}; stores take finite numbers only")
    return stored


def in_groups(parts: Iterable[StoreRows], most: int) -> Iterator[StoreRows]:
    """The rows of the parts in groups of about this number, fewer if they take much memory."""
    group: list[StoreRows] = []
    rows = size = 0
    for part in parts:
        group.append(part)
        rows += len(part.rows)
        size += part.vectors.nbytes + sum(len(row.text) for row in part.rows)
        if rows >= most or size >= _MOST_BYTES:
            yield _join(group)
            group, rows, size = [], 0, 0
    if rows:
        yield _join(group)


def _join(parts: Sequence[StoreRows]) -> StoreRows:
    if len(parts) == 1:
        return parts[0]
    return StoreRows(
        [row for part in parts for row in part.rows],
        np.concatenate([part.vectors for part in parts]),
        [content for part in parts for content in part.metadata],
        [digest for part in parts for digest in part.digests],
        [number for part in parts for number in part.hashes],
    )


def to_json(value: Any) -> bytes:
    """The metadata as JSON that every store takes: without null characters, half surrogate pairs, NaN and infinity."""
    try:
        text = _to_json(value)
    except ValueError:
        text = json.dumps(_plain(value), ensure_ascii=False)
    if "\\u0000" in text:
        text = json.dumps(_plain(value), ensure_ascii=False)
    return encodable(text).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, dict):
        return {_plain(str(name)): _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def hash_vectors(vectors: NDArray[np.floating]) -> list[int]:
    """Of each vector, the first 64 bits of the MD5 of its numbers (big-endian), as a signed number.

    PostgreSQL computes the same of its stored vectors.
    """
    content = memoryview(vectors.astype(vectors.dtype.newbyteorder(">")).tobytes())
    step = vectors.shape[1] * vectors.itemsize
    return [
        _signed(hashlib.md5(content[start : start + step], usedforsecurity=False).digest())
        for start in range(0, len(content), step)
    ]


def hash_ids(ids: Sequence[str]) -> NDArray[np.int64]:
    """64 bits of a hash of each id, (ids,)."""
    digests = b"".join(
        hashlib.blake2b(identifier.encode("utf-8", "surrogatepass"), digest_size=8).digest() for identifier in ids
    )
    return np.frombuffer(digests, ">i8").astype(np.int64)


def _signed(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big", signed=True)
