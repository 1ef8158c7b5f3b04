"""Finds the documents of corpora that an index does not hold as they are, and the rows that they replace."""

import json
import logging
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from llm2comp.corpus.columns import normalise_names
from llm2comp.corpus.documents import Document
from llm2comp.corpus.entry import Entry
from llm2comp.corpus.sources import Source, is_content_id, source_of
from llm2comp.errors import CorpusError
from llm2comp_indexes.builder.blocks import DocumentRows
from llm2comp_indexes.builder.chunks import RowMaker
from llm2comp_indexes.builder.corpora import without_file_time
from llm2comp_indexes.format.documents import document_line
from llm2comp_indexes.format.origins import Origin
from llm2comp_indexes.search.index import Index
from llm2comp_indexes.search.segment import OpenSegment

_logger = logging.getLogger(__name__)

__all__ = ["IDS_AT_ONCE", "Changes", "Deletions"]

IDS_AT_ONCE = 4096
"""Number of ids that are looked up together."""


class Deletions:
    """Rows of a segment to delete.

    Attributes:
        rows: The rows.
        documents: Number of documents that they belong to.
    """

    def __init__(self) -> None:
        self.rows = array("q")
        self.documents = 0

    def add(self, rows: Sequence[int]) -> None:
        """Adds the rows of one document."""
        self.rows.extend(rows)
        self.documents += 1


class Changes:
    """Finds the documents that are new or changed, and the rows that they replace.

    Attributes:
        added: Number of new documents so far.
        changed: Number of changed documents so far.
        unchanged: Number of documents so far that the index holds already.
        replaced: For each segment, the rows of changed documents.
        made: Sources so far that made the id of a document.

    Raises:
        CorpusError: A document that the index holds would be replaced by another, under an id that was made for one of
            the two.
    """

    def __init__(self, index: Index, split: RowMaker, sources: Sequence[Source], listed: Sequence[Source]) -> None:
        """Compares with the index.

        Args:
            index: The index.
            split: Makes rows of a document.
            sources: Sources of the documents.
            listed: All sources that the next manifest lists, in its order.
        """
        self.added = self.changed = self.unchanged = 0
        self.replaced = [Deletions() for _ in index.segments]
        self.made: set[Source] = set()
        self._segments, self._split = index.segments, split
        self._unlisted = index.manifest.unlisted
        self._sources = {source.name: source for source in sources}
        self._names = {source.name for source in index.manifest.sources or ()}
        self._places = {source.name: place for place, source in enumerate(listed)}
        self._again = dict.fromkeys(self._sources, False)  # whether a row came that the index has

    def warn_of_strangers(self) -> None:
        """Logs one line for each known source of files whose rows have no ids, if none of its rows came again."""
        for source in self.made:
            is_stream = source.root in ("-", "rows")  # of which each batch is another one
            if source.files or source.positions or is_stream or self._again[source.name]:
                continue
            if source.name in self._names and any(part.find_id_below(source.name, "#") for part in self._segments):
                _logger.warning(
                    '%s: in the index as "%s", and none of its rows came again: rows without ids are known by their '
                    "content, so all were added beside those of before; if columns were renamed, added or left out, "
                    "build the index again, or choose a column of ids (--id-field) then",
                    source.root,
                    source.name,
                )

    def rows(self, entries: Iterable[Entry]) -> Iterator[DocumentRows]:
        """The rows of each new or changed document."""
        remaining = iter(entries)
        while block := list(islice(remaining, IDS_AT_ONCE)):
            known = [segment.find_rows([entry.document.id for entry in block]) for segment in self._segments]
            for number, entry in enumerate(block):
                rows = self._split(entry.document)
                name = source_of(entry.document.id) if entry.earlier_id else None
                before = {place: known_rows[number] for place, known_rows in enumerate(known) if known_rows[number]}
                if name:
                    self.made.add(self._sources[name])
                    self._again[name] |= bool(before)
                if not before:
                    if self._unlisted and self._holds_earlier(entry):
                        self.unchanged += 1
                        continue
                    self._take_new(entry, rows)
                elif any(
                    self._same(self._segments[place], known_rows, rows, self._prepare(name))
                    for place, known_rows in before.items()
                ):
                    self._keep(before, self._origin(entry))
                    continue
                else:
                    self._check_replacement(entry.document.id, made=name is not None)
                    self._replace(before)
                yield DocumentRows(rows, self._origin(entry))

    def _origin(self, entry: Entry) -> Origin:
        return Origin(self._places[entry.source], entry.stamp)

    def _take_new(self, entry: Entry, rows: Sequence[Document]) -> None:
        """Counts a document that the index does not hold."""
        self.added += 1

    def _keep(self, before: Mapping[int, list[int]], origin: Origin) -> None:
        """Counts a document that the index holds as it is, in these rows of these segments."""
        self.unchanged += 1

    def _replace(self, before: Mapping[int, list[int]]) -> None:
        """Counts a document that replaces these rows of these segments."""
        self.changed += 1
        for place, rows in before.items():
            self.replaced[place].add(rows)

    def _check_replacement(self, identifier: str, *, made: bool) -> None:
        """Refuses to replace a document under an id made of its content, which stays the same as long as the id does.

        Args:
            identifier: Id of the document and of the one that would replace it.
            made: Whether a source made it for the latter, rather than its corpus gave it.
        """
        if not is_content_id(identifier):
            return
        if made:
            raise CorpusError(
                f"{identifier}: the id made for it is one that the index holds another document under; give the source "
                "another name (--source NAME)"
            )
        if source_of(identifier) in self._names:
            raise CorpusError(
                f"{identifier}: in the index for another document, of whose content this id was made; give this one "
                "another id, or delete the other first (llm2comp index delete)"
            )

    def _holds_earlier(self, entry: Entry) -> bool:
        """Whether the index holds the document under the id that version 0.1.0 made for it.

        Raises:
            CorpusError: It holds another one under that id: one from elsewhere, or this one before it was changed.
        """
        if entry.earlier_id is None:
            return False
        known = [segment.find_rows([entry.earlier_id])[0] for segment in self._segments]
        if not any(known):
            return False
        rows = self._split(replace(entry.document, id=entry.earlier_id))
        if any(self._same(segment, part, rows) for segment, part in zip(self._segments, known, strict=True) if part):
            return True
        raise CorpusError(
            f"{entry.earlier_id}: in the index with other content, added by version 0.1.0, which did not record where "
            "from: it cannot be told whether it was changed or is another document; build the index again (llm2comp "
            "index build), or delete this id first (llm2comp index delete)"
        )

    def _prepare(self, name: str | None) -> Callable[[Document], Document]:
        """A function that takes out of documents, with ids that this source made, in what the same ones may differ.

        That is when a file was changed, and the case of names, on which ids made of content do not depend.
        """
        source = self._sources[name] if name else None
        if source is not None and source.files:
            return without_file_time
        return _with_normal_names if source is not None and not source.positions else _as_it_is

    @staticmethod
    def _same(
        segment: OpenSegment,
        known: list[int],
        rows: Sequence[Document],
        prepare: Callable[[Document], Document] | None = None,
    ) -> bool:
        """Whether the rows are those of the segment; the order of metadata does not count."""
        if [segment.documents.line(row) for row in known] == [document_line(row) for row in rows]:
            return True
        prepare = prepare or _as_it_is
        return len(known) == len(rows) and all(
            document_line(_in_order(prepare(segment.documents[row]))) == document_line(_in_order(prepare(new)))
            for row, new in zip(known, rows, strict=True)
        )


def _as_it_is(document: Document) -> Document:
    return document


def _with_normal_names(document: Document) -> Document:
    return replace(document, metadata=normalise_names(document.metadata))


def _in_order(document: Document) -> Document:
    """The document with its metadata in the order of the names, nested ones too."""
    return replace(document, metadata=json.loads(json.dumps(document.metadata, sort_keys=True)))
