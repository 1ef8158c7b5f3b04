"""Rewrites an index as one segment, without what was deleted; with other options if asked."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.documents import Document
from llm2comp.errors import SettingsError
from llm2comp_indexes.commits import change_index
from llm2comp_indexes.finish import Progress, Queries, finish_segment, silent
from llm2comp_indexes.options import IndexOptions
from llm2comp_indexes.report import Report
from llm2comp_indexes.search import Index

__all__ = ["MergeReport", "merge_index"]

_BLOCK = 4096
_FIXED = ("store", "chunk_tokens", "chunk_overlap")


class MergeReport(NamedTuple):
    """What a merge did: segments before, rows dropped for good, seconds, and what was measured; None where there was nothing to do."""

    segments: int
    dropped: int
    seconds: float
    measured: Report | None


def merge_index(folder: str | Path, *, options: IndexOptions | None = None, device: str = "auto", progress: Progress | None = None) -> MergeReport:
    """Merges all segments into one, in one commit: deleted rows leave the files, one structure covers all rows. Nothing is encoded.

    Args:
        folder: The index.
        options: Other wishes, another type, or a BM25 index from now on; left out: those the index was built with.
        device: As for `build_index`.
        progress: As for `build_index`.

    Raises:
        IndexFolderError: The index is damaged, or being written by another process.
        SettingsError: The options ask for other vectors or chunks than were stored.
    """
    start = time.perf_counter()
    with change_index(Path(folder)) as change:
        assert change.before is not None
        before = change.before
        chosen = options or before.options
        if changed := [name for name in _FIXED if getattr(chosen, name) != getattr(before.options, name)]:
            raise SettingsError(f"a merge cannot change {', '.join(changed)}: that needs the texts encoded again; build the index again")
        dropped = sum(segment.deleted for segment in before.segments)
        if not before.segments or (len(before.segments) == 1 and not dropped and chosen == before.options):
            return MergeReport(len(before.segments), 0, time.perf_counter() - start, None)
        chunks = [chosen.chunk_tokens, chosen.chunk_overlap]
        header = {"merge": before.commit, "dimension": before.dimension, "store": chosen.store, "chunks": chunks}
        with Index(Path(folder), before) as index, change.new_segment(before.dimension, chosen.store, header=header) as writer:
            for rows, vectors in living_blocks(index):
                if not writer.has(rows):
                    writer.append(rows, vectors)
                (progress or silent)("documents", writer.documents)
            segment, measured = finish_segment(writer, chosen, queries=_queries(index), device=device, progress=progress or silent)
        change.commit(replace(before, options=chosen, segments=(segment,)))
    return MergeReport(len(before.segments), dropped, time.perf_counter() - start, measured)


def living_blocks(index: Index) -> Iterator[tuple[list[Document], NDArray[np.float32]]]:
    """Rows that are not deleted and their vectors (rows, dimension), segment after segment."""
    for segment in index.segments:
        for first in range(0, segment.rows, _BLOCK):
            rows = np.arange(first, min(first + _BLOCK, segment.rows), dtype=np.int64)
            rows = rows if segment.alive is None else rows[segment.alive[rows]]
            if len(rows):
                yield [segment.documents[int(row)] for row in rows], segment.storage.read(rows)


def _queries(index: Index) -> Queries | None:
    """The query vectors that the largest segment was measured with."""
    for segment in sorted(index.segments, key=lambda segment: -segment.rows):
        vectors = segment.read_queries()
        if vectors is not None and segment.report is not None:
            return Queries(vectors, segment.report.query_source)
    return None
