"""Makes an index anew of its own documents, with another model, other chunks or another type."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from llm2comp.corpus.documents import Document
from llm2comp.corpus.entry import Entry
from llm2comp.corpus.read import read_entries
from llm2comp.corpus.sources import Source
from llm2comp.corpus.table_format import TableFormat
from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import CorpusError, IndexFolderError, SettingsError
from llm2comp_indexes.builder.blocks import DocumentRows, split_into_blocks, write_blocks
from llm2comp_indexes.builder.chunks import RowMaker, make_row_encoder, make_splitter, with_reader_place
from llm2comp_indexes.builder.finish_segment import check_feasible, check_type, finish_segment
from llm2comp_indexes.builder.new_segment import new_segment, segment_header
from llm2comp_indexes.change import compare
from llm2comp_indexes.change.segments import before_change
from llm2comp_indexes.change.stored import join_chunks
from llm2comp_indexes.change.tracking import TrackedRows
from llm2comp_indexes.encoder import Encoder, load_encoder, options_of
from llm2comp_indexes.format.chunks import CHUNK_FIELDS, with_new_fields
from llm2comp_indexes.format.commits import change_index
from llm2comp_indexes.format.manifest import Manifest, memory_form
from llm2comp_indexes.format.origins import UNKNOWN, Origin
from llm2comp_indexes.format.segment import Segment
from llm2comp_indexes.options import IndexOptions
from llm2comp_indexes.progress import Progress, silent
from llm2comp_indexes.search.index import Index
from llm2comp_indexes.tuning.report import Report

__all__ = ["RebuildReport", "rebuild_index"]

_logger = logging.getLogger(__name__)


class RebuildReport(NamedTuple):
    """Result of a rebuild.

    Attributes:
        documents: Number of documents in the index.
        stored: Number of these whose texts come from the index: all but those of files that are there.
        encoded: Number of rows encoded by this run.
        dimension: Length of a vector.
        bytes: Size of the index on disk, without its manifest and the commit before.
        seconds: Duration of the rebuild.
        encode_seconds: Duration of the encoding alone.
        measured: Type, recall and latency of the new index; None: it is empty.
        cut: As for `build_index`.
        below: As for `build_index`.
    """

    documents: int
    stored: int
    encoded: int
    dimension: int
    bytes: int
    seconds: float
    encode_seconds: float
    measured: Report | None
    cut: int = 0
    below: int = 0


def rebuild_index(
    folder: str | Path,
    *,
    model: str | Path | Encoder | None = None,
    options: IndexOptions | None = None,
    encoder: EncoderOptions | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> RebuildReport:
    """Encodes all documents of the index again and makes one segment of them, in one commit.

    Documents are those of the index, none more and none less. Files that are there are read, as chunks follow their
    structure, which an index does not keep; all other texts are those of the index. The old commit answers until the
    new one is there, and is kept for `undo_index`. A killed rebuild resumes after its last finished block when it is
    run again.

    Args:
        folder: Folder of the index.
        model: Another model; None: that of the index.
        options: Other options; None: those of the index.
        encoder: Options of the model that change; all others are those of the index, if its model stays.
        device: As for `build_index`.
        progress: As for `build_index`.

    Raises:
        CorpusError: The metadata of a document has names that an index refuses.
        IndexFolderError: The index is damaged, its model is unknown or gone, or it is being written by another process.
        SettingsError: FAISS cannot make the type, or there is no GPU for `cuda`.
    """
    start, path, show = time.perf_counter(), Path(folder), progress or silent
    with change_index(path) as change, Index(path, before_change(change), searchable=False) as index:
        before = index.manifest
        chosen = with_reader_place(options or before.options)
        check_feasible(chosen, device)
        loaded, name, recorded = _load(before, model, encoder, path, show)
        batch_size = encoder.batch_size if encoder else None
        encode = make_row_encoder(chosen, loaded, batch_size)
        check_type(chosen, encode.dimension)
        documents = _Documents(index, make_splitter(chosen, loaded))
        blocks = split_into_blocks(documents.rows())
        first = next(blocks, None)
        made = (name, loaded.fingerprint, encode.dimension, chosen)
        header = {"rebuild": before.commit, **segment_header(loaded.fingerprint, encode.dimension, chosen, recorded)}
        segments: tuple[Segment, ...] = ()
        measured = None
        if first is not None:
            form = memory_form(chosen, encode.memory_tokens, encode.dimension)
            with new_segment(change, encode.dimension, chosen, header=header, memory=form) as new:
                write_blocks(
                    new.rows,
                    chain([first], blocks),
                    encode,
                    progress=show,
                    batch_size=batch_size,
                )
                segment, measured = finish_segment(new, chosen, encoder=loaded, device=device, progress=show)
                segments = (segment,)
        kept: dict[str, Any] = {"sources": before.sources, "unlisted": before.unlisted}
        rebuilt = Manifest(0, *made, segments, {}, **kept, encoder=recorded, memory_tokens=encode.memory_tokens)
        manifest = change.commit(rebuilt)
    counts = (manifest.documents, documents.stored, encode.rows, manifest.dimension, manifest.bytes)
    left = documents.split.cut, documents.split.below
    return RebuildReport(*counts, time.perf_counter() - start, encode.seconds, measured, *left)


def _load(
    before: Manifest,
    model: str | Path | Encoder | None,
    encoder: EncoderOptions | None,
    folder: Path,
    progress: Progress,
) -> tuple[Encoder, str | None, EncoderOptions]:
    """The model, its name, and its options that change vectors."""
    given = model or before.model
    if given is None:
        raise IndexFolderError(
            f"{folder}: does not know the name of its model, which was given as an object or made its "
            "vectors elsewhere; name it (--model)"
        )
    chosen = encoder or EncoderOptions()
    if model is None:
        kept = {one.name: getattr(before.encoder, one.name) for one in fields(EncoderOptions)}
        chosen = replace(chosen, **{name: value for name, value in kept.items() if getattr(chosen, name) is None})
    loaded, name = load_encoder(given, chosen if isinstance(given, str | Path) else encoder, progress)
    return loaded, name, options_of(loaded, chosen)


class _Documents:
    """The documents of an index: files as they are now, all others as the index holds them.

    Attributes:
        stored: Number of documents so far whose texts come from the index.
        split: Makes rows of a document.
    """

    def __init__(self, index: Index, split: RowMaker) -> None:
        self.stored = 0
        self.split = split
        self._index, self._sources = index, index.manifest.sources or ()
        self._tracked = TrackedRows(index, self._sources, range(len(self._sources)))

    def rows(self) -> Iterator[DocumentRows]:
        """The rows of each document."""
        for place, source in enumerate(self._sources):
            entries = self._read(source)
            while block := list(islice(entries, compare.IDS_AT_ONCE)):
                for entry in self._held(block, place):
                    yield DocumentRows(self.split(entry.document), Origin(place, entry.stamp))
        for unmet in self._tracked.unmet():
            self.stored += 1
            document = join_chunks([self._row(unmet.segment, row) for row in unmet.rows])
            if not document.content.strip() and not self._index.manifest.fingerprint:
                raise CorpusError(
                    f'document "{document.id}": the index was made of vectors and has no text to encode; build it again'
                )
            yield DocumentRows(self.split(document), self._tracked.origins[unmet.segment][unmet.rows[0]])

    def _row(self, segment: int, row: int) -> Document:
        document = self._index.segments[segment].documents[row]
        return document if self._index.manifest.chunk_fields == CHUNK_FIELDS else with_new_fields(document)

    def _read(self, source: Source) -> Iterator[Entry]:
        """Documents of the source, if it is of files, which show structure and pages; no more if it cannot be read."""
        if source.root is None or not source.files:
            return
        try:
            yield from read_entries(source.root, source, on_error="skip", on_skip=_ignore, layout=TableFormat())
        except (CorpusError, SettingsError) as error:
            _logger.warning("%s: taken from the index, as the source cannot be read: %s", source.name, error)

    def _held(self, entries: Sequence[Entry], source: int) -> Iterator[Entry]:
        """Those documents that the index holds, and holds of this source."""
        ids = [entry.document.id for entry in entries]
        for place, segment in enumerate(self._index.segments):
            for entry, rows in zip(entries, segment.find_rows(ids), strict=True):
                if not rows or int(self._tracked.origins[place].sources[rows[0]]) not in (source, UNKNOWN):
                    continue
                if entry.document.content.strip() and self._tracked.meet(place, rows):
                    yield entry


def _ignore(message: str) -> None:
    """A row that cannot be read is taken from the index."""
