"""Rows of an open index in blocks: ids, texts, metadata and vectors of what is not deleted."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp_indexes.format.files import check_content
from llm2comp_indexes.format.segment import Names
from llm2comp_indexes.search.index import Index
from llm2comp_indexes.search.segment import OpenSegment

__all__ = ["Block", "check_vectors", "read_blocks"]

_MOST_ROWS = 4096
_MOST_NUMBERS = 1 << 22
_MOST_CHARACTERS = 1 << 24


class Block(NamedTuple):
    """Consecutive rows and their vectors (rows, dimension)."""

    rows: list[Document]
    vectors: NDArray[np.float32]


def check_vectors(index: Index) -> None:
    """Compares the files of vectors with their checksums; rows of documents are checked as they are read.

    Raises:
        IndexFolderError: A file was altered.
    """
    for segment in index.segments:
        check_content(segment.folder / Names.VECTORS, segment.segment.files[Names.VECTORS])


def read_blocks(index: Index, most_rows: int | None = None) -> Iterator[Block]:
    """All rows that are not deleted, in order; the size of a block is bounded in rows, numbers and characters.

    Args:
        index: The index.
        most_rows: Most rows of a block; None: 4,096.

    Raises:
        IndexFolderError: A row was altered.
    """
    most = max(1, min(most_rows or _MOST_ROWS, _MOST_NUMBERS // max(1, index.manifest.dimension)))
    for segment in index.segments:
        numbers: list[int] = []
        rows: list[Document] = []
        characters = 0
        for row in range(segment.rows):
            if segment.alive is not None and not segment.alive[row]:
                continue
            document = segment.documents[row]
            numbers.append(row)
            rows.append(document)
            characters += len(document.title) + len(document.text)
            if len(rows) >= most or characters > _MOST_CHARACTERS:
                yield _block(segment, numbers, rows)
                numbers, rows, characters = [], [], 0
        if rows:
            yield _block(segment, numbers, rows)


def _block(segment: OpenSegment, numbers: list[int], rows: list[Document]) -> Block:
    return Block(rows, segment.storage.read(np.array(numbers, np.int64)))
