"""Rewrites an index as one segment without deleted rows, optionally with other options."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp.errors import IndexFolderError, SettingsError
from llm2comp_indexes.builder.finish_segment import finish_segment
from llm2comp_indexes.builder.from_vectors import move_queries
from llm2comp_indexes.builder.new_segment import new_segment, segment_header
from llm2comp_indexes.format.chunks import CHUNK_FIELDS, with_new_fields
from llm2comp_indexes.format.commits import Change, change_index
from llm2comp_indexes.format.files import check_content
from llm2comp_indexes.format.manifest import Manifest, Names, Segment
from llm2comp_indexes.options import IndexOptions
from llm2comp_indexes.progress import Phase, Progress, silent
from llm2comp_indexes.search.segment import OpenSegment
from llm2comp_indexes.structures.gpu import resolve_device
from llm2comp_indexes.structures.types import parse_type
from llm2comp_indexes.tuning.queries import Queries, QueryKind
from llm2comp_indexes.tuning.report import Report

__all__ = ["MergeReport", "merge_index"]

_BLOCK = 4096
_FIXED = ("store", "chunk_tokens", "chunk_overlap", "chunk_at", "chunk_context")


class MergeReport(NamedTuple):
    """Result of a merge.

    Attributes:
        segments: Number of segments before.
        dropped: Number of deleted rows removed from the files.
        seconds: Duration of the merge.
        measured: Measurements of the new segment; None if there was nothing to merge.
    """

    segments: int
    dropped: int
    seconds: float
    measured: Report | None


def merge_index(
    folder: str | Path, *, options: IndexOptions | None = None, device: str = "auto", progress: Progress | None = None
) -> MergeReport:
    """Merges all segments into one, in one commit: deleted rows leave the files, one structure covers all rows.

    Nothing is encoded. An index of version 0.1.0 is upgraded: chunks get today's names of their fields. A killed merge
    resumes after its last finished block when it is run again.

    Args:
        folder: Folder of the index.
        options: Other targets, another type, with or without a BM25 index; None: the options of the index.
        device: As for `build_index`.
        progress: As for `build_index`.

    Raises:
        IndexFolderError: The index is damaged, or being written by another process.
        SettingsError: The options have another store or other chunks than the index.
    """
    resolve_device(device)
    start, path = time.perf_counter(), Path(folder)
    with change_index(path) as change:
        assert change.before is not None
        before = change.before
        chosen = options or before.options
        _check(chosen, before)
        dropped = sum(segment.deleted for segment in before.segments)
        if chosen == before.options and _is_merged(before):
            return MergeReport(len(before.segments), 0, time.perf_counter() - start, None)
        segments, measured = (
            _rewrite(path, change, before, chosen, device, progress or silent) if before.segments else ((), None)
        )
        change.commit(replace(before, options=chosen, segments=segments, chunk_fields=CHUNK_FIELDS))
    return MergeReport(len(before.segments), dropped, time.perf_counter() - start, measured)


def _check(options: IndexOptions, before: Manifest) -> None:
    """Raises SettingsError, before anything is written, if a merge cannot apply the options."""
    if changed := [name for name in _FIXED if getattr(options, name) != getattr(before.options, name)]:
        raise SettingsError(
            f"a merge cannot change {', '.join(changed)}: that needs the texts encoded again; build the index again"
        )
    if options.type != "auto" and before.rows:
        parse_type(options.type, rows=before.rows, dimension=before.dimension)


def _is_merged(manifest: Manifest) -> bool:
    """Whether a merge with the options of the index would change nothing."""
    if manifest.chunk_fields != CHUNK_FIELDS or manifest.sources is None:
        return False  # of version 0.1.0
    if len(manifest.segments) != 1:
        return not manifest.segments
    [segment] = manifest.segments
    return not segment.deleted and (segment.type != "Flat" or manifest.options.type.lower() in ("auto", "flat"))


def _rewrite(
    folder: Path, change: Change, before: Manifest, options: IndexOptions, device: str, progress: Progress
) -> tuple[tuple[Segment, ...], Report | None]:
    """One segment of all rows that are not deleted, with its measurements."""
    queries = _read_queries(folder, before)
    header = {"merge": before.commit, **segment_header(before.fingerprint, before.dimension, options, before.encoder)}
    with new_segment(change, before.dimension, options, header=header) as new:
        writer = new.rows
        for rows, vectors in _living_blocks(folder, before):
            if not writer.has(rows):
                writer.append(rows, vectors)
            progress(Phase.DOCUMENTS, writer.documents)
        segment, measured = finish_segment(new, options, queries=queries, device=device, progress=progress)
    return (segment,), measured


def _living_blocks(folder: Path, manifest: Manifest) -> Iterator[tuple[list[Document], NDArray[np.float32]]]:
    """Blocks of rows that are not deleted, with their vectors (rows, dimension); one segment is open at a time."""
    for segment in manifest.segments:
        with OpenSegment(folder, manifest, segment, searchable=False) as opened:
            # The copy gets a new checksum, which must not cover up an altered file
            check_content(opened.folder / Names.VECTORS, segment.files[Names.VECTORS])
            for first in range(0, opened.rows, _BLOCK):
                rows = np.arange(first, min(first + _BLOCK, opened.rows), dtype=np.int64)
                rows = rows if opened.alive is None else rows[opened.alive[rows]]
                if len(rows):
                    documents = [opened.documents[int(row)] for row in rows]
                    if manifest.chunk_fields != CHUNK_FIELDS:
                        documents = list(map(with_new_fields, documents))
                    yield documents, opened.storage.read(rows)


def _read_queries(folder: Path, manifest: Manifest) -> Queries:
    """The query vectors that the largest segment was measured with; moved by noise if they were held out of it."""
    for segment in sorted(manifest.segments, key=lambda segment: -segment.rows):
        with OpenSegment(folder, manifest, segment, searchable=False) as opened:
            vectors = opened.read_queries()
            if vectors is not None and opened.report is not None:
                if opened.report.query_kind is QueryKind.HELD_OUT:
                    return move_queries(vectors)  # the rows are now in the merged segment
                return Queries(vectors, opened.report.query_kind, opened.report.query_source)
    raise IndexFolderError(
        f"{folder}: holds no queries to measure with, which every build writes; the index was altered: build it again"
    )
