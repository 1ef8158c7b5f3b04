"""Small segments, merged in the commit that adds one more, so that many small additions leave few segments."""

from collections.abc import Sequence
from dataclasses import replace

from llm2comp_indexes.builder.finish_segment import finish_segment, finish_unmeasured
from llm2comp_indexes.builder.new_segment import new_segment, segment_header
from llm2comp_indexes.change.living_rows import read_living_blocks, read_queries
from llm2comp_indexes.format.commits import Change
from llm2comp_indexes.format.manifest import Manifest
from llm2comp_indexes.format.segment import Segment

__all__ = ["merge_small_segments", "plan_merges"]

_MERGED_AT_ONCE = 10
"""Number of neighbours of one size class that are merged; a class spans a factor of ten, so that a row is rewritten
once per class."""
_LARGEST = 10_000
"""Number of rows from which a segment is no longer merged here: `merge_index` makes one structure of all."""
_MOST_REWRITTEN = 100_000
"""Number of rows up to which a segment is rewritten because most of its rows are deleted."""


def merge_small_segments(change: Change, manifest: Manifest, segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """The segments that the commit before left, small ones merged where ten neighbours of one size are.

    Rows keep their order, deleted ones are left out, nothing is encoded. A commit rewrites fewer than 100,000 rows, and
    on average an added row is rewritten at most four times. The files of the merged segments are removed by the commit.
    A new segment is merged by a later commit, so that a killed one, whose merge is made again, keeps what was encoded.

    Args:
        change: The change of the index.
        manifest: The commit before, for options and dimension.
        segments: Its segments, without the rows that the change deletes.
    """
    alive = [segment for segment in segments if segment.deleted < segment.rows]
    return tuple(
        run[0] if len(run) == 1 and not _is_mostly_deleted(run[0]) else _rewrite(change, manifest, run)
        for run in plan_merges(alive)
    )


def plan_merges(segments: Sequence[Segment]) -> list[tuple[Segment, ...]]:
    """The segments in their order, those to be merged together."""
    runs: list[tuple[Segment, ...]] = [(segment,) for segment in segments]
    while (run := _find_run([_count_rows(run) for run in runs])) is not None:
        runs[run] = [tuple(segment for part in runs[run] for segment in part)]
    return runs


def _count_rows(run: Sequence[Segment]) -> int | None:
    """Rows that a segment made of these would have; None if it would have too many, or they have a structure."""
    rows = sum(segment.rows - segment.deleted for segment in run)
    return rows if rows < _LARGEST and all(segment.type == "Flat" for segment in run) else None


def _find_run(sizes: Sequence[int | None]) -> slice | None:
    """The last ten or more neighbours of one size class, or of a smaller one between them; None if there are none."""
    end, digits = len(sizes), 0
    for place in range(len(sizes) - 1, -2, -1):
        size = sizes[place] if place >= 0 else None
        larger = size is None or len(str(size)) > digits
        if larger and digits and end - (place + 1) >= _MERGED_AT_ONCE:
            return slice(place + 1, end)
        if size is None:
            end, digits = place, 0
        elif larger:
            end, digits = place + 1, len(str(size))
    return None


def _is_mostly_deleted(segment: Segment) -> bool:
    rows = segment.rows - segment.deleted
    return segment.type == "Flat" and segment.deleted > rows and rows < _MOST_REWRITTEN


def _rewrite(change: Change, manifest: Manifest, run: Sequence[Segment]) -> Segment:
    """One segment of the rows that are not deleted, without a structure."""
    header = segment_header(manifest.fingerprint, manifest.dimension, manifest.options, manifest.encoder)
    header |= {"merged": [segment.name for segment in run], "commit": change.commit_number}
    form = manifest.memory
    with new_segment(change, manifest.dimension, manifest.options, header=header, memory=form) as new:
        for rows, vectors, origins, memory in read_living_blocks(change.folder, manifest, run):
            new.rows.append(rows, vectors, origins, memory=memory, resumable=False)
        queries = read_queries(change.folder, manifest, run)
        if queries is None:
            return finish_unmeasured(new)
        return finish_segment(new, replace(manifest.options, type="flat"), queries=queries)[0]
