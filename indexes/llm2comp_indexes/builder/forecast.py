"""Forecast of a build: what it will take and hold, from one pass over the corpus and measurements on a sample of it."""

import heapq
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import numpy as np

from llm2comp.corpus.documents import Document
from llm2comp.corpus.fields import FieldNames
from llm2comp.corpus.report import SkipCounter
from llm2comp.corpus.rows import as_corpora
from llm2comp.corpus.table_format import TableFormat
from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import SettingsError
from llm2comp.truncation import count_truncated
from llm2comp_indexes.builder.chunks import make_row_encoder, make_splitter, make_text_of_row
from llm2comp_indexes.builder.corpora import check_limit, find_sources, open_corpora
from llm2comp_indexes.builder.finish_segment import check_feasible, check_type, count_queries
from llm2comp_indexes.encoder import Encoder, RowEncoder, load_encoder
from llm2comp_indexes.faiss_module import import_faiss
from llm2comp_indexes.format.documents import document_line
from llm2comp_indexes.format.manifest import memory_form
from llm2comp_indexes.format.memory_vectors import memory_bytes
from llm2comp_indexes.format.metadata import MetadataWriter
from llm2comp_indexes.lexical.writer import LexicalWriter
from llm2comp_indexes.options import IndexOptions
from llm2comp_indexes.progress import Phase, Progress, silent
from llm2comp_indexes.tuning.cost import expect_type, row_files_bytes, structure_bytes

__all__ = ["Forecast", "forecast_build"]

_SAMPLE = 2_000
_SAMPLE_CHARACTERS = 1 << 26
"""Maximum numbers of documents of a sample, and of characters in them."""
_REPORT_BYTES = 3_000
_WARM_UP = 32
_AT_ONCE = 256
_FIRST = 8
"""Number of rows encoded first, which shows how many can be encoded in the time there is."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a build will take and hold.

    Attributes:
        documents: Number of documents in the corpus, or in its first `limit`.
        skipped: Number of malformed or duplicate rows left out (with `on_error="skip"`).
        characters: Number of characters in their titles and texts.
        rows: Number of rows: documents, or chunks of them.
        tokens: Number of tokens that the model will read, its memory tokens included; None if it does not tell.
        cut: Share of the rows that are longer than the model reads, 0 to 1.
        dimension: Length of a vector.
        encode_seconds: Duration of the encoding.
        read_seconds: Duration of reading the corpus once, which a build does while it encodes.
        type: FAISS factory string of the type that is expected.
        others: Other types that a build will try, if it will choose by measuring.
        exact_ms: Median time in milliseconds in which one query is compared with all vectors.
        memory: Bytes that searching will hold in memory.
        bytes: Size of the index on disk, without its manifest.
        sampled: Number of documents that all this was measured on.
        encoded: Number of rows that were encoded for it.
    """

    documents: int
    skipped: int
    characters: int
    rows: int
    tokens: int | None
    cut: float
    dimension: int
    encode_seconds: float
    read_seconds: float
    type: str
    others: tuple[str, ...]
    exact_ms: float
    memory: int
    bytes: int
    sampled: int
    encoded: int


def forecast_build(
    corpora: str | Path | Iterable[Any],
    *,
    model: str | Path | Encoder | None = None,
    options: IndexOptions | None = None,
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
    limit: int | None = None,
    seconds: float = 10.0,
) -> Forecast:
    """Forecast of `build_index` with the same arguments: the corpus is read once, and a random sample of it encoded.

    Args:
        corpora: As for `build_index`, but no standard input, which can be read only once.
        model: As for `build_index`.
        options: As for `build_index`.
        device: As for `build_index`.
        on_error: As for `build_index`.
        on_skip: As for `build_index`.
        progress: As for `build_index`.
        header: As for `build_index`.
        quotes: As for `build_index`.
        fields: As for `build_index`.
        source: As for `build_index`.
        ids_are_positions: As for `build_index`.
        csv_strings: As for `build_index`.
        separator: As for `build_index`.
        encoding: As for `build_index`.
        encoder: As for `build_index`.
        limit: As for `build_index`.
        seconds: Approximate maximum duration of the encoding of the sample.

    Raises:
        CorpusError: A corpus is missing, empty or malformed, or an id occurs twice.
        SettingsError: As for `build_index`; or the targets cannot be met, whatever the type.
    """
    import_faiss()
    check_limit(limit)
    listed = as_corpora(corpora)
    if any(str(corpus) == "-" for corpus in listed if isinstance(corpus, str | Path)):
        raise SettingsError("the corpus is standard input, which a forecast would use up; save it to a file first")
    chosen, show, skips = options or IndexOptions(), progress or silent, SkipCounter(on_skip)
    check_feasible(chosen, device)
    if chosen.chunk_fidelity is not None:
        raise SettingsError(
            "no forecast of chunks by fidelity (chunk_fidelity), whose ends are only found by reading every text"
        )
    layout = TableFormat(header, quotes, separator, encoding)
    sources = find_sources(
        listed, name=source, positions=ids_are_positions, fields=fields, strings=csv_strings, layout=layout
    )
    entries = open_corpora(listed, sources, on_error, skips, layout=layout)
    loaded, _ = load_encoder(model, encoder, show)
    encode = make_row_encoder(chosen, loaded, encoder.batch_size if encoder else None)
    check_type(chosen, encode.dimension)
    start = time.perf_counter()
    show(Phase.DOCUMENTS_READ, 0)
    corpus = _read((entry.document for entry in islice(entries, limit)), show)
    read_seconds = time.perf_counter() - start
    split = make_splitter(chosen, loaded)
    rows = [split(document) for document in corpus.sample]
    total = round(corpus.total([len(parts) for parts in rows]))
    expected = expect_type(chosen, total, encode.dimension)  # raises before anything is encoded
    work = _Work(loaded, make_text_of_row(chosen, loaded), [row for parts in rows for row in parts])
    per_document = work.per_document([len(parts) for parts in rows])
    timed, encoded_work, encoded = work.time(encode, seconds, show)
    units = corpus.total(per_document)
    size = _count_vector_bytes(total, encode, chosen) + _count_text_bytes(corpus, rows, total, chosen)
    size += structure_bytes(expected.type, total, encode.dimension, chosen.store)
    return Forecast(
        corpus.documents,
        skips.count,
        corpus.characters,
        total,
        round(units) if work.counts_tokens else None,
        work.cut,
        encode.dimension,
        timed * units / encoded_work,
        read_seconds,
        expected.type.factory,
        tuple(kind.factory for kind in expected.others),
        expected.exact_ms,
        expected.memory,
        size,
        len(corpus.sample),
        encoded,
    )


class _Corpus(NamedTuple):
    """Counts of a corpus, and a random sample of its documents."""

    documents: int
    characters: int
    sample: list[Document]

    def total(self, values: Sequence[float]) -> float:
        """Sum over the whole corpus of a value per document, known for the sample.

        Estimated by regression on the lengths of the documents, which are known for all of them.
        """
        found = np.asarray(values, np.float64)
        if len(found) == self.documents:
            return float(found.sum())
        lengths = np.array([_length(document) for document in self.sample], np.float64)
        spread = lengths.var()
        slope = ((lengths - lengths.mean()) * (found - found.mean())).mean() / spread if spread else 0.0
        mean = found.mean() + slope * (self.characters / self.documents - lengths.mean())
        return float(self.documents * max(mean, found.min()))


def _length(document: Document) -> int:
    return len(document.title) + len(document.text)


def _read(documents: Iterator[Document], progress: Progress) -> _Corpus:
    """One pass: every document is counted, those with the smallest of random numbers are kept."""
    draw = random.Random(0)
    kept: list[tuple[float, int, Document]] = []  # a heap with the largest random number first
    count = characters = held = 0
    for document in documents:
        count += 1
        characters += (length := _length(document))
        entry = (-draw.random(), count, document)
        full = len(kept) >= _SAMPLE or (kept and held + length > _SAMPLE_CHARACTERS)
        if not full:
            heapq.heappush(kept, entry)
            held += length
        elif entry[0] > kept[0][0]:
            held += length - _length(heapq.heapreplace(kept, entry)[2])
            while held > _SAMPLE_CHARACTERS and len(kept) > 1:
                held -= _length(heapq.heappop(kept)[2])
        if not count % 4096:
            progress(Phase.DOCUMENTS_READ, count)
    return _Corpus(count, characters, [document for _, _, document in sorted(kept, key=lambda entry: entry[1])])


class _Work:
    """The rows of the sample, and the tokens that the model reads of each; or characters, if it does not tell.

    Attributes:
        counts_tokens: Whether tokens are known.
        cut: Share of the rows that are longer than the model reads.
    """

    def __init__(self, encoder: Encoder, text: Callable[[Document], str], rows: Sequence[Document]) -> None:
        self._rows = rows
        texts = [text(row) for row in rows]
        module = getattr(encoder, "encoder", None)
        self.counts_tokens, self.cut = hasattr(module, "token_ids"), 0.0
        if module is None or not self.counts_tokens:
            self._units = [len(text) + 1 for text in texts]
            return
        module.pop_truncated()
        ids = [
            ids for first in range(0, len(texts), _AT_ONCE) for ids in module.token_ids(texts[first : first + _AT_ONCE])
        ]
        self.cut = module.pop_truncated() / max(1, len(texts))
        self._units = [len(row) + module.memory_tokens for row in ids]

    def per_document(self, counts: Sequence[int]) -> list[int]:
        """Units of each document, which has so many of the rows."""
        remaining = iter(self._units)
        return [sum(islice(remaining, count)) for count in counts]

    def time(self, encode: RowEncoder, seconds: float, progress: Progress) -> tuple[float, int, int]:
        """Seconds, units and number of rows of the encoding of random rows, warmed up, in about that time at most."""
        order = random.Random(1).sample(range(len(self._rows)), len(self._rows))
        with count_truncated():
            first = self._encode(encode, order[:_FIRST])
            rate = self._encode(encode, order[:_FIRST]) / len(order[:_FIRST])
            if rate * _WARM_UP < seconds / 10:
                self._encode(encode, order[-_WARM_UP:])
            at_once = max(1, min(_AT_ONCE, round(seconds / max(rate, 1e-9) / 2)))
            spent, units, encoded = 0.0, 0, 0
            for start in range(0, len(order), at_once):
                chosen = order[start : start + at_once]
                if encoded and (spent + first >= seconds or spent * (1 + len(chosen) / encoded) > seconds):
                    break
                spent += self._encode(encode, chosen)
                units += sum(self._units[row] for row in chosen)
                encoded += len(chosen)
                progress(Phase.SAMPLE_ENCODED, encoded)
        return spent, units, encoded

    def _encode(self, encode: RowEncoder, chosen: Sequence[int]) -> float:
        start = time.perf_counter()
        encode([self._rows[row] for row in chosen])
        return time.perf_counter() - start


def _count_vector_bytes(rows: int, encode: RowEncoder, options: IndexOptions) -> int:
    """Size of the vectors of rows, of their memory tokens and of the queries to measure with, and of the report."""
    size = row_files_bytes(rows, encode.dimension, options.store)
    if (form := memory_form(options, encode.memory_tokens, encode.dimension)) is not None:
        size += memory_bytes(rows, form)
    return size + 4 * encode.dimension * count_queries(rows) + _REPORT_BYTES


def _count_text_bytes(corpus: _Corpus, rows: Sequence[Sequence[Document]], total: int, options: IndexOptions) -> int:
    """Size of the documents, of the columns of their metadata, and of the BM25 index if there will be one."""
    lines = corpus.total([sum(len(document_line(row)) for row in parts) for parts in rows])
    flat = [row for parts in rows for row in parts]
    with TemporaryDirectory(prefix="llm2comp-plan-") as folder:
        with MetadataWriter(Path(folder) / "metadata") as metadata:
            metadata.add(flat)
            record = metadata.finish()
        size = lines + (record.bytes if record else 0) * total / len(flat)
        if options.hybrid:
            with LexicalWriter(Path(folder) / "bm25", options.language) as lexical:
                lexical.add(row.content for row in flat)
                size += sum(file.bytes for file in lexical.finish().values()) * total / len(flat)
    return round(size)
