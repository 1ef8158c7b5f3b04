"""Rewrites an index as one segment without deleted rows, optionally with other options."""

import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from llm2comp.errors import SettingsError
from llm2comp_indexes.builder.finish_segment import check_feasible, finish_segment
from llm2comp_indexes.builder.new_segment import new_segment, segment_header
from llm2comp_indexes.change.living_rows import draw_queries, read_living_blocks, read_queries
from llm2comp_indexes.format.chunks import CHUNK_FIELDS
from llm2comp_indexes.format.commits import Change, change_index
from llm2comp_indexes.format.manifest import Manifest
from llm2comp_indexes.format.segment import Segment
from llm2comp_indexes.options import IndexOptions
from llm2comp_indexes.progress import Phase, Progress, silent
from llm2comp_indexes.structures.types import parse_type
from llm2comp_indexes.tuning.report import Report

__all__ = ["MergeReport", "merge_index"]

_FIXED = (
    *("store", "memory_vectors", "chunk_tokens", "chunk_overlap", "chunk_at", "chunk_context"),
    *("chunk_fidelity", "chunk_reader"),
)


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
    start, path = time.perf_counter(), Path(folder)
    with change_index(path) as change:
        assert change.before is not None
        before = change.before
        chosen = options or before.options
        check_feasible(chosen, device)
        _check(chosen, before)
        dropped = sum(segment.deleted for segment in before.segments)
        if chosen == before.options and _is_merged(before):
            return MergeReport(len(before.segments), 0, time.perf_counter() - start, None)
        segments, measured = (
            _rewrite(path, change, before, chosen, device, progress or silent) if before.segments else ((), None)
        )
        merged = replace(before, options=chosen, segments=segments, chunk_fields=CHUNK_FIELDS)
        change.commit(merged, keep=False)  # to free the space of what is deleted
    return MergeReport(len(before.segments), dropped, time.perf_counter() - start, measured)


def _check(options: IndexOptions, before: Manifest) -> None:
    """Raises SettingsError, before anything is written, if a merge cannot apply the options."""
    if changed := [name for name in _FIXED if getattr(options, name) != getattr(before.options, name)]:
        raise SettingsError(
            f"a merge cannot change {', '.join(changed)}: that needs the texts encoded again: llm2comp index "
            "rebuild (rebuild_index)"
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
    queries = read_queries(folder, before, before.segments) or draw_queries(folder, before, before.segments)
    header = {"merge": before.commit, **segment_header(before.fingerprint, before.dimension, options, before.encoder)}
    with new_segment(change, before.dimension, options, header=header, memory=before.memory) as new:
        writer = new.rows
        for rows, vectors, origins, memory in read_living_blocks(folder, before, before.segments, chunk_fields=True):
            if not writer.has(rows, origins):
                writer.append(rows, vectors, origins, memory=memory)
            progress(Phase.DOCUMENTS, writer.documents)
        segment, measured = finish_segment(new, options, queries=queries, device=device, progress=progress)
    return (segment,), measured
