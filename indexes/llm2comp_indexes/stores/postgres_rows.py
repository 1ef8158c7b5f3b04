"""Rows in the binary format of PostgreSQL's COPY, made in one piece: faster than a call of the driver for each row."""

import struct

from llm2comp.errors import StoreError
from llm2comp_indexes.format.columns import encodable
from llm2comp_indexes.stores.rows import StoreRows, to_json

__all__ = ["COPIED_COLUMNS", "encode_rows"]

COPIED_COLUMNS = ("id", "title", "text", "metadata", "embedding", "llm2comp_digest")
_BEGIN, _END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
_COUNT = struct.pack(">h", len(COPIED_COLUMNS))
_LENGTH = struct.Struct(">i").pack
_DIGEST = struct.Struct(">iq").pack
_MOST_FIELD = (1 << 30) - 1


def encode_rows(rows: StoreRows) -> bytes:
    """The rows as the input of `COPY … FROM STDIN (FORMAT BINARY)`.

    PostgreSQL has no text with a null character: in texts and metadata it becomes U+FFFD.

    Raises:
        StoreError: An id has a null character, or a text is of a gigabyte or more.
    """
    dimension, size = rows.vectors.shape[1], rows.vectors.shape[1] * rows.vectors.itemsize
    vector_head = struct.pack(">ihh", 4 + size, dimension, 0)
    content = memoryview(rows.vectors.astype(rows.vectors.dtype.newbyteorder(">")).tobytes())
    pieces: list[bytes | memoryview] = [_BEGIN]
    for place, (row, digest) in enumerate(zip(rows.rows, rows.digests, strict=True)):
        identifier, metadata = _encode(row.id), b"\1" + to_json(row.metadata)
        if b"\0" in identifier:
            raise StoreError(f"the id {row.id!r:.80} has a null character, which PostgreSQL cannot hold")
        pieces.append(_COUNT)
        for field in (identifier, _without_null(_encode(row.title)), _without_null(_encode(row.text)), metadata):
            if len(field) > _MOST_FIELD:
                raise StoreError(f'row "{row.id:.80}": {len(field):,} bytes, more than a field of PostgreSQL holds')
            pieces += (_LENGTH(len(field)), field)
        pieces += (vector_head, content[place * size : (place + 1) * size], _DIGEST(8, digest))
    return b"".join([*pieces, _END])


def _encode(text: str) -> bytes:
    return encodable(text).encode()


def _without_null(text: bytes) -> bytes:
    return text.replace(b"\0", "\ufffd".encode()) if b"\0" in text else text
