"""A new segment while its rows are written: the files of the rows, and the BM25 index that is fed beside them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from llm2comp.corpus.documents import Document
from llm2comp.encoder_options import EncoderOptions
from llm2comp_indexes.format.chunks import text_with_headings
from llm2comp_indexes.format.commits import Change
from llm2comp_indexes.format.memory_vectors import MemoryForm
from llm2comp_indexes.format.segment import Names
from llm2comp_indexes.format.segment_writer import SegmentWriter
from llm2comp_indexes.lexical.writer import LexicalWriter
from llm2comp_indexes.options import IndexOptions

__all__ = ["NewSegment", "new_segment", "segment_header"]


class NewSegment(NamedTuple):
    """Writers of a new segment: `rows` for its documents and vectors, `lexical` for its BM25 index, if it gets one."""

    rows: SegmentWriter
    lexical: LexicalWriter | None


@contextmanager
def new_segment(
    change: Change,
    dimension: int,
    options: IndexOptions,
    *,
    header: dict[str, Any],
    memory: MemoryForm | None = None,
) -> Iterator[NewSegment]:
    """Writers of one more segment, closed at the end of the block; rows that a stopped run wrote are kept.

    Args:
        change: The change of the index that the segment belongs to.
        dimension: Length of a vector.
        options: Precision of the stored vectors, and whether there is a BM25 index, and its language.
        header: From `segment_header`: rows of a stopped run are kept only if they were written under the same.
        memory: How the vectors of memory tokens are stored; None: they are not.
    """
    if memory is not None:
        header = {**header, "memory": list(memory)}
    with change.new_segment(dimension, options.store, header=header, memory=memory) as rows:
        if not options.hybrid:
            yield NewSegment(rows, None)
            return
        with LexicalWriter(rows.folder / Names.LEXICAL, options.language) as lexical:
            content = text_with_headings if options.ends_at_sentences and options.chunk_context else _content
            rows.follow(lambda block: lexical.add(map(content, block)))
            yield NewSegment(rows, lexical)


def segment_header(
    fingerprint: str, dimension: int, options: IndexOptions, encoder: EncoderOptions | None = None
) -> dict[str, Any]:
    """JSON values that the rows and vectors of a segment depend on, beside the documents."""
    recorded = encoder.to_json() if encoder else {}
    return {
        "fingerprint": fingerprint,
        "dimension": dimension,
        "store": options.store,
        "chunks": [options.chunk_tokens, options.chunk_overlap],
        **options.chunk_json(),
        **({"encoder": recorded} if recorded else {}),
    }


def _content(row: Document) -> str:
    return row.content
