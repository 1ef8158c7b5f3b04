"""Changes what an index holds: adds new and changed documents, deletes documents, merges its segments."""

import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp.errors import SettingsError
from llm2comp_indexes.builder.blocks import Splitter, make_splitter, split_into_blocks, write_blocks
from llm2comp_indexes.builder.corpora import SkipCounter, read_documents
from llm2comp_indexes.builder.finish_segment import finish_segment
from llm2comp_indexes.builder.new_segment import new_segment, segment_header
from llm2comp_indexes.encoder import Encoder, RowEncoder
from llm2comp_indexes.format.commits import Change, change_index, with_deleted
from llm2comp_indexes.format.documents import document_line
from llm2comp_indexes.format.manifest import Manifest, Segment
from llm2comp_indexes.progress import Phase, Progress, silent
from llm2comp_indexes.search.index import Index
from llm2comp_indexes.search.segment import OpenSegment
from llm2comp_indexes.structures.gpu import resolve_device

__all__ = ["AddReport", "DeleteReport", "add_documents", "delete_documents"]

_IDS_AT_ONCE = 4096


class AddReport(NamedTuple):
    """What an addition did: documents that are new, that replaced one with their id, that were there as they are, rows that were skipped; seconds."""

    added: int
    changed: int
    unchanged: int
    skipped: int
    seconds: float
    encode_seconds: float


class DeleteReport(NamedTuple):
    """How many documents were deleted, and the ids that the index does not hold."""

    deleted: int
    missing: tuple[str, ...]


def add_documents(
    folder: str | Path,
    corpora: Sequence[str | Path],
    *,
    model: str | Path | Encoder | None = None,
    device: str = "auto",
    on_error: Literal["raise", "skip"] = "raise",
    on_skip: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> AddReport:
    """Adds new documents and replaces changed ones, in one commit.

    A document is known by its id, and unchanged if its title, text and metadata are byte for byte those of the index:
    then it is not encoded again. An addition that was killed goes on behind its last finished block when it is run
    again.

    Args:
        folder: The index.
        corpora: As for `build_index`.
        model: The index's own model, if it lies elsewhere now than the index says.
        device: As for `build_index`.
        on_error: As for `build_index`.
        on_skip: As for `build_index`.
        progress: As for `build_index`.

    Raises:
        CorpusError: A corpus is missing, empty or malformed, or an id occurs twice in what is added.
        IndexFolderError: The index is damaged, of another model, or being written by another process.
    """
    resolve_device(device)
    skips, told = SkipCounter(on_skip), progress or silent
    documents = read_documents(corpora, on_error, skips)
    with (
        change_index(Path(folder)) as change,
        Index(Path(folder), _before(change), model=model, searchable=False) as index,
    ):
        encode, options = RowEncoder(index.model), index.manifest.options
        start = time.perf_counter()
        news = _Changes(index, make_splitter(options, index.model))
        blocks = split_into_blocks(news.rows(documents))
        first = next(blocks, None)
        if first is not None:
            header = segment_header(index.manifest.fingerprint, encode.dimension, options)
            with new_segment(change, encode.dimension, options, header=header) as new:
                write_blocks(
                    new.rows, chain([first], blocks), encode, on_block=lambda count: told(Phase.DOCUMENTS, count)
                )
                segment, _ = finish_segment(
                    new, options, encoder=index.model, device=device, progress=told, small_exact=True
                )
            kept = [_without(change, *replaced) for replaced in zip(index.segments, news.replaced, strict=True)]
            _commit(change, [*kept, segment])
    return AddReport(news.added, news.changed, news.unchanged, skips.count, time.perf_counter() - start, encode.seconds)


class _Deletions:
    """Rows of a segment that are to be deleted, and of how many documents they are."""

    def __init__(self) -> None:
        self.rows = array("q")
        self.documents = 0

    def add(self, rows: Sequence[int]) -> None:
        """The rows of a document."""
        self.rows.extend(rows)
        self.documents += 1


class _Changes:
    """Tells new and changed documents from those the index holds as they are."""

    def __init__(self, index: Index, split: Splitter) -> None:
        self.added = self.changed = self.unchanged = 0
        self.replaced = [_Deletions() for _ in index.segments]
        self._segments, self._split = index.segments, split

    def rows(self, documents: Iterable[Document]) -> Iterator[list[Document]]:
        """The rows of each new or changed document."""
        remaining = iter(documents)
        while block := list(islice(remaining, _IDS_AT_ONCE)):
            found = [segment.find_rows([document.id for document in block]) for segment in self._segments]
            for number, document in enumerate(block):
                rows = self._split(document)
                places = [place for place, known in enumerate(found) if known[number]]
                if not places:
                    self.added += 1
                elif any(self._same(self._segments[place], found[place][number], rows) for place in places):
                    self.unchanged += 1
                    continue
                else:
                    self.changed += 1
                    for place in places:
                        self.replaced[place].add(found[place][number])
                yield rows

    @staticmethod
    def _same(segment: OpenSegment, known: list[int], rows: Sequence[Document]) -> bool:
        return [segment.documents.line(row) for row in known] == [document_line(row) for row in rows]


def delete_documents(folder: str | Path, identifiers: Iterable[str]) -> DeleteReport:
    """Deletes the documents of these ids, in one commit; ids the index does not hold are named in the report.

    Their rows are passed over from now on, and leave the files when segments are merged.

    Raises:
        IndexFolderError: The index is damaged, or being written by another process.
        SettingsError: `identifiers` is a single string, or holds something else than strings.
    """
    if isinstance(identifiers, str):
        raise SettingsError(f"identifiers is a string, expected a list: [{identifiers[:40]!r}]")
    wanted = list(dict.fromkeys(identifiers))
    if strange := [identifier for identifier in wanted if not isinstance(identifier, str)]:
        raise SettingsError(f"identifiers hold {strange[0]!r:.40}, expected strings only")
    with change_index(Path(folder)) as change:
        held: set[str] = set()
        kept = []
        for segment in _before(change).segments:
            with OpenSegment(Path(folder), _before(change), segment, searchable=False) as opened:
                gone = _find(opened, wanted, held)
                kept.append(_without(change, opened, gone))
        if held:
            _commit(change, kept)
    return DeleteReport(len(held), tuple(identifier for identifier in wanted if identifier not in held))


def _find(segment: OpenSegment, wanted: list[str], held: set[str]) -> _Deletions:
    """Rows of the wanted documents; those that the segment holds are added to `held`."""
    gone = _Deletions()
    for start in range(0, len(wanted), _IDS_AT_ONCE):
        block = wanted[start : start + _IDS_AT_ONCE]
        for identifier, rows in zip(block, segment.find_rows(block), strict=True):
            if rows:
                gone.add(rows)
                held.add(identifier)
    return gone


def _before(change: Change) -> Manifest:
    assert change.before is not None
    return change.before


def _without(change: Change, segment: OpenSegment, gone: _Deletions) -> Segment:
    """The segment without these rows; its new bitmap is on the device."""
    if not gone.documents:
        return segment.segment
    deleted: NDArray[np.bool_] = np.zeros(segment.rows, np.bool_) if segment.alive is None else ~segment.alive
    deleted[np.frombuffer(gone.rows, np.int64)] = True
    return with_deleted(change, segment.segment, deleted, documents=segment.segment.documents - gone.documents)


def _commit(change: Change, segments: Sequence[Segment]) -> None:
    """Commits the index of these segments; one without living rows goes."""
    change.commit(
        replace(_before(change), segments=tuple(segment for segment in segments if segment.deleted < segment.rows))
    )
