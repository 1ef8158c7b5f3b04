"""What a sync finds: new, changed, renamed, unchanged and vanished documents of the sources compared."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from llm2comp.corpus.documents import Document
from llm2comp.corpus.entry import Entry
from llm2comp.corpus.files.stamp import find_stamp
from llm2comp.corpus.report import count_rows
from llm2comp.corpus.sources import Source
from llm2comp.errors import CorpusError
from llm2comp_indexes.builder.chunks import RowMaker
from llm2comp_indexes.change.compare import Changes
from llm2comp_indexes.change.renamed import UnlistedFiles
from llm2comp_indexes.change.tracking import TrackedRows
from llm2comp_indexes.format.origins import Origin
from llm2comp_indexes.search.index import Index

__all__ = ["KnownFiles", "SyncChanges"]


class SyncChanges(Changes):
    """Compares sources with the documents that the index has of them.

    Attributes:
        renamed: Number of documents so far that are under another id now.
        stored: By the id of a row of a renamed document: number of the segment and row whose vector it has.
        failed: Number of files so far that are there, but could not be read; their documents stay.
        vanished: Ids of the documents that are in the sources no more, after `finish`.
    """

    def __init__(
        self,
        index: Index,
        split: RowMaker,
        sources: Sequence[Source],
        listed: Sequence[Source],
        tracked: TrackedRows,
        unlisted: UnlistedFiles,
    ) -> None:
        super().__init__(index, split, sources, listed)
        self.renamed = self.failed = 0
        self.stored: dict[str, tuple[int, int]] = {}
        self.vanished: tuple[str, ...] = ()
        self._tracked, self._unlisted_files = tracked, unlisted
        self._vanished_of = Counter[int]()

    def find(self, identifier: str) -> dict[int, list[int]]:
        """Rows of the document with this id, by the number of their segment."""
        rows = (segment.find_rows([identifier])[0] for segment in self._segments)
        return {place: its_rows for place, its_rows in enumerate(rows) if its_rows}

    def keep_file(self, identifier: str, origin: Origin) -> bool:
        """Counts the document as unchanged if it has this origin; whether it has."""
        before = self.find(identifier)
        if not before or any(self._tracked.origins[place][rows[0]] != origin for place, rows in before.items()):
            return False
        self._keep(before, origin)
        return True

    def keep_failed(self, identifier: str) -> None:
        """Notes that the document of this id is in its source, as something that could not be read."""
        self.failed += 1
        self._meet(self.find(identifier))

    def finish(self) -> None:
        """Adds the documents that were not met to those that are deleted."""
        vanished = []
        for document in self._tracked.vanished():
            vanished.append(document.id)
            self._vanished_of[document.source] += 1
            self.replaced[document.segment].add(document.rows)
        self.vanished = tuple(vanished)

    def refuse_losses(self, corpora: Mapping[int, str], *, skipped: int) -> None:
        """Raises CorpusError if so many documents vanished that the sources may be others than they should.

        Args:
            corpora: Name of the corpus by the place of its source.
            skipped: Number of rows and files that were skipped.
        """
        for place, count in self._vanished_of.items():
            if 2 * count > (total := count + self._tracked.met[place]):
                raise CorpusError(
                    f"{corpora[place]}: {count:,} of its {total:,} documents in the index are not there any more, more "
                    "than half; nothing was changed: if that is right, run this again with --yes (yes=True)"
                )
        if self.vanished and (unreadable := skipped - self.failed) > 0:
            raise CorpusError(
                f"{', '.join(corpora.values())}: {count_rows(unreadable)} could not be read, and as documents of the "
                f"index {len(self.vanished):,} are not there any more, which may be the same; nothing was changed: "
                "correct the rows, or run this again with --yes (yes=True)"
            )

    def _take_new(self, entry: Entry, rows: Sequence[Document]) -> None:
        document = self._unlisted_files.take(rows) if entry.earlier_id is not None else None
        if document is None:
            super()._take_new(entry, rows)
            return
        self.renamed += 1
        self._tracked.meet(document.segment, document.rows)
        self.replaced[document.segment].add(document.rows)
        self.stored |= {row.id: (document.segment, old) for row, old in zip(rows, document.rows, strict=True)}

    def _keep(self, before: Mapping[int, list[int]], origin: Origin) -> None:
        super()._keep(before, origin)
        self._meet(before)
        for place, rows in before.items():
            self._tracked.record(place, rows, origin)

    def _replace(self, before: Mapping[int, list[int]]) -> None:
        super()._replace(before)
        self._meet(before)

    def _meet(self, before: Mapping[int, list[int]]) -> None:
        for place, rows in before.items():
            self._tracked.meet(place, rows)


class KnownFiles:
    """The files of a source that need not be read, as their size and time are those recorded.

    Attributes:
        unchanged: Number of files so far that were not read.
    """

    def __init__(self, changes: SyncChanges, source: int, *, full: bool) -> None:
        """Checks the files of a source.

        Args:
            changes: Receives what is known without being read.
            source: Place of the source in the manifest.
            full: Whether all files are read.
        """
        self.unchanged = 0
        self._changes, self._source, self._full = changes, source, full

    def is_unchanged(self, identifier: str, path: Path) -> bool:
        """Whether the document of this id was made of the file as it is now; then it is counted."""
        stamp = None if self._full else find_stamp(path)
        known = stamp is not None and self._changes.keep_file(identifier, Origin(self._source, stamp))
        self.unchanged += known
        return known

    def note_failed(self, identifier: str) -> None:
        """Keeps the document of a file that is there, but could not be read."""
        self._changes.keep_failed(identifier)
