"""Rows of documents, gathered into blocks, encoded and written, in overlapping threads."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np

from llm2comp.corpus.documents import Document
from llm2comp.truncation import count_truncated
from llm2comp_indexes.encoder import RowVectors
from llm2comp_indexes.format.memory_vectors import to_codes
from llm2comp_indexes.format.origins import Origin
from llm2comp_indexes.format.segment_writer import SegmentWriter
from llm2comp_indexes.progress import Phase, Progress, silent

__all__ = ["BLOCK", "DocumentRows", "RowBlock", "split_into_blocks", "write_blocks"]

BLOCK = 2048
"""Number of documents in a block, which is read, encoded and written as a whole."""
_PIECE = 256
"""Number of rows encoded at once, after which progress is reported; fixed, so that vectors do not depend on timing."""

_T = TypeVar("_T")
_logger = logging.getLogger(__name__)


class DocumentRows(NamedTuple):
    """The rows of a document, and where it came from."""

    rows: Sequence[Document]
    origin: Origin = Origin()


class RowBlock(NamedTuple):
    """Rows of a number of documents, and where each came from; no origins: unknown."""

    rows: list[Document]
    documents: int
    origins: Sequence[Origin] = ()


def split_into_blocks(documents: Iterable[DocumentRows]) -> Iterator[RowBlock]:
    """Blocks of `BLOCK` documents each; the rows of a document stay together."""
    remaining = iter(documents)
    while block := list(islice(remaining, BLOCK)):
        rows = [row for document in block for row in document.rows]
        yield RowBlock(rows, len(block), [document.origin for document in block for _ in document.rows])


def write_blocks(
    writer: SegmentWriter,
    blocks: Iterable[RowBlock],
    encode: Callable[[Sequence[Document]], RowVectors],
    *,
    progress: Progress = silent,
    batch_size: int | None = None,
) -> None:
    """Writes all blocks except those that an earlier run wrote.

    While a block is encoded, the next one is read and the one before is written.

    Args:
        writer: Writer of the segment.
        blocks: The blocks; empty ones are left out.
        encode: Returns unit vectors of rows, and those of their memory tokens if the writer stores them.
        progress: Called at the beginning, and several times per block, with the number of documents encoded, by this
            run or an earlier one.
        batch_size: Number of texts in a batch of the model, if it was given: so many rows are encoded at once, or more.
    """
    done, at_once = 0, max(_PIECE, batch_size or 0)
    progress(Phase.DOCUMENTS, 0)
    with count_truncated() as count, ThreadPoolExecutor(1, "write") as disk:
        written = None
        for block in _read_ahead(block for block in blocks if block.rows):
            if not writer.has(block.rows, block.origins):
                parts, codes = [], []
                for first in range(0, len(block.rows), at_once):
                    made = encode(block.rows[first : first + at_once])
                    parts.append(made.vectors)
                    if writer.memory is not None and made.memory is not None:
                        codes.append(to_codes(made.memory, writer.memory))
                    if first + at_once < len(block.rows):
                        progress(Phase.DOCUMENTS, done + block.documents * (first + at_once) // len(block.rows))
                if written:
                    written.result()
                memory = np.concatenate(codes) if codes else None
                written = disk.submit(writer.append, block.rows, np.concatenate(parts), block.origins, memory=memory)
            done += block.documents
            progress(Phase.DOCUMENTS, done)
        if written:
            written.result()
    if count.cut:
        hint = "--chunk-tokens (chunk_tokens) makes several rows of longer ones"
        _logger.warning(
            "%s of %s texts were cut to their first %d tokens; %s",
            f"{count.cut:,}",
            f"{count.texts:,}",
            count.tokens,
            hint,
        )


def _read_ahead(items: Iterable[_T]) -> Iterator[_T]:
    """The items; the next one is made in a thread while one is used."""
    remaining = iter(items)
    end = object()
    with ThreadPoolExecutor(1, "read") as reader:
        coming = reader.submit(next, remaining, end)
        while (item := coming.result()) is not end:
            coming = reader.submit(next, remaining, end)
            yield item  # type: ignore[misc]  # not the end
