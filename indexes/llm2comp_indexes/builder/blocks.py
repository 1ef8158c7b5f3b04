"""Documents become rows: split into chunks, gathered into blocks, encoded and written, in overlapping threads."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp.errors import CorpusError, SettingsError
from llm2comp.truncation import count_truncated
from llm2comp_indexes.format.chunks import CHUNK_FIELDS, ChunkFields, parent_id
from llm2comp_indexes.format.segment_writer import SegmentWriter
from llm2comp_indexes.options import IndexOptions

__all__ = ["BLOCK", "RowBlock", "Splitter", "make_splitter", "split_into_blocks", "write_blocks"]

BLOCK = 2048
"""Number of documents in a block, which is read, encoded and written as a whole."""
_PIECE = 256
"""Number of rows encoded at once, after which progress is reported; fixed, so that vectors do not depend on timing."""

Splitter = Callable[[Document], list[Document]]
_T = TypeVar("_T")
_logger = logging.getLogger(__name__)


class RowBlock(NamedTuple):
    """Rows of a number of documents."""

    rows: list[Document]
    documents: int


def make_splitter(options: IndexOptions, encoder: Any, *, fields: ChunkFields = CHUNK_FIELDS) -> Splitter:
    """A function that makes rows of a document: the document, or chunks of at most `chunk_tokens` tokens of the model.

    A chunk has the title and metadata of the document, a part of its text, the id `DOCUMENT#N` (N from 1), and the id
    of the document and N in two fields of its metadata. A document that fits in one chunk stays as it is.

    Args:
        options: Size and overlap of the chunks.
        encoder: The model.
        fields: Names of the two fields.

    Raises:
        SettingsError: `chunk_tokens` is set, and the model has no fast tokenizer.
        CorpusError: Raised by the splitter for a document whose metadata has one of the two fields already.
    """
    if options.chunk_tokens is None:
        return lambda document: [document]
    # A copy: splitting runs beside encoding, and tokenizers keep settings between calls
    tokenizer = deepcopy(getattr(encoder, "tokenizer", None))
    if not getattr(tokenizer, "is_fast", False):
        raise SettingsError(
            "chunk_tokens needs a model with a fast tokenizer, which knows where its tokens begin in the text; leave "
            "it out, or split the texts yourself"
        )
    return lambda document: _split(document, tokenizer, options, fields)


def _split(document: Document, tokenizer: Any, options: IndexOptions, fields: ChunkFields) -> list[Document]:
    size, overlap = options.chunk_tokens or 0, options.chunk_overlap
    places = tokenizer(document.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
        "offset_mapping"
    ]
    looks_like_chunk = parent_id(document.id, document.metadata) != document.id
    if len(places) <= size and not looks_like_chunk:
        return [document]
    _check_fields(document, fields)
    starts = range(0, max(1, len(places) - overlap), size - overlap)
    return [
        replace(
            document,
            id=f"{document.id}#{number}",
            text=document.text[places[start][0] : places[min(start + size, len(places)) - 1][1]].strip(),
            metadata={**document.metadata, fields.document: document.id, fields.chunk: number},
        )
        for number, start in enumerate(starts, start=1)
    ]


def _check_fields(document: Document, fields: ChunkFields) -> None:
    if taken := [name for name in fields if name in document.metadata]:
        way_out = (
            "rename it in the corpus"
            if fields == CHUNK_FIELDS
            else "merge the index first (llm2comp index merge DIR), which gives its own fields other names"
        )
        raise CorpusError(
            f'document "{document.id}": its metadata has the field "{taken[0]}", where chunks of this index keep '
            f"which document they are of; {way_out}"
        )


def split_into_blocks(rows: Iterable[Sequence[Document]]) -> Iterator[RowBlock]:
    """Blocks of `BLOCK` documents each; the rows of a document stay together."""
    remaining = iter(rows)
    while block := list(islice(remaining, BLOCK)):
        yield RowBlock([row for document in block for row in document], len(block))


def write_blocks(
    writer: SegmentWriter,
    blocks: Iterable[RowBlock],
    encode: Callable[[Sequence[Document]], NDArray[np.float32]],
    *,
    on_block: Callable[[int], None] | None = None,
) -> None:
    """Writes all blocks except those that an earlier run wrote.

    While a block is encoded, the next one is read and the one before is written.

    Args:
        writer: Writer of the segment.
        blocks: The blocks; empty ones are left out.
        encode: Returns unit vectors (rows, dimension) of rows.
        on_block: Called several times per block with the number of documents encoded, by this run or an earlier one.
    """
    done = 0
    with count_truncated() as count, ThreadPoolExecutor(1, "write") as disk:
        written = None
        for block in _read_ahead(block for block in blocks if block.rows):
            if not writer.has(block.rows):
                parts = []
                for first in range(0, len(block.rows), _PIECE):
                    parts.append(encode(block.rows[first : first + _PIECE]))
                    if on_block and first + _PIECE < len(block.rows):
                        on_block(done + block.documents * (first + _PIECE) // len(block.rows))
                if written:
                    written.result()
                written = disk.submit(writer.append, block.rows, np.concatenate(parts))
            done += block.documents
            if on_block:
                on_block(done)
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
