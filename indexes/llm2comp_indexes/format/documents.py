"""The documents of a segment: a file of JSON lines, and a file with the end and CRC-32 of each line.

Any row is read without reading the others.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

from llm2comp.corpus.documents import Document
from llm2comp.errors import CorpusError, IndexFolderError
from llm2comp_indexes.format.files import FileRecord, HashedFile
from llm2comp_indexes.format.mapping import map_file

__all__ = ["ROW_BYTES", "DocumentReader", "DocumentWriter", "digest_documents", "document_line", "parse_line"]

_OFFSET = struct.Struct("<QI")  # where the line ends, its CRC-32
_TWO_OFFSETS = struct.Struct("<QIQI")
ROW_BYTES = _OFFSET.size
"""Bytes in the offsets file for each document."""

_encode = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would make a new encoder for each document
_scan = json.JSONDecoder().raw_decode  # json.loads also looks for white space: a third of its time on a short line


def document_line(document: Document) -> bytes:
    """The document's line in the file, with its line break. Equal documents have equal lines.

    Raises:
        CorpusError: JSON cannot hold the metadata.
    """
    fields = {"id": document.id, "title": document.title, "text": document.text, "metadata": document.metadata}
    try:
        line = _encode(fields) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise CorpusError(f'document "{document.id}": its metadata cannot be written as JSON: {error}') from error
    return line.encode("utf-8", "surrogatepass")  # JSON may escape half a surrogate pair, which Python accepts as text


def parse_line(line: bytes) -> tuple[str, str, str, dict[str, Any]]:
    """Id, title, text and metadata of the document of a line that `document_line` made.

    Raises:
        ValueError: It is not such a line.
        KeyError: It lacks a field.
    """
    content = line.decode("utf-8", "surrogatepass")
    fields, end = _scan(content)
    if content[end:] != "\n" or len(fields) != 4:
        raise ValueError("not one object of four fields in a line")
    identifier, title, text, metadata = fields["id"], fields["title"], fields["text"], fields["metadata"]
    if not (type(identifier) is type(title) is type(text) is str and type(metadata) is dict):
        raise ValueError("id, title, text or metadata of another type")
    return identifier, title, text, metadata


def digest_documents(documents: Iterable[Document]) -> str:
    """SHA-256 (hex) of the file that `DocumentWriter` would write for these documents."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(document_line(document))
    return digest.hexdigest()


class DocumentWriter:
    """Writes documents into two files, lines and offsets."""

    def __init__(self, lines: Path, offsets: Path, *, rows: int = 0, end: int = 0) -> None:
        """Starts new files, or continues those that a killed process left.

        Args:
            lines: File of JSON lines.
            offsets: File of offsets.
            rows: Number of documents to keep.
            end: Bytes of their lines.

        Raises:
            IndexFolderError: The files are shorter.
        """
        self._lines = HashedFile(lines, keep=end)
        self._offsets = HashedFile(offsets, keep=rows * ROW_BYTES)
        self.end = end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._lines.__exit__(*error)
        finally:
            self._offsets.__exit__(*error)

    def add(self, lines: Iterable[bytes]) -> None:
        """Appends lines that `document_line` made."""
        block = list(lines)
        ends = list(accumulate(map(len, block), initial=self.end))
        self._lines.write(b"".join(block))
        self._offsets.write(b"".join(map(_OFFSET.pack, ends[1:], map(zlib.crc32, block))))
        self.end = ends[-1]

    def sync(self) -> None:
        """Flushes what was appended to the device."""
        self._lines.sync()
        self._offsets.sync()

    def finish(self) -> tuple[FileRecord, FileRecord]:
        """Records of the two files, after both are on the device."""
        return self._lines.finish(), self._offsets.finish()


class DocumentReader:
    """The documents of a segment by row. The files are mapped: opening reads nothing, a row reads one line."""

    def __init__(self, lines: Path, offsets: Path, documents: int) -> None:
        self._path = lines
        self._count = documents
        self._offsets, self._lines = map_file(offsets), map_file(lines)

    def __len__(self) -> int:
        return self._count

    def line(self, row: int) -> bytes:
        """The row's line.

        Raises:
            IndexError: There is no such row.
            IndexFolderError: Its bytes are not those that were written.
        """
        if not 0 <= row < self._count:
            raise IndexError(f"row {row}, expected within 0 and {self._count - 1}")
        # Both ends in one call, because every search reads k lines.
        start, _, end, checksum = (
            _TWO_OFFSETS.unpack_from(self._offsets, (row - 1) * ROW_BYTES)
            if row
            else (0, 0, *_OFFSET.unpack_from(self._offsets))
        )
        line = self._lines[start:end]
        if not line or zlib.crc32(line) != checksum:
            raise IndexFolderError(
                f"{self._path}: document {row + 1} was altered (its CRC-32 is not the recorded one); build the index "
                "again"
            )
        return line

    def __getitem__(self, row: int) -> Document:
        """The row's document.

        Raises:
            IndexError: There is no such row.
            IndexFolderError: Its bytes are not those that were written.
        """
        return Document(*self.fields(row))

    def fields(self, row: int) -> tuple[str, str, str, dict[str, Any]]:
        """Id, title, text and metadata of the row's document.

        Raises:
            IndexError: There is no such row.
            IndexFolderError: Its bytes are not those that were written.
        """
        try:
            return parse_line(self.line(row))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise IndexFolderError(
                f"{self._path}: document {row + 1} is not one that this package wrote: {error}; build the index again"
            ) from error

    def rows_by_prefix(self, prefix: str) -> Iterator[int]:
        """Rows whose id begins with the prefix, ascending; of the others, only the first bytes are read."""
        head = _encode({"id": prefix}).removesuffix('"}').encode("utf-8", "surrogatepass")
        start = 0
        for row, (end, _) in enumerate(_OFFSET.iter_unpack(self._offsets)):
            if self._lines[start : start + len(head)] == head:
                yield row
            start = end

    def close(self) -> None:
        """Unmaps the documents."""
        for content in (self._lines, self._offsets):
            if not isinstance(content, bytes):
                content.close()
        self._lines = self._offsets = b""
