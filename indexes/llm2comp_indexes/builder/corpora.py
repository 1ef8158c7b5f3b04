"""Documents of several corpora as one stream, with a count of the rows skipped."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from llm2comp.corpus.documents import Document
from llm2comp.corpus.entry import Entry
from llm2comp.corpus.fields import FieldNames
from llm2comp.corpus.files.read import FILE_TIME
from llm2comp.corpus.files.stamp import FileCheck
from llm2comp.corpus.id_set import IdSet
from llm2comp.corpus.read import read_entries, with_types
from llm2comp.corpus.report import Report, SkipCounter, choose_report, count_rows
from llm2comp.corpus.rows import Rows
from llm2comp.corpus.share import Share
from llm2comp.corpus.sources import Source, find_maker, name_sources
from llm2comp.corpus.table_format import TableFormat
from llm2comp.errors import CorpusError, SettingsError
from llm2comp_indexes.builder.blocks import DocumentRows
from llm2comp_indexes.format.chunks import CHUNK_FIELDS, PLACE_FIELDS
from llm2comp_indexes.format.metadata import find_shared_name
from llm2comp_indexes.format.origins import Origin

__all__ = ["RESERVED_FIELDS", "check_limit", "find_sources", "open_corpora", "split_entries", "without_file_time"]

RESERVED_FIELDS = (*CHUNK_FIELDS, *PLACE_FIELDS, "llm2comp_title", "llm2comp_score")
"""Fields of metadata that chunks and the retrievers for LlamaIndex and LangChain add."""

_logger = logging.getLogger(__name__)


def find_sources(
    corpora: Sequence[str | Path | Rows],
    known: Sequence[Source] = (),
    *,
    name: str | None = None,
    positions: bool = False,
    fields: FieldNames | None = None,
    strings: bool = False,
    bare_texts: bool = False,
    layout: TableFormat,
) -> list[Source]:
    """The source of each corpus, with the types of its columns; see `name_sources` and `with_types`.

    Raises:
        SettingsError: `corpora` is empty, or the name, the kind of ids or their field does not fit.
    """
    if not corpora:
        raise SettingsError(f"corpora is {corpora!r}, expected a list of at least one corpus")
    sources = name_sources(
        corpora, known, name=name, positions=positions, fields=fields, strings=strings, bare_texts=bare_texts
    )
    return [with_types(corpus, source, layout) for corpus, source in zip(corpora, sources, strict=True)]


def check_limit(limit: int | None) -> None:
    """Raises SettingsError unless the number of documents to read is at least 1, or None for all."""
    if limit is not None and limit < 1:
        raise SettingsError(f"limit is {limit}, expected a number of documents of at least 1")


def without_file_time(document: Document) -> Document:
    """The document of a file without the time of its last change, which copies of the file do not share."""
    fields = {name: value for name, value in document.metadata.items() if name != FILE_TIME}
    return replace(document, metadata=fields)


def open_corpora(
    corpora: Sequence[str | Path | Rows],
    sources: Sequence[Source],
    on_error: Literal["raise", "skip"],
    skip: SkipCounter,
    *,
    layout: TableFormat,
    known: Sequence[Source] = (),
    keep_empty: bool = False,
    checks: Sequence[FileCheck] = (),
    share: Share | None = None,
) -> Iterator[Entry]:
    """Documents of all corpora. Each is opened at once, so that a missing one is reported before anything is loaded.

    Args:
        corpora: As `read_corpus` takes them.
        sources: The source of each.
        on_error: Whether a malformed row raises an error or is skipped.
        skip: Counts skipped rows, and rows without title and text.
        layout: How .csv and .tsv files are read.
        known: Sources of the index so far.
        keep_empty: Whether rows without title and text are documents too, as for vectors that were made of them.
        checks: For each corpus, which of its files are not read; empty: all are.
        share: The part that is read of a single corpus; one that is not the whole may be empty. None: all.

    Raises:
        CorpusError: A corpus is missing, empty or malformed, an id occurs twice or is one that another source may make,
            or a field is reserved.
    """
    makers = tuple(dict.fromkeys((*sources, *known)))
    streams, partial = [], share is not None and not share.whole
    chosen: Sequence[FileCheck | None] = checks or [None] * len(sources)
    for corpus, source, check in zip(corpora, sources, chosen, strict=True):
        report = SkipCounter(choose_report(on_error, skip))
        reading: dict[str, Any] = {"layout": layout, "check": check, "share": share}
        entries = read_entries(corpus, source, on_error="skip", on_skip=report, **reading)
        if not keep_empty:
            entries = _without_empty(corpus, entries, report, skip, note=share is None)
        checked = _check(corpus, entries, report, makers, source.name, check, partial=partial)
        streams.append((corpus, checked))
    return streams[0][1] if len(streams) == 1 else _join(streams, choose_report(on_error, skip))


def _without_empty(
    source: str | Path | Rows, entries: Iterator[Entry], report: SkipCounter, skip: SkipCounter, *, note: bool
) -> Iterator[Entry]:
    """The documents that have a title or a text; at the end, one line counts the others."""
    first = ""
    for entry in entries:
        if entry.document.content.strip():
            yield entry
            continue
        first = first or entry.document.id
        report.empty += 1
        skip.empty += 1
    if report.empty and note:  # else whoever reads all shares says it, once
        counted = count_rows(report.empty)
        _logger.warning('%s: %s without title and text, the first "%.80s": not indexed', source, counted, first)


def split_entries(
    entries: Iterable[Entry], split: Callable[[Document], Sequence[Document]], sources: Sequence[Source]
) -> Iterator[DocumentRows]:
    """The rows of each document, with its origin among the sources."""
    places = {source.name: place for place, source in enumerate(sources)}
    for entry in entries:
        yield DocumentRows(split(entry.document), Origin(places[entry.source], entry.stamp))


def _check(
    source: str | Path | Rows,
    stream: Iterator[Entry],
    report: SkipCounter,
    makers: Sequence[Source],
    name: str,
    files: FileCheck | None,
    *,
    partial: bool,
) -> Iterator[Entry]:
    """The documents whose ids no source may make for another one, and whose metadata has no name that is refused."""
    kept = 0
    for entry in stream:
        document = entry.document
        if not (fault := _find_taken(entry, makers) or _find_fault(document)):
            kept += 1
            yield entry._replace(source=name)
            continue
        report(f'{source}: document "{document.id}": {fault}')
    if not kept and not partial and not (files and files.unchanged):
        raise CorpusError(f"{source}: an empty corpus: no document in it{report.summary()}")


def _find_taken(entry: Entry, makers: Sequence[Source]) -> str | None:
    """What is wrong with an id that the corpus gives, and a source may make for another document."""
    maker = find_maker(entry.document.id, makers) if entry.earlier_id is None else None
    if maker is None:
        return None
    return (
        f'ids that are "{maker.name}" or begin with "{maker.name}/" are made for documents of the source '
        f'"{maker.name}"; give this one another id, or build the index with another name for that source (--source '
        "NAME)"
    )


def _find_fault(document: Document) -> str | None:
    if taken := [name for name in RESERVED_FIELDS if name in document.metadata]:
        return f'the field "{taken[0]}" is reserved for what indexes and retrievers add; rename it, or leave it out'
    if name := find_shared_name(document.metadata):
        return (
            f'"{name}" names two fields, one of them within another; rename one, or filters could not tell them apart'
        )
    return None


def _join(streams: Sequence[tuple[str | Path | Rows, Iterator[Entry]]], report: Report) -> Iterator[Entry]:
    seen = IdSet()
    for source, stream in streams:
        for entry in stream:
            if seen.add(entry.document.id):
                yield entry
                continue
            report(
                f'{source}: id "{entry.document.id}" occurs in an earlier corpus too; ids must be unique '
                '(on_error="skip", --on-error skip: the first stays)'
            )
