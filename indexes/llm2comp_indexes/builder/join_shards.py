"""Joined shards: their rows as a stream in the order of the corpus, after every file is compared with its checksum."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp.corpus.id_set import IdSet
from llm2comp.corpus.sources import Source
from llm2comp.errors import IndexFolderError
from llm2comp_indexes.builder.shard_file import ROWS, Shard, find_shards
from llm2comp_indexes.builder.vector_files import VectorBlock
from llm2comp_indexes.format.chunks import parent_id, with_new_fields
from llm2comp_indexes.format.documents import DocumentReader
from llm2comp_indexes.format.files import check_content
from llm2comp_indexes.format.segment import Names
from llm2comp_indexes.format.vectors import Storage, open_storage
from llm2comp_indexes.progress import Phase, Progress

__all__ = ["ShardSource"]

_BLOCK = 2048


class ShardSource:
    """All shards of one corpus as one stream of rows, in the order of an unsharded build.

    Attributes:
        shard: The first shard, whose model, options and corpus are those of all.
        documents: Number of documents in all shards.
        dimension: Length of a vector.
        identity: SHA-256 of the files that hold the rows.

    Raises:
        IndexFolderError: A shard is missing, unfinished, duplicate, altered, or does not fit the others.
    """

    def __init__(self, paths: Sequence[Path], progress: Progress) -> None:
        self._shards = find_shards(paths)
        for done, (folder, shard) in enumerate(self._shards):
            progress(Phase.SHARDS_VERIFIED, done)
            for name, record in shard.files.items():
                check_content(folder / ROWS / name, record)
        self.shard = self._shards[0][1]
        self.documents, self.dimension = self.shard.corpus_documents, self.shard.dimension
        self.sources = _join_sources([shard.sources for _, shard in self._shards])
        self.identity: Any = [
            [shard.files[name].sha256 for name in (Names.DOCUMENTS, Names.VECTORS)] for _, shard in self._shards
        ]

    def blocks(self) -> Iterator[VectorBlock]:
        """All rows.

        Raises:
            IndexFolderError: An id occurs twice, or a document cannot be read.
        """
        cursors = [_Cursor(folder, shard) for folder, shard in self._shards if shard.rows]
        seen = IdSet()
        for first in range(0, self.documents, _BLOCK):
            block = _Gathered(cursors, self.dimension)
            for number in range(first, min(first + _BLOCK, self.documents)):
                place = number % len(self._shards)
                rows = cursors[place].take()
                name = cursors[place].document_id(rows[0])
                if not seen.add(name):
                    raise IndexFolderError(
                        f'{self._shards[place][0]}: the document "{name[:80]}" is in another shard too; make both again'
                    )
                block.add(place, rows, number)
            yield VectorBlock(block.rows, np.array(block.numbers, np.int64), block.read)
            for cursor in cursors:
                cursor.release()
        for cursor in cursors:
            cursor.check_end()


class _Gathered:
    """Rows of a block, with the shard of each and its row there."""

    def __init__(self, cursors: "Sequence[_Cursor]", dimension: int) -> None:
        self.rows: list[Document] = []
        self.numbers: list[int] = []
        self._places: list[int] = []
        self._cursors, self._dimension = cursors, dimension
        self._firsts = [cursor.row for cursor in cursors]

    def add(self, place: int, rows: Sequence[Document], number: int) -> None:
        self.rows += rows
        self.numbers += [number] * len(rows)
        self._places += [place] * len(rows)

    def read(self) -> NDArray[np.float32]:
        """Vectors (rows, dimension), as stored in the shards."""
        vectors = np.empty((len(self.rows), self._dimension), np.float32)
        places = np.array(self._places)
        for place, (cursor, first) in enumerate(zip(self._cursors, self._firsts, strict=True)):
            rows = np.flatnonzero(places == place)
            if len(rows):
                vectors[rows] = cursor.storage.fetch(np.arange(first, first + len(rows), dtype=np.int64))
        return vectors


class _Cursor:
    """Reads the documents of a shard in order.

    Its files are mapped for one block at a time, so that memory does not fill with their pages.
    """

    def __init__(self, folder: Path, shard: Shard) -> None:
        self.row = 0
        self._folder, self._rows, self._shard = folder, folder / ROWS, shard
        self._chunked = shard.options.has_chunks
        self._reader: DocumentReader | None = None
        self._coming: Document | None = None
        self.storage: Storage = open_storage(
            self._rows / Names.VECTORS, rows=shard.rows, dimension=shard.dimension, store=shard.options.store
        )

    def take(self) -> list[Document]:
        """The rows of the next document."""
        rows = [self._next()]
        name = self.document_id(rows[0])
        while self._chunked and (following := self._peek()) is not None and self.document_id(following) == name:
            rows.append(self._next())
        return rows

    def document_id(self, row: Document) -> str:
        """Id of the document of a row, which may be a chunk of it."""
        return parent_id(row.id, row.metadata) if self._chunked else row.id

    def release(self) -> None:
        """Unmaps the files until the next row is read."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def check_end(self) -> None:
        """Raises IndexFolderError unless all rows were read."""
        self.release()
        if self.row != self._shard.rows:
            raise IndexFolderError(
                f"{self._folder}: holds more documents than the {self._shard.documents:,} its shard.json says; make "
                "the shard again"
            )

    def _next(self) -> Document:
        row = self._peek()
        if row is None:
            raise IndexFolderError(
                f"{self._folder}: holds fewer documents than the {self._shard.documents:,} its shard.json says; make "
                "the shard again"
            )
        self._coming = None
        self.row += 1
        return row

    def _peek(self) -> Document | None:
        if self._coming is None and self.row < self._shard.rows:
            if self._reader is None:
                self._reader = DocumentReader(
                    self._rows / Names.DOCUMENTS, self._rows / Names.OFFSETS, self._shard.rows
                )
            row = self._reader[self.row]
            self._coming = with_new_fields(row) if self._chunked else row
        return self._coming


def _join_sources(lists: Sequence[tuple[Source, ...] | None]) -> tuple[Source, ...] | None:
    """Sources of all shards, with the roots that all agree on; None if a shard of version 0.1.0 is among them."""
    if any(sources is None for sources in lists):
        return None
    joined: dict[str, Source] = {}
    for source in (source for sources in lists for source in sources or ()):
        other = joined.setdefault(source.name, source)
        if other.root != source.root:
            joined[source.name] = replace(other, root=None)
    return tuple(joined.values())
