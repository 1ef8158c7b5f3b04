"""Rows of an index by source: which of them are still in the sources that a sync reads."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.sources import Source, find_maker, is_content_id, source_of
from llm2comp_indexes.format.origins import UNKNOWN, Origin
from llm2comp_indexes.search.index import Index
from llm2comp_indexes.search.segment import OpenSegment

__all__ = ["StoredDocument", "TrackedRows", "group_rows"]


class StoredDocument(NamedTuple):
    """A document in the index: number of its segment, its rows there, its id and the place of its source."""

    segment: int
    rows: list[int]
    id: str
    source: int


class TrackedRows:
    """The rows of an index with their origins, and which of them belong to documents that were met in the sources.

    Attributes:
        origins: Origins of the rows of each segment. Where none are recorded, they are those of the source that made
            the id or, in an index of an earlier version, of its only source.
        changed: Whether the origins of each segment differ from those recorded.
        met: Number of documents met so far, by the place of the source that they had in the index.
    """

    def __init__(self, index: Index, listed: Sequence[Source], compared: Collection[int]) -> None:
        """Reads the origins.

        Args:
            index: The index.
            listed: Its sources, in the order of the manifest.
            compared: Places of the sources that are compared.
        """
        self._segments, self._compared = index.segments, frozenset(compared)
        self.origins = [segment.read_origins() for segment in self._segments]
        manifest = index.manifest
        earlier = not any(segment.origins_file for segment in manifest.segments)  # of a version that recorded nothing
        only = 0 if earlier and len(manifest.sources or ()) == 1 and not manifest.unlisted else None
        self.changed = [
            _fill(segment, origins.sources, listed, only)
            for segment, origins in zip(self._segments, self.origins, strict=True)
        ]
        self.met: Counter[int] = Counter()
        self._seen = [np.zeros(segment.rows, np.bool_) for segment in self._segments]

    def meet(self, segment: int, rows: list[int]) -> bool:
        """Notes that the document of these rows is in the sources, or was replaced; whether it was not noted before."""
        if self._seen[segment][rows[0]]:
            return False
        self.met[int(self.origins[segment].sources[rows[0]])] += 1
        self._seen[segment][rows] = True
        return True

    def record(self, segment: int, rows: list[int], origin: Origin) -> None:
        """Records the origin of a document that is as the index has it, unless it is of a source not compared."""
        if int(self.origins[segment].sources[rows[0]]) in (*self._compared, UNKNOWN):
            self.changed[segment] |= self.origins[segment].set(rows, origin)

    def find_of(self, sources: Collection[int], listed: Sequence[NDArray[np.bool_]]) -> Iterator[StoredDocument]:
        """Documents of these sources that are not deleted, without the rows of each segment that are listed."""
        for place, segment in enumerate(self._segments):
            chosen = np.isin(self.origins[place].sources, list(sources)) & ~listed[place]
            rows = np.flatnonzero(chosen if segment.alive is None else chosen & segment.alive)
            for identifier, its_rows in group_rows(segment, rows.tolist()):
                yield StoredDocument(place, its_rows, identifier, int(self.origins[place].sources[its_rows[0]]))

    def unmet(self) -> Iterator[StoredDocument]:
        """Documents of all sources, and of none, that were not met."""
        return self.find_of((*self._compared, UNKNOWN), self._seen)

    def vanished(self) -> Iterator[StoredDocument]:
        """Documents of the sources compared that were not met."""
        return self.find_of(self._compared, self._seen)


def group_rows(segment: OpenSegment, rows: Sequence[int]) -> Iterator[tuple[str, list[int]]]:
    """Id and rows of each document, of rows in ascending order."""
    current: list[int] = []
    identifier = ""
    for row in rows:
        parent = segment.document_id(row)
        if current and parent != identifier:
            yield identifier, current
            current = []
        identifier = parent
        current.append(row)
    if current:
        yield identifier, current


def _fill(segment: OpenSegment, recorded: NDArray[np.uint32], listed: Sequence[Source], only: int | None) -> bool:
    """Fills in sources that are not recorded; whether there were any."""
    unknown = np.flatnonzero(recorded == UNKNOWN if segment.alive is None else (recorded == UNKNOWN) & segment.alive)
    if not len(unknown) or not listed:
        return False
    if only is not None:
        recorded[unknown] = only
        return True
    places = {source.name: place for place, source in enumerate(listed)}
    filled = False
    for row in unknown.tolist():
        identifier = segment.document_id(row)
        maker = find_maker(identifier, listed)
        name = maker.name if maker else source_of(identifier) if is_content_id(identifier) else ""
        if name in places:
            recorded[row], filled = places[name], True
    return filled
