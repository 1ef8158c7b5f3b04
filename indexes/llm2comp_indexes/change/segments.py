"""The segments of a commit: what was deleted from those before, and the new one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp.corpus.sources import Source
from llm2comp_indexes.builder.blocks import RowBlock, write_blocks
from llm2comp_indexes.builder.finish_segment import finish_segment
from llm2comp_indexes.builder.new_segment import new_segment, segment_header
from llm2comp_indexes.change.compare import Deletions
from llm2comp_indexes.encoder import RowVectors
from llm2comp_indexes.format.commits import Change, with_deleted
from llm2comp_indexes.format.manifest import Manifest
from llm2comp_indexes.format.segment import Segment
from llm2comp_indexes.progress import Progress
from llm2comp_indexes.search.index import Index
from llm2comp_indexes.search.segment import OpenSegment

__all__ = ["before_change", "commit", "without_rows", "write_segment"]


def before_change(change: Change) -> Manifest:
    """The commit that a change of an existing index starts from."""
    assert change.before is not None
    return change.before


def without_rows(change: Change, segment: OpenSegment, deletions: Deletions) -> Segment:
    """The segment without these rows; its new bitmap is on the device."""
    if not deletions.documents:
        return segment.segment
    deleted: NDArray[np.bool_] = np.zeros(segment.rows, np.bool_) if segment.alive is None else ~segment.alive
    deleted[np.frombuffer(deletions.rows, np.int64)] = True
    return with_deleted(change, segment.segment, deleted, documents=segment.segment.documents - deletions.documents)


def write_segment(
    change: Change,
    index: Index,
    manifest: Manifest,
    blocks: Iterator[RowBlock],
    encode: Callable[[Sequence[Document]], RowVectors],
    *,
    device: str,
    progress: Progress,
    batch_size: int | None = None,
) -> Segment | None:
    """The finished segment of these rows, encoded; None if there are none. It gets no structure if it is small."""
    first = next(blocks, None)
    if first is None:
        return None
    header = segment_header(manifest.fingerprint, manifest.dimension, manifest.options, manifest.encoder)
    form = manifest.memory
    with new_segment(change, manifest.dimension, manifest.options, header=header, memory=form) as new:
        write_blocks(
            new.rows,
            chain([first], blocks),
            encode,
            progress=progress,
            batch_size=batch_size,
        )
        segment, _ = finish_segment(
            new, manifest.options, encoder=index.model, device=device, progress=progress, small_exact=True
        )
    return segment


def commit(
    change: Change, before: Manifest, segments: Sequence[Segment], sources: tuple[Source, ...] | None = None
) -> None:
    """Commits the index of these segments, without those in which all rows are deleted, and of these sources."""
    alive = tuple(segment for segment in segments if segment.deleted < segment.rows)
    change.commit(replace(before, segments=alive, sources=before.sources if sources is None else sources))
