"""Additions and deletions of documents, each in one commit."""

import json
import logging
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.columns import normalise_names
from llm2comp.corpus.documents import Document
from llm2comp.corpus.fields import FieldNames
from llm2comp.corpus.read import Entry
from llm2comp.corpus.report import SkipCounter
from llm2comp.corpus.rows import as_corpora
from llm2comp.corpus.sources import Source, is_content_id, source_of
from llm2comp.corpus.table_format import TableFormat
from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import CorpusError, SettingsError
from llm2comp_indexes.builder.blocks import split_into_blocks, write_blocks
from llm2comp_indexes.builder.chunks import RowMaker, make_splitter, make_text_of_row
from llm2comp_indexes.builder.corpora import find_sources, open_corpora, without_file_time
from llm2comp_indexes.builder.finish_segment import finish_segment
from llm2comp_indexes.builder.new_segment import new_segment, segment_header
from llm2comp_indexes.change.small_segments import merge_small_segments
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
_logger = logging.getLogger(__name__)


class AddReport(NamedTuple):
    """Result of an addition.

    Attributes:
        added: Number of new documents.
        changed: Number of documents that replaced one with their id.
        unchanged: Number of documents that the index held already.
        skipped: Number of malformed or duplicate rows left out (with `on_error="skip"`).
        seconds: Duration of the addition.
        encode_seconds: Duration of the encoding alone.
        cut: As for `build_index`.
        empty: As for `build_index`; a document that the index holds stays, as do others that left their corpus.
    """

    added: int
    changed: int
    unchanged: int
    skipped: int
    seconds: float
    encode_seconds: float
    cut: int = 0
    empty: int = 0


class DeleteReport(NamedTuple):
    """Result of a deletion.

    Attributes:
        deleted: Number of documents deleted.
        missing: Ids that the index does not hold.
    """

    deleted: int
    missing: tuple[str, ...]


def add_documents(
    folder: str | Path,
    corpora: str | Path | Iterable[Any],
    *,
    model: str | Path | Encoder | None = None,
    device: str = "auto",
    on_error: Literal["raise", "skip"] = "raise",
    on_skip: Callable[[str], None] | None = None,
    progress: Progress | None = None,
    header: bool | None = None,
    quotes: bool | None = None,
    fields: FieldNames | None = None,
    source: str | None = None,
    ids_are_positions: bool = False,
    csv_strings: bool = False,
    separator: str | None = None,
    encoding: str | None = None,
    encoder: EncoderOptions | None = None,
) -> AddReport:
    """Adds new documents and replaces changed ones, in one commit.

    A document is unchanged, and not encoded again, if its title, text and metadata are byte for byte those that the
    index holds under its id; the time at which a file was changed does not count. A killed addition resumes after its
    last finished block when it is run again.

    Args:
        folder: Folder of the index.
        corpora: As for `build_index`.
        model: The model of the index, if it is not where the index says.
        device: As for `build_index`.
        on_error: As for `build_index`.
        on_skip: As for `build_index`.
        progress: As for `build_index`.
        header: As for `build_index`.
        quotes: As for `build_index`.
        fields: As for `build_index`; None: those that a known source was added with, whose ids keep their field.
        source: Name of the source, as for `build_index`; that of a source of the index means that source, whichever its
            path was. None: the source that was added from this path, or else a new one.
        ids_are_positions: As for `build_index`; a known source keeps to what it was added with.
        csv_strings: As for `build_index`; columns of a known source keep their types, and a row with a value of
            another type is malformed. Sources added before types were recorded are text.
        separator: As for `build_index`.
        encoding: As for `build_index`.
        encoder: Where and how the model runs; options that change vectors are those of the index.

    Raises:
        CorpusError: A corpus is missing, empty or malformed, or an id occurs twice in the corpora.
        IndexFolderError: The index is damaged, of another model, or being written by another process.
        SettingsError: An option that changes vectors is not that of the index.
    """
    resolve_device(device)
    skips, show = SkipCounter(on_skip), progress or silent
    with (
        change_index(Path(folder)) as change,
        Index(Path(folder), _before(change), model=model, encoder=encoder, searchable=False) as index,
    ):
        known = index.manifest.sources or ()
        layout = TableFormat(header, quotes, separator, encoding)
        inputs = as_corpora(corpora)
        sources = find_sources(
            inputs,
            known,
            name=source,
            positions=ids_are_positions,
            fields=fields,
            strings=csv_strings or index.manifest.unlisted,  # as version 0.1.0 indexed them
            bare_texts=index.manifest.unlisted,
            layout=layout,
        )
        _check_names(index, sources)
        before = {one.name: one for one in known}
        entries = _check_made_ids(
            open_corpora(inputs, sources, on_error, skips, layout=layout, known=known), sources, before
        )
        options = index.manifest.options
        batch_size = encoder.batch_size if encoder else None
        encode = RowEncoder(index.model, make_text_of_row(options, index.model), batch_size=batch_size)
        start = time.perf_counter()
        split = make_splitter(options, index.model, fields=index.manifest.chunk_fields)
        changes = _Changes(index, split, sources)
        blocks = split_into_blocks(changes.rows(entries))
        listed = tuple({source.name: source for source in [*known, *sources]}.values())
        first = next(blocks, None)
        if first is not None:
            made_with = (index.manifest.fingerprint, encode.dimension, options, index.manifest.encoder)
            segment_facts = segment_header(*made_with)
            with new_segment(change, encode.dimension, options, header=segment_facts) as new:
                write_blocks(
                    new.rows,
                    chain([first], blocks),
                    encode,
                    on_block=lambda count: show(Phase.DOCUMENTS, count),
                    batch_size=batch_size,
                )
                segment, _ = finish_segment(
                    new, options, encoder=index.model, device=device, progress=show, small_exact=True
                )
            kept = [_without(change, *replaced) for replaced in zip(index.segments, changes.replaced, strict=True)]
            manifest = replace(index.manifest, dimension=encode.dimension)  # an index made empty did not know it
            _commit(change, manifest, merge_small_segments(change, manifest, [*kept, segment]), listed)
            changes.warn_of_strangers()
        elif not changes.made <= set(known) or any(before.get(one.name, one) != one for one in sources):
            _commit(change, index.manifest, index.manifest.segments, listed)
    counts = (changes.added, changes.changed, changes.unchanged, skips.count)
    return AddReport(*counts, time.perf_counter() - start, encode.seconds, split.cut, skips.empty)


def _check_made_ids(
    entries: Iterator[Entry], sources: Sequence[Source], before: Mapping[str, Source]
) -> Iterator[Entry]:
    """The entries, unless ids made of content would change because a source is read with other fields than before."""
    others = {
        one.name
        for one in sources
        if not one.positions and not one.files and before.get(one.name, one).fields != one.fields
    }
    for entry in entries:
        if entry.earlier_id is not None and source_of(entry.document.id) in others:
            raise CorpusError(
                f'the source "{source_of(entry.document.id)}" was added with other fields, and its rows have no ids: '
                "they would be added once more; leave out the names of fields, or give it another name (--source NAME)"
            )
        yield entry


class _Deletions:
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


class _Changes:
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

    def __init__(self, index: Index, split: RowMaker, sources: Sequence[Source]) -> None:
        self.added = self.changed = self.unchanged = 0
        self.replaced = [_Deletions() for _ in index.segments]
        self.made: set[Source] = set()
        self._segments, self._split = index.segments, split
        self._unlisted = index.manifest.unlisted
        self._sources = {source.name: source for source in sources}
        self._names = {source.name for source in index.manifest.sources or ()}
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

    def rows(self, entries: Iterable[Entry]) -> Iterator[list[Document]]:
        """The rows of each new or changed document."""
        remaining = iter(entries)
        while block := list(islice(remaining, _IDS_AT_ONCE)):
            known = [segment.find_rows([entry.document.id for entry in block]) for segment in self._segments]
            for number, entry in enumerate(block):
                rows = self._split(entry.document)
                name = source_of(entry.document.id) if entry.earlier_id else None
                places = [place for place, known_rows in enumerate(known) if known_rows[number]]
                if name:
                    self.made.add(self._sources[name])
                    self._again[name] |= bool(places)
                if not places:
                    if self._unlisted and self._holds_earlier(entry):
                        self.unchanged += 1
                        continue
                    self.added += 1
                elif any(
                    self._same(self._segments[place], known[place][number], rows, self._prepare(name))
                    for place in places
                ):
                    self.unchanged += 1
                    continue
                else:
                    self._check_replacement(entry.document.id, made=name is not None)
                    self.changed += 1
                    for place in places:
                        self.replaced[place].add(known[place][number])
                yield rows

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


def _check_names(index: Index, sources: Sequence[Source]) -> None:
    """Refuses a source that would make ids of paths which other documents of the index may have.

    Raises:
        CorpusError: There is an id that begins with its name, and the source made no such ids before.
    """
    makers = {source.name for source in index.manifest.sources or () if source.paths}
    for source in {source for source in sources if source.paths and source.name not in makers}:
        hits = (segment.find_id_below(source.name) for segment in index.segments)
        if (identifier := next(filter(None, hits), None)) is not None:
            raise CorpusError(
                f'the index holds the id "{identifier:.80}", which the source "{source.name}" did not make, though ids '
                "made for it begin like that; give the source another name (--source NAME)"
            )


def delete_documents(folder: str | Path, identifiers: Iterable[str], *, wait: float = 0.0) -> DeleteReport:
    """Deletes documents by id, in one commit; ids that the index does not hold are listed in the report.

    Searches skip their rows from now on; a merge removes them from the files.

    Args:
        folder: Folder of the index.
        identifiers: Ids of the documents.
        wait: Seconds to wait for another writer.

    Raises:
        IndexFolderError: The index is damaged, or being written by another process.
        SettingsError: `identifiers` is a single string, or holds anything but strings.
    """
    if isinstance(identifiers, str):
        raise SettingsError(f"identifiers is a string, expected a list: [{identifiers[:40]!r}]")
    unique = list(dict.fromkeys(identifiers))
    if strange := [identifier for identifier in unique if not isinstance(identifier, str)]:
        raise SettingsError(f"identifiers hold {strange[0]!r:.40}, expected strings only")
    with change_index(Path(folder), wait=wait) as change:
        deleted: set[str] = set()
        kept = []
        for segment in _before(change).segments:
            with OpenSegment(Path(folder), _before(change), segment, searchable=False) as opened:
                deletions = _find(opened, unique, deleted)
                kept.append(_without(change, opened, deletions))
        if deleted:
            _commit(change, _before(change), kept)
    return DeleteReport(len(deleted), tuple(identifier for identifier in unique if identifier not in deleted))


def _find(segment: OpenSegment, identifiers: list[str], deleted: set[str]) -> _Deletions:
    """Rows of the documents with these ids; ids that the segment holds are added to `deleted`."""
    deletions = _Deletions()
    for start in range(0, len(identifiers), _IDS_AT_ONCE):
        block = identifiers[start : start + _IDS_AT_ONCE]
        for identifier, rows in zip(block, segment.find_rows(block), strict=True):
            if rows:
                deletions.add(rows)
                deleted.add(identifier)
    return deletions


def _before(change: Change) -> Manifest:
    assert change.before is not None
    return change.before


def _without(change: Change, segment: OpenSegment, deletions: _Deletions) -> Segment:
    """The segment without these rows; its new bitmap is on the device."""
    if not deletions.documents:
        return segment.segment
    deleted: NDArray[np.bool_] = np.zeros(segment.rows, np.bool_) if segment.alive is None else ~segment.alive
    deleted[np.frombuffer(deletions.rows, np.int64)] = True
    return with_deleted(change, segment.segment, deleted, documents=segment.segment.documents - deletions.documents)


def _commit(
    change: Change, before: Manifest, segments: Sequence[Segment], sources: tuple[Source, ...] | None = None
) -> None:
    """Commits the index of these segments, without those in which all rows are deleted, and of these sources."""
    alive = tuple(segment for segment in segments if segment.deleted < segment.rows)
    change.commit(replace(before, segments=alive, sources=before.sources if sources is None else sources))
