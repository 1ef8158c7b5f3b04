"""Builds an index: documents are encoded and written block by block, then a structure is built, measured, committed."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from llm2comp.corpus.fields import FieldNames
from llm2comp.corpus.report import SkipCounter
from llm2comp.corpus.rows import as_corpora
from llm2comp.corpus.table_format import TableFormat
from llm2comp.encoder_options import EncoderOptions
from llm2comp_indexes.builder.blocks import split_into_blocks, write_blocks
from llm2comp_indexes.builder.chunks import make_row_encoder, make_splitter, with_reader_place
from llm2comp_indexes.builder.corpora import check_limit, find_sources, open_corpora, split_entries
from llm2comp_indexes.builder.finish_segment import check_feasible, check_type, finish_segment
from llm2comp_indexes.builder.new_segment import new_segment, segment_header
from llm2comp_indexes.encoder import Encoder, load_encoder, options_of
from llm2comp_indexes.faiss_module import import_faiss
from llm2comp_indexes.format.commits import check_output, create_index
from llm2comp_indexes.format.manifest import Manifest, memory_form
from llm2comp_indexes.options import IndexOptions, MemoryKind
from llm2comp_indexes.progress import Progress, silent
from llm2comp_indexes.tuning.report import Report

__all__ = ["BuildReport", "build_index"]


@dataclass(frozen=True, slots=True)
class BuildReport:
    """Result of a build.

    Attributes:
        documents: Number of documents in the index.
        skipped: Number of malformed or duplicate rows left out (with `on_error="skip"`).
        dimension: Length of a vector.
        bytes: Size of the index on disk, without its manifest.
        seconds: Duration of the build, without loading the model.
        encoded: Number of rows encoded by this run, which does not encode again what a stopped run had encoded.
        encode_seconds: Duration of the encoding alone.
        measured: Type, recall and latency of the finished index.
        cut: Number of words, rows of tables and lines of code that were longer than a chunk and had to be cut.
        empty: Number of rows without title and text, which are not indexed. Files are counted in the log.
        below: Number of sentences, rows and lines that are chunks by themselves, below the fidelity of chunks.
    """

    documents: int
    skipped: int
    dimension: int
    bytes: int
    seconds: float
    encoded: int
    encode_seconds: float
    measured: Report
    cut: int = 0
    empty: int = 0
    below: int = 0


def build_index(
    corpora: str | Path | Iterable[Any],
    output: str | Path,
    *,
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
    limit: int | None = None,
    memory_vectors: MemoryKind | None = None,
) -> BuildReport:
    """Report of the index written to the folder `output`.

    The index appears once it is complete; an index that is overwritten stays as it is until then. A build that was
    killed, interrupted or ran out of space resumes after its last finished block when it is run again.

    Args:
        corpora: Sources that `llm2comp.corpus.read.read_corpus` takes; an id that they give must not occur in two of
            them. Or documents in memory, one source: an iterable of `Document`s, dicts, LangChain's documents or
            LlamaIndex's nodes, read once, or a data frame of pandas, polars or Arrow.
        output: A folder that does not exist, is empty, or was left by a stopped build.
        model: A name or folder for `llm2comp.load`, a loaded model, or None for the bundled one.
        options: Type, targets, store, chunking and BM25; None: type and parameters are chosen by measurement.
        device: Device on which FAISS trains and adds: `cpu`, `cuda`, or `auto` for CUDA if FAISS sees a GPU.
        on_error: Whether a malformed row or a duplicate id raises an error, or is skipped and counted.
        overwrite: Replace the index in `output`; a folder that holds anything else is still refused.
        on_skip: Called with the message of each skipped row; None: messages go to the log.
        progress: Called with the phase and the number of its units done.
        header: Whether the first line of .csv and .tsv files has the column names; None: if it has known ones.
        quotes: Whether fields of .csv and .tsv files may be enclosed in quotes; None: in CSV they may, in TSV if the
            file shows it.
        fields: Which fields of a row are its id, title, text and metadata; None: known names.
        source: Name of the source, if a single corpus is given: ids made for its documents begin with it. None: the
            name of its file or folder, made unique; `rows` for documents in memory.
        ids_are_positions: Whether a row without an id gets its position as id, instead of a hash of its content.
        csv_strings: Whether all columns of .csv and .tsv files stay text; otherwise metadata columns become numbers,
            truth values or dates where all their values are.
        separator: The character between the values of .csv and .tsv files, or "tab"; None: what they show.
        encoding: Encoding of the text files; None: UTF-8, UTF-16 with a byte order mark, and Windows-1252 where a file
            other than JSON lines is not UTF-8 and looks like it.
        encoder: Options of the model: dtype, maximum length, truncation, engine, device and batch size. The index keeps
            those that change vectors, and searches with them.
        limit: Number of documents to index, the first of the corpora; None: all.
        memory_vectors: That field of `options`, for short: whether the vectors of memory tokens are stored too.

    Raises:
        CorpusError: A corpus is missing, empty or malformed, or an id occurs twice.
        SettingsError: FAISS cannot make the type, there is no GPU for `cuda`, the model cannot run with `encoder`, or
            it has no reader for chunks by fidelity.
        BackboneError: The reader of the chunks cannot be loaded, or does not fit the model.
        IndexFolderError: `output` is not empty, cannot be written, or is being written by another process.
    """
    import_faiss()
    target = Path(output).resolve()
    check_output(target, overwrite=overwrite)
    chosen, show = with_reader_place(options or IndexOptions()), progress or silent
    if memory_vectors is not None:
        chosen = replace(chosen, memory_vectors=memory_vectors)
    check_feasible(chosen, device)
    skips = SkipCounter(on_skip)
    layout = TableFormat(header, quotes, separator, encoding)
    listed = as_corpora(corpora)
    sources = find_sources(
        listed, name=source, positions=ids_are_positions, fields=fields, strings=csv_strings, layout=layout
    )
    check_limit(limit)
    entries = islice(open_corpora(listed, sources, on_error, skips, layout=layout), limit)
    unique = tuple(dict.fromkeys(sources))
    loaded, name = load_encoder(model, encoder, show)
    recorded, batch_size = options_of(loaded, encoder), encoder.batch_size if encoder else None
    encode = make_row_encoder(chosen, loaded, batch_size)
    split = make_splitter(chosen, loaded)
    check_type(chosen, encode.dimension)
    start = time.perf_counter()
    with create_index(target, overwrite=overwrite) as change:
        segment_facts = segment_header(loaded.fingerprint, encode.dimension, chosen, recorded)
        form = memory_form(chosen, encode.memory_tokens, encode.dimension)
        with new_segment(change, encode.dimension, chosen, header=segment_facts, memory=form) as new:
            write_blocks(
                new.rows,
                split_into_blocks(split_entries(entries, split, unique)),
                encode,
                progress=show,
                batch_size=batch_size,
            )
            spent = {"encode": encode.seconds, "documents": max(0.0, time.perf_counter() - start - encode.seconds)}
            segment, measured = finish_segment(new, chosen, encoder=loaded, device=device, progress=show, seconds=spent)
        made = (name, loaded.fingerprint, encode.dimension, chosen, (segment,))
        made_of = Manifest(0, *made, {}, sources=unique, encoder=recorded, memory_tokens=encode.memory_tokens)
        manifest = change.commit(made_of, keep=False)
    seconds = time.perf_counter() - start
    return BuildReport(
        manifest.documents,
        skips.count,
        manifest.dimension,
        manifest.bytes,
        seconds,
        encode.rows,
        encode.seconds,
        measured,
        split.cut,
        skips.empty,
        split.below,
    )
