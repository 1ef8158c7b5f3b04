"""Documents of corpora whose files are a document each."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

from llm2comp.corpus.entry import Entry
from llm2comp.corpus.fields import FieldNames
from llm2comp.corpus.files.read import FileDocument, TextFile, read_bare_texts, read_files
from llm2comp.corpus.files.readers import suffix_of
from llm2comp.corpus.files.stamp import FileCheck
from llm2comp.corpus.files.summary import FileSummary
from llm2comp.corpus.kinds import (
    find_files,
    find_tables,
    find_texts,
    has_records,
    is_bare_text,
    is_document,
    is_lock,
    is_pattern,
    pattern_root,
)
from llm2comp.corpus.mixed_types import MixedTypes
from llm2comp.corpus.places import is_several, note_other_files
from llm2comp.corpus.report import SkipCounter, list_names
from llm2comp.corpus.share import Share
from llm2comp.corpus.sources import IdMaker, Source
from llm2comp.errors import CorpusError, SettingsError

__all__ = ["check_no_fields", "list_source_files", "read_file_entries"]

_logger = logging.getLogger(__name__)


def read_file_entries(
    path: Path,
    source: Source,
    report: SkipCounter,
    encoding: str | None,
    check: FileCheck | None,
    *,
    several: bool,
    share: Share | None,
) -> Iterator[Entry]:
    """Documents of files that are one each; the summary is logged at the end.

    Raises:
        SettingsError: When called, if fields are named for ids, titles or texts.
    """
    metadata = source.fields.metadata if source.files else None
    check_no_fields(str(path), replace(source.fields, metadata=None) if source.files else source.fields)
    partial = share is not None and not share.whole
    if several and not partial:
        note_other_files(path, find_tables(path), "only the texts are read, not the files of rows beside them")
    summary = FileSummary()

    def list_files() -> Iterator[TextFile]:
        if share is None:
            return list_source_files(path, source)
        files = list(list_source_files(path, source))
        share.check(path, files)
        return share.take(files)

    if source.files:
        documents = read_files(list_files, report, summary, metadata, encoding, check, single=not several)
    else:
        _note_bare(path)
        documents = read_bare_texts(list_files(), report, summary, encoding, check)
    return _to_file_entries(path, documents, report, summary, several=several, partial=partial)


def list_source_files(path: Path, source: Source) -> Iterator[TextFile]:
    """The files of a source, in order."""
    several = is_several(path)
    root = (pattern_root(path) if is_pattern(path) else path) if several else path.parent
    matches = find_texts(path) if source.files else find_files(path, is_bare_text)
    ids = IdMaker(source, files=True, single=not several)
    for file in matches if several else [path]:
        position = file.relative_to(root).as_posix()
        yield TextFile(file, position, ids.name_file(position))


def _to_file_entries(
    path: Path,
    documents: Iterator[FileDocument],
    report: SkipCounter,
    summary: FileSummary,
    *,
    several: bool,
    partial: bool,
) -> Iterator[Entry]:
    read, mixed = 0, MixedTypes(str(path))
    for file, document, stamp in documents:
        mixed.check(document.metadata, str(file.path))
        read += 1
        yield Entry(replace(document, id=file.identifier), file.position, stamp=stamp)
    if partial:
        summary.log_notes(str(path))
        return
    if several:
        for other in find_files(path, lambda one: not is_document(one, path) and not has_records(one)):
            reason = "kept by Office beside open documents" if is_lock(other) else "of unknown kinds"
            summary.skip(suffix_of(other), reason)
    if not read and not summary.unchanged:
        raise CorpusError(f"{path}: an empty corpus: no document in it{summary.skipped() or report.summary()}")
    summary.log_unseen(str(path))
    if several:
        summary.log(str(path))
    else:
        summary.log_notes(str(path))


@cache  # a corpus may be read several times
def _note_bare(path: Path) -> None:
    _logger.warning(
        "%s: read as it was added, .txt and .md files as bare texts; build the index again for titles, metadata and "
        "files of other kinds",
        path,
    )


def check_no_fields(corpus: str, fields: FieldNames) -> None:
    """Raises SettingsError if fields are named for a corpus of texts, which has none."""
    if chosen := fields.chosen():
        raise SettingsError(
            f"{corpus}: read as texts, and texts have no fields, but names of fields are given or kept for this source "
            f"({list_names(chosen)}); leave all but those of metadata out, or read files of rows by a quoted pattern "
            "such as 'DIR/*.csv'"
        )
