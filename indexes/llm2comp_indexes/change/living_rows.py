"""What a rewritten segment is made of: rows that are not deleted, and queries to measure it with."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp_indexes.builder.drawn_queries import move_queries
from llm2comp_indexes.format.chunks import CHUNK_FIELDS, with_new_fields
from llm2comp_indexes.format.files import check_content
from llm2comp_indexes.format.manifest import Manifest
from llm2comp_indexes.format.origins import Origin
from llm2comp_indexes.format.segment import Names, Segment
from llm2comp_indexes.search.segment import OpenSegment
from llm2comp_indexes.tuning.queries import Queries, QueryKind

__all__ = ["draw_queries", "read_living_blocks", "read_queries"]

_BLOCK = 4096
_DRAWN = 100


class LivingBlock(NamedTuple):
    """Rows that are not deleted.

    Attributes:
        rows: The rows.
        vectors: Their vectors, (rows, dimension).
        origins: Where each came from; empty: unknown.
        memory: Codes of the vectors of their memory tokens, (rows, bytes of a row), if the index stores them.
    """

    rows: list[Document]
    vectors: NDArray[np.float32]
    origins: list[Origin]
    memory: NDArray[np.uint8] | None


def read_living_blocks(
    folder: Path, manifest: Manifest, segments: Sequence[Segment], *, chunk_fields: bool = False
) -> Iterator[LivingBlock]:
    """Blocks of living rows; one segment is open at a time.

    Args:
        folder: Folder of the index.
        manifest: The commit, for the form of the segments.
        segments: The segments, in order.
        chunk_fields: Whether fields of chunks that version 0.1.0 named get today's names.

    Raises:
        IndexFolderError: A file was altered.
    """
    for segment in segments:
        with OpenSegment(folder, manifest, segment, searchable=False) as opened:
            # The copy gets a new checksum, which must not cover up an altered file
            for name in (Names.VECTORS, Names.MEMORY):
                if name in segment.files:
                    check_content(opened.folder / name, segment.files[name])
            origins = opened.read_origins() if segment.origins_file else None
            for first in range(0, opened.rows, _BLOCK):
                rows = np.arange(first, min(first + _BLOCK, opened.rows), dtype=np.int64)
                rows = rows if opened.alive is None else rows[opened.alive[rows]]
                if len(rows):
                    documents = [opened.documents[int(row)] for row in rows]
                    if chunk_fields and manifest.chunk_fields != CHUNK_FIELDS:
                        documents = list(map(with_new_fields, documents))
                    places = [origins[int(row)] for row in rows] if origins else []
                    memory = opened.memory.codes(rows) if opened.memory else None
                    yield LivingBlock(documents, opened.storage.read(rows), places, memory)


def read_queries(folder: Path, manifest: Manifest, segments: Sequence[Segment]) -> Queries | None:
    """The queries that the largest measured segment was measured with; None if none of them was.

    They are moved by noise if they were held out of it, for they are among the rows of the new segment.
    """
    for segment in sorted(segments, key=lambda segment: -segment.rows):
        with OpenSegment(folder, manifest, segment, searchable=False) as opened:
            vectors = opened.read_queries()
            if vectors is not None and opened.report is not None:
                if opened.report.query_kind is QueryKind.HELD_OUT:
                    return move_queries(vectors)
                return Queries(vectors, opened.report.query_kind, opened.report.query_source)
    return None


def draw_queries(folder: Path, manifest: Manifest, segments: Sequence[Segment]) -> Queries:
    """Up to 100 rows that are not deleted, of the segment with most of them, each moved by noise."""
    largest = max(segments, key=lambda segment: segment.rows - segment.deleted)
    with OpenSegment(folder, manifest, largest, searchable=False) as opened:
        rows = np.arange(opened.rows) if opened.alive is None else np.flatnonzero(opened.alive)
        return move_queries(opened.storage.read(rows[:: max(1, len(rows) // _DRAWN)][:_DRAWN]))
