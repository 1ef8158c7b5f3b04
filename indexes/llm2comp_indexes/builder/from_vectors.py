"""Builds an index of existing vectors, from .npy files or shards, and measures it with rows that it does not hold."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp.corpus.fields import FieldNames
from llm2comp.corpus.report import SkipCounter
from llm2comp.corpus.sources import Source
from llm2comp.corpus.table_format import TableFormat
from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import CorpusError, IndexFolderError, LLM2CompError, SettingsError
from llm2comp_indexes.builder.corpora import find_sources, open_corpora
from llm2comp_indexes.builder.drawn_queries import LEAST_MOVED, MOST_QUERIES, DrawnDocuments
from llm2comp_indexes.builder.finish_segment import (
    check_feasible,
    check_type,
    finish_segment,
)
from llm2comp_indexes.builder.index import BuildReport
from llm2comp_indexes.builder.join_shards import ShardSource
from llm2comp_indexes.builder.new_segment import new_segment, segment_header
from llm2comp_indexes.builder.shard_file import Shard
from llm2comp_indexes.builder.vector_files import NpySource, NpyVectors, VectorSource
from llm2comp_indexes.encoder import Encoder, load_encoder
from llm2comp_indexes.faiss_module import import_faiss
from llm2comp_indexes.format.commits import Change, check_output, create_index
from llm2comp_indexes.format.manifest import Manifest
from llm2comp_indexes.format.segment import Segment
from llm2comp_indexes.format.segment_writer import SegmentWriter
from llm2comp_indexes.options import STORES, IndexOptions, refuse_memory_vectors
from llm2comp_indexes.progress import Phase, Progress, silent
from llm2comp_indexes.tuning.queries import Queries, QueryKind
from llm2comp_indexes.tuning.report import Report

__all__ = ["VectorFiles", "build_from_vectors"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VectorFiles:
    """Vectors to build an index of.

    Attributes:
        paths: .npy files of shape (n, dimension), in order; or shards, or folders of shards, that `encode_shard` wrote.
        ids: File with the id of each row of the .npy files: a text file with one per line, or a .npy file of strings or
            integers.
        queries: .npy file of query vectors (n, dimension) to measure with, of which 300 are used.
    """

    paths: Sequence[str | Path]
    ids: str | Path | None = None
    queries: str | Path | None = None


class _Origin(NamedTuple):
    """Source of the vectors, and the model that made them, if it is known."""

    source: VectorSource
    name: str | None
    fingerprint: str
    options: IndexOptions
    encoder: Encoder | None
    sources: tuple[Source, ...] | None
    recorded: EncoderOptions = EncoderOptions()


def build_from_vectors(
    vectors: VectorFiles,
    output: str | Path,
    *,
    corpora: Sequence[str | Path] = (),
    model: str | Path | Encoder | None = None,
    options: IndexOptions | None = None,
    device: str = "auto",
    on_error: Literal["raise", "skip"] = "raise",
    overwrite: bool = False,
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
) -> BuildReport:
    """Report of the index written to the folder `output`. It appears once complete; a killed build can be resumed.

    Vectors of .npy files are scaled to unit length. The index has no model: search it with vectors, or name a model
    when it is opened. Shards give the index that `build_index` makes of their corpus with the same model.

    Recall is measured with `vectors.queries`. If there are none, it is measured with passages of the documents, if the
    vectors are those of shards whose model can be loaded. Otherwise 300 random documents go into a second segment, and
    their vectors are the queries for the first; with fewer than 10,000 documents, the queries are rows moved by noise
    of half their length.

    Args:
        vectors: The files or shards.
        output: As for `build_index`.
        corpora: With .npy files: the documents of the ids; if empty, a row has only an id.
        model: With shards: their model, if it is elsewhere now than they say.
        options: As for `build_index`. Chunking is that of the shards; vectors are stored as precisely as the options
            say, or as the shards if these are less precise.
        device: As for `build_index`.
        on_error: As for `build_index`; an id without a document and a document without an id count too.
        overwrite: As for `build_index`.
        on_skip: As for `build_index`.
        progress: As for `build_index`.
        header: As for `build_index`.
        quotes: As for `build_index`.
        fields: As for `build_index`.
        source: As for `build_index`, with .npy files and a corpus.
        ids_are_positions: As for `build_index`, with .npy files and a corpus.
        csv_strings: As for `build_index`, with .npy files and a corpus.
        separator: As for `build_index`.
        encoding: As for `build_index`.
        encoder: With shards: where and how their model runs; options that change vectors are those of the shards.

    Raises:
        CorpusError: Ids or documents are missing, malformed or duplicate.
        IndexFolderError: A file is no .npy file of vectors; a vector is zero or not finite; a shard is missing,
            duplicate, altered, or of another model, store, chunking or corpus; `output` is not empty, or is being
            written by another process.
        SettingsError: Options contradict each other.
    """
    import_faiss()
    target, start = Path(output).resolve(), time.perf_counter()
    check_output(target, overwrite=overwrite)
    show, skips, chosen = progress or silent, SkipCounter(on_skip), options or IndexOptions()
    refuse_memory_vectors(chosen, "vectors and shards made before have none of memory tokens")
    queries = _read_queries(Path(vectors.queries)) if vectors.queries is not None else None
    names: dict[str, Any] = {
        "name": source,
        "positions": ids_are_positions,
        "fields": fields,
        "strings": csv_strings,
        "layout": TableFormat(header, quotes, separator, encoding),
    }
    if _are_shards(vectors):
        if source is not None or ids_are_positions or fields is not None or csv_strings:
            raise SettingsError(
                "source, ids_are_positions, fields or csv_strings is given with shards, which hold their documents; "
                "leave it out"
            )
        origin = _open_shards(vectors, corpora, model, chosen, show, encoder, wants_encoder=queries is None)
    else:
        if encoder is not None and encoder != EncoderOptions():
            raise SettingsError("options of a model have no use in a build from vectors, which encodes nothing")
        origin = _open_arrays(vectors, corpora, names, model, chosen, on_error, skips)
    _check_queries(vectors, queries, origin.source)
    check_feasible(origin.options, device)
    check_type(origin.options, origin.source.dimension)
    with create_index(target, overwrite=overwrite) as change:
        segments, measured = _write(change, origin, queries, device, show)
        made = (origin.name, origin.fingerprint, origin.source.dimension, origin.options, tuple(segments))
        sources = origin.sources
        made_of = Manifest(0, *made, {}, sources=sources, unlisted=sources is None, encoder=origin.recorded)
        manifest = change.commit(made_of, keep=False)
    return BuildReport(
        manifest.documents,
        skips.count,
        manifest.dimension,
        manifest.bytes,
        time.perf_counter() - start,
        0,
        0.0,
        measured,
    )


def _are_shards(vectors: VectorFiles) -> bool:
    """Whether the paths are folders of shards rather than .npy files."""
    if isinstance(vectors.paths, str | Path) or not vectors.paths:
        raise SettingsError(f"vectors are {vectors.paths!r}, expected a list of .npy files, or of folders of shards")
    if missing := next((path for path in vectors.paths if not Path(path).exists()), None):
        raise IndexFolderError(
            f"{missing}: no such folder and no such file; expected vectors written by numpy.save, or shards that "
            "llm2comp encode wrote"
        )
    folders = {Path(path).is_dir() for path in vectors.paths}
    if len(folders) > 1:
        raise SettingsError("vectors are .npy files and folders; give files, or folders of shards")
    return folders == {True}


def _read_queries(path: Path) -> Queries:
    vectors = NpyVectors([path])
    if not vectors.rows:
        raise IndexFolderError(f"{path}: holds no vectors; give some to measure with, or leave it out")
    rows = np.linspace(0, vectors.rows - 1, min(vectors.rows, MOST_QUERIES)).astype(np.int64)
    source = QueryKind.FILE.describe(count=len(rows), total=vectors.rows, file=path.name)
    return Queries(vectors.read(rows), QueryKind.FILE, source)


def _check_queries(vectors: VectorFiles, queries: Queries | None, source: VectorSource) -> None:
    if queries is not None and queries.vectors.shape[1] != source.dimension:
        raise IndexFolderError(
            f"{vectors.queries}: vectors of dimension {queries.vectors.shape[1]}, expected {source.dimension} as in "
            "the index"
        )


def _open_arrays(
    vectors: VectorFiles,
    corpora: Sequence[str | Path],
    names: dict[str, Any],
    model: Any,
    options: IndexOptions,
    on_error: Literal["raise", "skip"],
    skips: SkipCounter,
) -> _Origin:
    if vectors.ids is None:
        raise SettingsError("vectors without ids: give the id of each row, one a line (--ids FILE)")
    if model is not None:
        raise SettingsError(
            "a model has no use in a build from vectors, which encodes nothing; name it when searching (--model)"
        )
    if options.has_chunks:
        raise SettingsError(
            f"{options.chunk_size} cannot be used in a build from vectors, which cannot be split; make a vector and an "
            "id for each chunk"
        )
    if options.hybrid and not corpora:
        raise SettingsError(
            "hybrid needs texts, and there are vectors only: give the corpus that they were made of too"
        )
    sources = find_sources(corpora, **names) if corpora else []

    def read_documents() -> Iterator[Document]:
        entries = open_corpora(corpora, sources, on_error, skips, layout=names["layout"], keep_empty=True)
        return (entry.document for entry in entries)

    if corpora:
        read_documents()  # a missing one is reported before the ids are read
    source = NpySource(
        [Path(path) for path in vectors.paths],
        Path(vectors.ids),
        read_documents if corpora else None,
        on_missing=skips if on_error == "skip" else None,
    )
    return _Origin(source, None, "", options, None, tuple(dict.fromkeys(sources)))


def _open_shards(
    vectors: VectorFiles,
    corpora: Sequence[str | Path],
    model: Any,
    options: IndexOptions,
    progress: Progress,
    encoder_options: EncoderOptions | None,
    *,
    wants_encoder: bool,
) -> _Origin:
    if vectors.ids is not None or corpora:
        raise SettingsError("ids and a corpus have no use with shards, which hold their documents; leave them out")
    source = ShardSource([Path(path) for path in vectors.paths], progress)
    shard = source.shard
    running = (encoder_options or EncoderOptions()).within(shard.encoder, "the corpus of the shards")
    chunks = (shard.options.chunk_tokens, shard.options.chunk_overlap)
    other_chunks = (options.chunk_tokens, options.chunk_overlap)
    if options.chunk_tokens is not None and other_chunks != chunks:
        raise SettingsError(
            f"chunk_tokens and chunk_overlap are {other_chunks}, those of the shards {chunks}; leave them out, or make "
            "the shards again"
        )
    store = max(options.store, shard.options.store, key=STORES.index)  # from the most precise to the least
    if options.has_chunks and options.chunks != shard.options.chunks:
        shown = ("chunk_at and chunk_context are", slice(2, 4))
        if options.chunks[4:] != shard.options.chunks[4:]:
            shown = ("chunk_fidelity and chunk_reader are", slice(4, 6))
        raise SettingsError(
            f"{shown[0]} {options.chunks[shown[1]]}, those of the shards {shard.options.chunks[shown[1]]}; "
            "leave them out, or make the shards again"
        )
    tokens, overlap, ends, context, fidelity, reader = shard.options.chunks
    chunked = replace(options, chunk_tokens=tokens, chunk_overlap=overlap, chunk_at=ends, chunk_context=context)
    chunked = replace(chunked, chunk_fidelity=fidelity, chunk_reader=reader)
    merged = replace(chunked, store=store)
    wanted = wants_encoder or model is not None
    encoder, name = _find_encoder(model, shard, running, progress) if wanted else (None, shard.model)
    return _Origin(source, name, shard.fingerprint, merged, encoder, source.sources, shard.encoder)


def _find_encoder(
    model: Any, shard: Shard, options: EncoderOptions, progress: Progress
) -> tuple[Encoder | None, str | None]:
    """Model of the shards and its name; no model if `model` is None and theirs cannot be loaded."""
    try:
        place = shard.model if model is None else model
        encoder, name = load_encoder(place, options if isinstance(place, str | Path) else None, progress)
    except (LLM2CompError, OSError) as error:
        if model is not None:
            raise
        _logger.warning(
            "recall is measured with vectors held out of the index: the model of the shards cannot be loaded: %s", error
        )
        return None, shard.model
    if encoder.fingerprint == shard.fingerprint:
        return encoder, shard.model if model is None else name
    if model is not None:
        raise IndexFolderError(
            f"the model's fingerprint is {encoder.fingerprint[:12]}, that of the shards {shard.fingerprint[:12]}; "
            "name the one that made them"
        )
    _logger.warning(
        "recall is measured with vectors held out of the index: the model found is not that of the shards (name that "
        "one with --model)"
    )
    return None, shard.model


def _write(
    change: Change, origin: _Origin, queries: Queries | None, device: str, progress: Progress
) -> tuple[list[Segment], Report]:
    source, options, start = origin.source, origin.options, time.perf_counter()
    drawn = DrawnDocuments(source.documents) if queries is None and origin.encoder is None else None
    header = {
        **segment_header(origin.fingerprint, source.dimension, options, origin.recorded),
        "vectors": source.identity,
        "held_out": bool(drawn and drawn.held_out),
    }
    with new_segment(change, source.dimension, options, header=header) as new:
        sample = _write_rows(new.rows, source, drawn, progress)
        measured_with = drawn.queries(sample) if drawn and sample is not None else queries
        spent = {"documents": time.perf_counter() - start}
        segment, measured = finish_segment(
            new, options, queries=measured_with, encoder=origin.encoder, device=device, progress=progress, seconds=spent
        )
    if drawn is None or sample is None or not (drawn.held_out and drawn.rows):
        return [segment], measured
    with new_segment(change, source.dimension, options, header={**header, "held_out": "these"}) as new:
        new.rows.append(drawn.rows, drawn.vectors)
        rest = Queries(sample, QueryKind.OTHER_ROWS, QueryKind.OTHER_ROWS.describe(count=len(sample)))
        small, _ = finish_segment(new, options, queries=rest, device=device, progress=silent, small_exact=True)
    return [segment, small], measured


def _write_rows(
    writer: SegmentWriter, source: VectorSource, drawn: DrawnDocuments | None, progress: Progress
) -> NDArray[np.float32] | None:
    """Writes all rows that are not held out; returns the first vectors (rows, dimension) if documents are drawn.

    Raises:
        CorpusError: There are no rows.
    """
    sample: NDArray[np.float32] | None = None
    for block in source.blocks():
        kept = drawn.take(block) if drawn else block
        if not kept.rows:
            continue
        if drawn and sample is None:
            sample = kept.read()[:LEAST_MOVED]
        if not writer.has(kept.rows):
            writer.append(kept.rows, kept.read())
        progress(Phase.DOCUMENTS, writer.documents)
    if not writer.rows:
        raise CorpusError(
            "no vector has a document: there is nothing to index; give the corpus that the vectors were made of"
        )
    return sample
