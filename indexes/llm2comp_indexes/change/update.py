"""Additions of documents, in one commit."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from llm2comp.corpus.fields import FieldNames
from llm2comp.corpus.report import SkipCounter
from llm2comp.corpus.rows import as_corpora
from llm2comp.corpus.table_format import TableFormat
from llm2comp.encoder_options import EncoderOptions
from llm2comp_indexes.builder.blocks import split_into_blocks
from llm2comp_indexes.builder.chunks import make_row_encoder, make_splitter
from llm2comp_indexes.builder.corpora import find_sources, open_corpora
from llm2comp_indexes.change.compare import Changes
from llm2comp_indexes.change.ids import check_made_ids, check_names
from llm2comp_indexes.change.segments import before_change, commit, without_rows, write_segment
from llm2comp_indexes.change.small_segments import merge_small_segments
from llm2comp_indexes.encoder import Encoder
from llm2comp_indexes.format.commits import change_index
from llm2comp_indexes.progress import Phase, Progress, silent
from llm2comp_indexes.search.index import Index
from llm2comp_indexes.structures.gpu import resolve_device

__all__ = ["AddReport", "add_documents"]


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
        below: As for `build_index`.
    """

    added: int
    changed: int
    unchanged: int
    skipped: int
    seconds: float
    encode_seconds: float
    cut: int = 0
    empty: int = 0
    below: int = 0


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
        Index(Path(folder), before_change(change), model=model, encoder=encoder, searchable=False) as index,
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
        check_names(index, sources)
        before = {one.name: one for one in known}
        entries = check_made_ids(
            open_corpora(inputs, sources, on_error, skips, layout=layout, known=known), sources, before
        )
        options = index.manifest.options
        batch_size = encoder.batch_size if encoder else None
        show(Phase.LOADING, 0)
        encode = make_row_encoder(options, index.model, batch_size)
        start = time.perf_counter()
        split = make_splitter(options, index.model, fields=index.manifest.chunk_fields)
        listed = tuple({source.name: source for source in [*known, *sources]}.values())
        changes = Changes(index, split, sources, listed)
        blocks = split_into_blocks(changes.rows(entries))
        manifest = replace(index.manifest, dimension=encode.dimension)  # an index made empty did not know it
        segment = write_segment(
            change, index, manifest, blocks, encode, device=device, progress=show, batch_size=batch_size
        )
        if segment is not None:
            kept = [without_rows(change, *replaced) for replaced in zip(index.segments, changes.replaced, strict=True)]
            commit(change, manifest, [*merge_small_segments(change, manifest, kept), segment], listed)
            changes.warn_of_strangers()
        elif not changes.made <= set(known) or any(before.get(one.name, one) != one for one in sources):
            commit(change, index.manifest, index.manifest.segments, listed)
    counts = (changes.added, changes.changed, changes.unchanged, skips.count)
    return AddReport(*counts, time.perf_counter() - start, encode.seconds, split.cut, skips.empty, split.below)
