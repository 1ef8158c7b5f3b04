"""Rows in the binary format of PostgreSQL's COPY, made in one piece: faster than a call of the driver for each row."""

import struct
from collections.abc import Iterator

from llm2comp.errors import StoreError
from llm2comp_indexes.format.columns import encodable
from llm2comp_indexes.stores.rows import StoreRows

__all__ = ["BEGIN", "COPIED_COLUMNS", "END", "encode_rows"]

COPIED_COLUMNS = ("id", "title", "text", "metadata", "embedding", "llm2comp_digest")
BEGIN, END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
_FIRST = struct.Struct(">hi").pack
_JSON = struct.Struct(">ib").pack
_LENGTH = struct.Struct(">i").pack
_DIGEST = struct.Struct(">iq").pack
_MOST_FIELD = (1 << 30) - 2
_ROWS_OF_PIECE = 128


def encode_rows(rows: StoreRows) -> Iterator[bytes]:
    """The rows as `COPY … FROM STDIN (FORMAT BINARY)` takes them between `BEGIN` and `END`, in pieces.

    The server reads a piece while the next one is made.

    PostgreSQL has no text with a null character: in texts and metadata it becomes U+FFFD.

    Raises:
        StoreError: An id has a null character, or a text is of a gigabyte or more.
    """
    for start in range(0, len(rows.rows), _ROWS_OF_PIECE):
        yield _encode_piece(rows, slice(start, start + _ROWS_OF_PIECE))


def _encode_piece(rows: StoreRows, part: slice) -> bytes:
    vectors = rows.vectors[part]
    size = vectors.shape[1] * vectors.itemsize
    vector_head = struct.pack(">ihh", 4 + size, vectors.shape[1], 0)
    content = memoryview(vectors.astype(vectors.dtype.newbyteorder(">")).tobytes())
    pieces: list[bytes | memoryview] = []
    columns = (rows.rows[part], rows.metadata[part], rows.digests[part], range(0, len(content), size))
    for row, metadata, digest, place in zip(*columns, strict=True):
        identifier, title, text = _encode(row.id), _encode(row.title), _encode(row.text)
        if b"\0" in identifier:
            raise StoreError(f"the id {row.id!r:.80} has a null character, which PostgreSQL cannot hold")
        if max(len(text), len(title), len(metadata)) > _MOST_FIELD:
            raise StoreError(f'row "{row.id:.80}": more bytes than a field of PostgreSQL holds')
        title, text = _without_null(title), _without_null(text)
        pieces += (
            _FIRST(len(COPIED_COLUMNS), len(identifier)), identifier,
            _LENGTH(len(title)), title,
            _LENGTH(len(text)), text,
            _JSON(len(metadata) + 1, 1), metadata,
            vector_head, content[place : place + size],
            _DIGEST(8, digest),
        )  # fmt: skip
    return b"".join(pieces)


def _encode(text: str) -> bytes:
    return encodable(text).encode()


def _without_null(text: bytes) -> bytes:
    return text.replace(b"\0", "\ufffd".encode()) if b"\0" in text else text
