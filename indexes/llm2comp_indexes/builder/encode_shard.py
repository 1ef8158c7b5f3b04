"""Encoding of one shard, a part of a corpus, block by block: a killed run loses at most one block."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from llm2comp.corpus.documents import Document
from llm2comp.corpus.entry import Entry
from llm2comp.corpus.fields import FieldNames
from llm2comp.corpus.report import SkipCounter
from llm2comp.corpus.rows import as_corpora
from llm2comp.corpus.sources import Source, source_of
from llm2comp.corpus.table_format import TableFormat
from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import IndexFolderError
from llm2comp_indexes.builder.blocks import DocumentRows, split_into_blocks, write_blocks
from llm2comp_indexes.builder.chunks import RowMaker, make_row_encoder, make_splitter, with_reader_place
from llm2comp_indexes.builder.corpora import find_sources, open_corpora, without_file_time
from llm2comp_indexes.builder.new_segment import segment_header
from llm2comp_indexes.builder.shard_file import ROWS, SHARD, Part, Shard, read_shard, write_shard
from llm2comp_indexes.builder.shard_folder import check_shard_folder, clear_shard, writing_shard
from llm2comp_indexes.encoder import Encoder, RowEncoder, load_encoder, options_of
from llm2comp_indexes.faiss_module import import_faiss
from llm2comp_indexes.format.commits import versions
from llm2comp_indexes.format.documents import document_line
from llm2comp_indexes.format.segment_writer import JOURNAL, SegmentWriter
from llm2comp_indexes.options import IndexOptions, refuse_memory_vectors
from llm2comp_indexes.progress import Phase, Progress, silent

__all__ = ["ShardReport", "encode_shard"]

_logger = logging.getLogger(__name__)


class ShardReport(NamedTuple):
    """Result of `encode_shard`.

    Attributes:
        folder: Folder of the shard.
        documents: Number of documents in the shard.
        corpus_documents: Number of documents in the whole corpus.
        rows: Number of rows (documents or chunks) in the shard.
        dimension: Length of a vector.
        bytes: Size of the shard's files.
        skipped: Number of malformed or duplicate rows of the corpus that were left out.
        seconds: Duration of the run, without loading the model.
        encode_seconds: Duration of the encoding alone.
        encoded: Number of rows encoded by this run.
        cut: Number of words, rows of tables and lines of code that this run had to cut for chunks.
        empty: Number of rows of the corpus without title and text, which are not encoded.
    """

    folder: Path
    documents: int
    corpus_documents: int
    rows: int
    dimension: int
    bytes: int
    skipped: int
    seconds: float
    encode_seconds: float
    encoded: int
    cut: int = 0
    empty: int = 0


class _Corpus:
    """Iterates over one part of a corpus while it counts and hashes the whole: shards of two corpora do not fit.

    The hash leaves out when files were changed, for every host may read a copy of its own.
    """

    def __init__(self, entries: Iterable[Entry], part: Part, sources: Sequence[Source]) -> None:
        self.documents = self.taken = 0
        self._entries, self._part, self._digest = entries, part, hashlib.sha256()
        self._files = {source.name for source in sources if source.files}

    def __iter__(self) -> Iterator[Document]:
        for entry in self._entries:
            document = entry.document
            is_file = entry.earlier_id is not None and source_of(document.id) in self._files
            self._digest.update(document_line(without_file_time(document) if is_file else document))
            if self.documents % self._part.shards == self._part.shard - 1:
                self.taken += 1
                yield document
            self.documents += 1

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


class _MadeBy(NamedTuple):
    """Name and fingerprint of the model, the options that change its vectors, and its batch size."""

    name: str | None
    fingerprint: str
    options: EncoderOptions
    batch_size: int | None


def encode_shard(
    corpora: str | Path | Iterable[Any],
    output: str | Path,
    part: Part | None = None,
    *,
    model: str | Path | Encoder | None = None,
    options: IndexOptions | None = None,
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
) -> ShardReport:
    """Report of the shard written to the folder `shard-I-of-N` in `output`.

    Every host reads the whole corpus and encodes its part: documents I, I + N, I + 2N and so on. A killed run resumes
    after its last finished block when it is run again. A finished shard is left as it is if the corpus is the same.

    Args:
        corpora: As for `build_index`, the same for all shards.
        output: A folder for shards.
        part: Number of the shard and of all shards; None: the whole corpus as one shard.
        model: A name or folder for `llm2comp.load`, a loaded model, or None for the bundled one.
        options: Store and chunking; all other options are set when the shards are joined.
        on_error: Whether a malformed row or a duplicate id raises an error, or is skipped and counted.
        overwrite: Encode the shard again, even if its folder holds another one.
        on_skip: Called with the message of each skipped row; None: messages go to the log.
        progress: Called with the phase and the number of its units done.
        header: As for `build_index`.
        quotes: As for `build_index`.
        fields: As for `build_index`.
        source: As for `build_index`.
        ids_are_positions: As for `build_index`.
        csv_strings: As for `build_index`.
        separator: As for `build_index`.
        encoding: As for `build_index`.
        encoder: As for `build_index`; the same for all shards.

    Raises:
        CorpusError: A corpus is missing, empty or malformed, or an id occurs twice.
        IndexFolderError: The folder holds another shard or something else, cannot be written, or is being written by
            another process.
        SettingsError: The options ask for vectors of memory tokens.
    """
    import_faiss()
    part, chosen, show = part or Part(1, 1), with_reader_place(options or IndexOptions()), progress or silent
    refuse_memory_vectors(chosen, "a shard holds no vectors of memory tokens")
    skips = SkipCounter(on_skip)
    folder = Path(output).resolve() / part.folder
    layout = TableFormat(header, quotes, separator, encoding)
    listed = as_corpora(corpora)
    sources = find_sources(
        listed, name=source, positions=ids_are_positions, fields=fields, strings=csv_strings, layout=layout
    )
    corpus = _Corpus(open_corpora(listed, sources, on_error, skips, layout=layout), part, sources)
    check_shard_folder(folder, overwrite=overwrite)
    loaded, name = load_encoder(model, encoder, show)
    recorded, batch_size = options_of(loaded, encoder), encoder.batch_size if encoder else None
    start = time.perf_counter()
    encode = make_row_encoder(chosen, loaded, batch_size)
    split = make_splitter(chosen, loaded)
    with writing_shard(folder):
        check_shard_folder(folder, overwrite=overwrite)
        if overwrite:
            clear_shard(folder)
        if (folder / SHARD).exists():
            shard = _check_same(folder, read_shard(folder), corpus, loaded.fingerprint, chosen, recorded, show)
        else:
            made_by = _MadeBy(name, loaded.fingerprint, recorded, batch_size)
            shard = _make(folder, corpus, sources, part, made_by, encode, split, chosen, show)
    size = sum(record.bytes for record in shard.files.values())
    counts = (shard.documents, shard.corpus_documents, shard.rows, shard.dimension, size, skips.count)
    spent = (time.perf_counter() - start, encode.seconds)
    return ShardReport(folder, *counts, *spent, encode.rows, split.cut, skips.empty)


def _make(
    folder: Path,
    corpus: _Corpus,
    sources: Sequence[Source],
    part: Part,
    made_by: _MadeBy,
    encode: RowEncoder,
    split: RowMaker,
    options: IndexOptions,
    progress: Progress,
) -> Shard:
    header = segment_header(made_by.fingerprint, encode.dimension, options, made_by.options)
    header["shard"] = list(part)
    (folder / ROWS).mkdir(exist_ok=True)
    with SegmentWriter(folder / ROWS, encode.dimension, options.store, header=header) as writer:
        write_blocks(
            writer,
            # a shard keeps no origins: the sources are numbered anew where shards are joined
            (block._replace(origins=()) for block in split_into_blocks(DocumentRows(split(row)) for row in corpus)),
            encode,
            progress=progress,
            batch_size=made_by.batch_size,
        )
        progress(Phase.FINISHING, 0)
        files = writer.finish()
    counts = (writer.rows, corpus.taken, corpus.documents, corpus.sha256)
    made = (files, versions(), tuple(dict.fromkeys(sources)), made_by.options)
    shard = Shard(part, made_by.name, made_by.fingerprint, encode.dimension, options, *counts, *made)
    write_shard(folder, shard)
    (folder / ROWS / JOURNAL).unlink()
    return shard


def _check_same(
    folder: Path,
    shard: Shard,
    corpus: _Corpus,
    fingerprint: str,
    options: IndexOptions,
    encoder: EncoderOptions,
    progress: Progress,
) -> Shard:
    """The finished shard, after checking that it is of this corpus, model and settings."""
    made_with = (shard.fingerprint, shard.options.store, shard.options.chunks, shard.encoder)
    if (fingerprint, options.store, options.chunks, encoder) == made_with:
        for count, _ in enumerate(corpus, start=1):
            if not count % 4096:
                progress(Phase.DOCUMENTS_COMPARED, count)
        if corpus.sha256 == shard.corpus_sha256:
            _logger.info("%s: finished already; nothing to encode", folder)
            return shard
    raise IndexFolderError(
        f"{folder}: already holds this shard of another corpus, model, encoding, store or chunking; name another "
        "folder with -o, or --overwrite it"
    )
