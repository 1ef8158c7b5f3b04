"""Brings an index up to date with its sources: new, changed, renamed and vanished documents, in one commit."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from llm2comp.corpus.documents import Document
from llm2comp.corpus.fields import FieldNames
from llm2comp.corpus.kinds import is_pattern
from llm2comp.corpus.read import find_source_files
from llm2comp.corpus.remote import to_path
from llm2comp.corpus.report import SkipCounter
from llm2comp.corpus.rows import Rows, as_corpora
from llm2comp.corpus.sources import Source, is_named, root_of
from llm2comp.corpus.table_format import TableFormat
from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import CorpusError, quote_path
from llm2comp_indexes.builder.blocks import DocumentRows, split_into_blocks
from llm2comp_indexes.builder.chunks import RowMaker, make_splitter
from llm2comp_indexes.builder.corpora import find_sources, open_corpora
from llm2comp_indexes.change.ids import check_made_ids, check_names
from llm2comp_indexes.change.renamed import ReusingEncoder, find_unlisted
from llm2comp_indexes.change.segments import before_change, commit, without_rows, write_segment
from llm2comp_indexes.change.small_segments import merge_small_segments
from llm2comp_indexes.change.sync_changes import KnownFiles, SyncChanges
from llm2comp_indexes.change.tracking import TrackedRows
from llm2comp_indexes.encoder import Encoder
from llm2comp_indexes.format.commits import Change, change_index, with_origins
from llm2comp_indexes.format.segment import Segment
from llm2comp_indexes.progress import Progress, silent
from llm2comp_indexes.search.index import Index, open_last_commit
from llm2comp_indexes.structures.gpu import resolve_device

__all__ = ["SyncReport", "sync_index"]

_ONCE = ("-", "rows")
"""Roots of sources that can be read once only."""


class SyncReport(NamedTuple):
    """Result of a sync, or what one would do.

    Attributes:
        added: Number of new documents.
        changed: Number of documents that replaced one with their id.
        renamed: Number of files under another name; their vectors were used again.
        unchanged: Number of documents that the index held already.
        vanished: Ids of documents that were deleted, as their source has them no more.
        skipped: Number of malformed or duplicate rows left out (with `on_error="skip"`).
        encoded: Number of rows encoded by this run.
        seconds: Duration of the sync.
        encode_seconds: Duration of the encoding alone.
        cut: As for `build_index`.
        empty: As for `build_index`.
        below: As for `build_index`.
    """

    added: int
    changed: int
    renamed: int
    unchanged: int
    vanished: tuple[str, ...]
    skipped: int
    encoded: int
    seconds: float
    encode_seconds: float
    cut: int = 0
    empty: int = 0
    below: int = 0


class _Inputs(NamedTuple):
    """Corpora with their sources, and how they are read."""

    corpora: list[str | Path | Rows]
    sources: list[Source]
    listed: tuple[Source, ...]
    layout: TableFormat
    on_error: Literal["raise", "skip"]
    full: bool

    def by_place(self) -> dict[int, tuple[str | Path | Rows, Source]]:
        """Corpus and source by the place of the source in the manifest."""
        places = {source.name: place for place, source in enumerate(self.listed)}
        return {
            places[source.name]: (corpus, source) for corpus, source in zip(self.corpora, self.sources, strict=True)
        }


class _Found(NamedTuple):
    """What a reading of the sources finds."""

    changes: SyncChanges
    tracked: TrackedRows
    rows: Iterator[DocumentRows]


def sync_index(
    folder: str | Path,
    corpora: str | Path | Iterable[Any] = (),
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
    separator: str | None = None,
    encoding: str | None = None,
    encoder: EncoderOptions | None = None,
    dry_run: bool = False,
    full: bool = False,
    yes: bool = False,
) -> SyncReport:
    """Makes the index hold what its sources hold now, in one commit.

    As `add_documents`, and documents that their source has no more are deleted. Documents of other sources, and those
    whose source is not recorded, are untouched. A file with the size and time that it had when it was read is not read
    again. A file under another name is the same document; its vectors are not computed again. A killed sync resumes
    after its last finished block when it is run again.

    Args:
        folder: Folder of the index.
        corpora: As for `add_documents`, of sources of the index; empty: all of its sources that can be read again.
        model: As for `add_documents`.
        device: As for `build_index`.
        on_error: As for `build_index`; the document of a file that cannot be read stays.
        on_skip: As for `build_index`.
        progress: As for `build_index`.
        header: As for `build_index`.
        quotes: As for `build_index`.
        fields: As for `add_documents`.
        source: Name of the source of the index that the corpus is, if it was moved.
        separator: As for `build_index`.
        encoding: As for `build_index`.
        encoder: As for `add_documents`.
        dry_run: Only count; nothing is encoded or written.
        full: Read all files, also those with the size and time that they had.
        yes: Delete vanished documents even if they are more than half of a source, or rows were skipped.

    Raises:
        CorpusError: A corpus is no source of the index, is missing, empty or malformed, or has lost more than half of
            its documents.
        IndexFolderError: The index is damaged, of another model, or being written by another process.
    """
    resolve_device(device)
    start, path = time.perf_counter(), Path(folder)
    layout = TableFormat(header, quotes, separator, encoding)
    skips = SkipCounter(on_skip)
    if dry_run:
        with open_last_commit(path, model, encoder, searchable=False) as index:
            inputs = _find_inputs(index, corpora, source, fields, layout, on_error, full=full)
            split = _LazySplitter(index)
            changes = _look(index, inputs, split, skips)
        return _report(changes, skips, split, None, start)
    with (
        change_index(path) as change,
        Index(path, before_change(change), model=model, encoder=encoder, searchable=False) as index,
    ):
        inputs = _find_inputs(index, corpora, source, fields, layout, on_error, full=full)
        split = _LazySplitter(index)
        if not yes and _may_lose(index, inputs):
            silent_skips = SkipCounter(lambda message: None)
            _refuse_losses(_look(index, inputs, split, silent_skips), inputs, silent_skips)
        split.cut = 0
        found = _compare(index, inputs, split, skips)
        batch_size = encoder.batch_size if encoder else None
        encode = ReusingEncoder(index, found.changes.stored, batch_size=batch_size)
        running: dict[str, Any] = {"device": device, "progress": progress or silent, "batch_size": batch_size}
        segment = write_segment(change, index, index.manifest, split_into_blocks(found.rows), encode, **running)
        found.changes.finish()
        if not yes:
            _refuse_losses(found.changes, inputs, skips)
        _commit(change, index, found, segment, inputs)
    return _report(found.changes, skips, split, encode, start)


class _LazySplitter:
    """Makes rows of documents; the model, whose tokenizer it needs for chunks, is loaded at the first one."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._split: RowMaker | None = None
        self._cut = self._below = 0

    @property
    def cut(self) -> int:
        """Number of words, rows of tables and lines of code that had to be cut since it was set to 0."""
        return (self._split.cut if self._split else 0) - self._cut

    @cut.setter
    def cut(self, value: int) -> None:
        self._cut = (self._split.cut if self._split else 0) - value
        self._below = self._split.below if self._split else 0

    @property
    def below(self) -> int:
        """Number of sentences, rows and lines that are chunks by themselves, since `cut` was set."""
        return (self._split.below if self._split else 0) - self._below

    def __call__(self, document: Document, /) -> list[Document]:
        """The rows of the document."""
        if self._split is None:
            manifest = self._index.manifest
            model = self._index.model if manifest.options.has_chunks else None
            self._split = make_splitter(manifest.options, model, fields=manifest.chunk_fields)
        return self._split(document)


def _find_inputs(
    index: Index,
    corpora: Any,
    name: str | None,
    fields: FieldNames | None,
    layout: TableFormat,
    on_error: Literal["raise", "skip"],
    *,
    full: bool,
) -> _Inputs:
    known = index.manifest.sources or ()
    again = [source.root for source in known if source.root is not None and source.root not in _ONCE]
    inputs = as_corpora(corpora) or list(again)
    inputs = list({root_of(corpus): corpus for corpus in inputs}.values())  # each once
    _check_known(index, inputs, known, name)
    unlisted = index.manifest.unlisted
    sources = find_sources(
        inputs, known, name=name, fields=fields, strings=unlisted, bare_texts=unlisted, layout=layout
    )
    check_names(index, sources)
    listed = tuple({source.name: source for source in [*known, *sources]}.values())
    settings = {replace(source, root=None) for source in known}
    same = all(replace(source, root=None) in settings for source in sources)
    return _Inputs(inputs, sources, listed, layout, on_error, full or not same)


def _check_known(index: Index, corpora: Sequence[str | Path | Rows], known: Sequence[Source], name: str | None) -> None:
    """Raises CorpusError if a corpus is no source of the index."""
    place = quote_path(index.folder)
    names = ", ".join(f"{source.name} ({source.root or 'read on several machines'})" for source in known)
    if not names:
        raise CorpusError(f"{index.folder}: records no sources to compare with; build the index again to have them")
    if not corpora:
        raise CorpusError(f"{index.folder}: none of its sources can be read again: {names}; give the corpora")
    if name is not None and name not in {source.name for source in known}:
        raise CorpusError(f'{index.folder}: has no source "{name}"; its sources are {names}')
    roots = {source.root for source in known}
    for corpus in corpora if name is None else ():
        if root_of(corpus) not in roots:
            quoted = corpus if is_named(corpus) else quote_path(str(corpus))
            raise CorpusError(
                f"{corpus}: no source of the index, whose sources are {names}; if it is one of them in a new place, "
                f"say which (--source NAME); if it is a new one: llm2comp index add {place} {quoted}"
            )
    for corpus in corpora:
        if not isinstance(corpus, Rows) and not is_named(corpus) and not _is_there(to_path(corpus)):
            raise CorpusError(
                f"{corpus}: not there any more, which is no reason to delete all of its documents; bring it back, say "
                "where it is now (--source NAME), or delete them with llm2comp index delete"
            )


def _is_there(path: Path) -> bool:
    return is_pattern(path) or path.exists()


def _compare(index: Index, inputs: _Inputs, split: RowMaker, skips: SkipCounter) -> _Found:
    """The sources compared with the index, while the rows are taken."""
    by_place = inputs.by_place()
    known = index.manifest.sources or ()
    tracked = TrackedRows(index, inputs.listed, by_place)
    unlisted = find_unlisted(index, tracked, by_place)
    changes = SyncChanges(index, split, inputs.sources, inputs.listed, tracked, unlisted)
    places = {source.name: place for place, (_, source) in by_place.items()}
    checks = [KnownFiles(changes, places[source.name], full=inputs.full) for source in inputs.sources]
    entries = open_corpora(
        inputs.corpora, inputs.sources, inputs.on_error, skips, layout=inputs.layout, known=known, checks=checks
    )
    before = {source.name: source for source in known}
    return _Found(changes, tracked, changes.rows(check_made_ids(entries, inputs.sources, before)))


def _look(index: Index, inputs: _Inputs, split: RowMaker, skips: SkipCounter) -> SyncChanges:
    """What a sync would do; nothing is encoded."""
    found = _compare(index, inputs, split, skips)
    for _ in found.rows:
        pass
    found.changes.finish()
    return found.changes


def _may_lose(index: Index, inputs: _Inputs) -> bool:
    """Whether the sources have to be read once before, as they may have lost too many documents to go on.

    Of files, a look at their names says so; what can be read once only is judged at the end.
    """
    if any(source.root in _ONCE for source in inputs.sources):
        return False
    by_place = inputs.by_place()
    if any(find_source_files(corpus, source) is None for corpus, source in by_place.values()):
        return True
    return find_unlisted(index, TrackedRows(index, inputs.listed, by_place), by_place).most


def _refuse_losses(changes: SyncChanges, inputs: _Inputs, skips: SkipCounter) -> None:
    names = {place: str(corpus) for place, (corpus, _) in inputs.by_place().items()}
    changes.refuse_losses(names, skipped=skips.count)


def _commit(change: Change, index: Index, found: _Found, segment: Segment | None, inputs: _Inputs) -> None:
    """Commits what was found; nothing if the index is as it should be."""
    replaced = found.changes.replaced
    changed = any(deletions.documents for deletions in replaced) or any(found.tracked.changed)
    if segment is None and not changed and inputs.listed == (index.manifest.sources or ()):
        return
    segments = []
    for opened, deletions, origins, is_new in zip(
        index.segments, replaced, found.tracked.origins, found.tracked.changed, strict=True
    ):
        kept = without_rows(change, opened, deletions)
        segments.append(with_origins(change, kept, origins) if is_new and kept.deleted < kept.rows else kept)
    if segment is not None:
        segments = [*merge_small_segments(change, index.manifest, segments), segment]
    commit(change, index.manifest, segments, inputs.listed)


def _report(
    changes: SyncChanges, skips: SkipCounter, split: RowMaker, encode: ReusingEncoder | None, start: float
) -> SyncReport:
    return SyncReport(
        changes.added,
        changes.changed,
        changes.renamed,
        changes.unchanged,
        changes.vanished,
        skips.count,
        encode.rows if encode else 0,
        time.perf_counter() - start,
        encode.seconds if encode else 0.0,
        split.cut,
        skips.empty,
        split.below,
    )
