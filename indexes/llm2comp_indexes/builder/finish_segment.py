"""The last part of making a segment: its type is chosen, its structure built, its recall and latency measured, its BM25 index written."""

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llm2comp.atomic import sync_folder
from llm2comp.corpus.documents import Document
from llm2comp.errors import SettingsError
from llm2comp_indexes.builder.new_segment import NewSegment
from llm2comp_indexes.encoder import Encoder, encode
from llm2comp_indexes.faiss_module import import_faiss
from llm2comp_indexes.format.arrays import ArrayFile
from llm2comp_indexes.format.documents import DocumentReader
from llm2comp_indexes.format.files import FileRecord
from llm2comp_indexes.format.manifest import Names, Segment
from llm2comp_indexes.format.vectors import Storage, open_storage
from llm2comp_indexes.lexical.writer import LexicalWriter
from llm2comp_indexes.options import IndexOptions
from llm2comp_indexes.progress import Phase, Progress, silent
from llm2comp_indexes.structures.build import build_structure
from llm2comp_indexes.structures.gpu import resolve_device
from llm2comp_indexes.structures.structure import IndexType, Structure, memory_bytes, parse_type
from llm2comp_indexes.tuning.choose import choose_type
from llm2comp_indexes.tuning.measure import Point, measure_curve
from llm2comp_indexes.tuning.queries import Queries, QueryKind
from llm2comp_indexes.tuning.report import Report, make_report, write_report

__all__ = ["check_feasible", "finish_segment"]

_QUERIES = (32, 300)
"""Fewest and most queries to measure with: one for each hundred rows between."""
_QUERY_WORDS = (4, 12)
_SMALL = 10_000
"""Rows up to which an added segment gets no structure: comparing all of them takes about a millisecond, and a merge comes."""


_EXACT_REASON = "Comparing all vectors is fast enough, so nothing faster was tried."
_EXACT_QUERIES = 32
_EXACT_NUMBERS = 1 << 28
"""Queries that exact search is timed with, for comparison with a structure's, and components up to which that takes seconds only."""


def check_feasible(options: IndexOptions, dimension: int, device: str) -> None:
    """Raises SettingsError for a type that FAISS does not know and for a GPU that is not there, before anything is encoded."""
    resolve_device(device)
    if options.type != "auto":
        parse_type(options.type, rows=None, dimension=dimension)


class _Stopwatch:
    def __init__(self, seconds: Mapping[str, float]) -> None:
        self.seconds = dict(seconds)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def finish_segment(
    new: NewSegment,
    options: IndexOptions,
    *,
    queries: Queries | None = None,
    encoder: Encoder | None = None,
    device: str = "auto",
    progress: Progress = silent,
    small_exact: bool = False,
    seconds: Mapping[str, float] | None = None,
) -> tuple[Segment, Report]:
    """The finished segment and what was measured on it; all its files are on the device.

    Args:
        new: The segment, with all rows written.
        options: Type, targets, parts.
        queries: What to measure with; None: made of the documents' own words by the encoder.
        encoder: The index's model; not needed with queries.
        device: Where FAISS trains and adds: `cpu`, `cuda` or `auto`.
        progress: Called with each phase.
        small_exact: Leave a segment without a structure, whatever type is asked for, if it has few rows, or too few for
            that type.
        seconds: Of phases that went before, for the report.
    """
    writer, watch, folder = new.rows, _Stopwatch(seconds or {}), new.rows.folder
    progress(Phase.ROWS_WRITTEN, writer.rows)
    with watch.phase("write"):
        files = writer.finish()
    if new.lexical:
        with watch.phase("bm25"):
            files |= _finish_lexical(new.lexical)
    storage = open_storage(folder / Names.VECTORS, rows=writer.rows, dimension=writer.dimension, store=writer.store)
    documents = DocumentReader(folder / Names.DOCUMENTS, folder / Names.OFFSETS, writer.rows)
    try:
        with watch.phase("queries"):
            asked = queries or _draw_queries(documents, encoder, writer.dimension)
    finally:
        documents.close()
    asked = asked._replace(vectors=asked.vectors[: _QUERIES[1]])
    with watch.phase("choose"):
        kind, planned = _choose(storage, options, asked, device, progress, small_exact=small_exact)
    structure: Structure | Storage = storage
    if kind.family != "flat":
        with watch.phase("structure"):
            built = build_structure(
                kind,
                storage,
                device=device,
                on_rows=lambda rows: progress(Phase.STRUCTURE_ROWS, rows),
                workdir=folder,
            )
            files[Names.STRUCTURE] = built.save(folder / Names.STRUCTURE)
            structure = built
    progress(Phase.MEASURING, 0)
    with watch.phase("measure"):
        points = measure_curve(structure, storage, asked.vectors, k=options.targets.k, recall=options.targets.recall)
        exact = _measure_exact(structure, storage, asked.vectors, options.targets.k)
    files[Names.QUERIES] = _write_queries(folder / Names.QUERIES, asked.vectors)
    report = _report(kind, points, exact, options, storage, files, watch, asked, planned)
    files[Names.REPORT] = write_report(folder / Names.REPORT, report)
    sync_folder(folder)
    return Segment(folder.name, writer.rows, 0, writer.documents, kind.factory, files), report


def _choose(
    storage: Storage, options: IndexOptions, queries: Queries, device: str, progress: Progress, *, small_exact: bool
) -> tuple[IndexType, str]:
    if small_exact and storage.rows <= _SMALL:
        return IndexType("Flat"), ""
    if options.type != "auto":
        try:
            return parse_type(options.type, rows=storage.rows, dimension=storage.dimension), ""
        except SettingsError:
            if not small_exact:
                raise
            return IndexType("Flat"), ""  # its numbers are for the whole index, which a merge makes of the parts
    progress(Phase.CHOOSING, 0)
    plan = choose_type(storage, options.targets, queries=queries.vectors, device=device, workdir=storage.path.parent)
    return plan.type, _EXACT_REASON if plan.type.family == "flat" and plan.met else plan.reason


def _measure_exact(
    structure: Structure | Storage, storage: Storage, queries: NDArray[np.float32], k: int
) -> Point | None:
    """Exact search, for comparison with a structure; None where it would take long."""
    if isinstance(structure, Storage) or storage.rows * storage.dimension > _EXACT_NUMBERS:
        return None
    return measure_curve(storage, storage, queries[:_EXACT_QUERIES], k=k)[0]


def _report(
    kind: IndexType,
    points: tuple[Point, ...],
    exact: Point | None,
    options: IndexOptions,
    storage: Storage,
    files: dict[str, FileRecord],
    watch: _Stopwatch,
    queries: Queries,
    planned: str,
) -> Report:
    return make_report(
        kind,
        points,
        options.targets,
        rows=storage.rows,
        dimension=storage.dimension,
        memory=memory_bytes(kind, rows=storage.rows, dimension=storage.dimension, store=storage.store),
        bytes=sum(record.bytes for record in files.values()),
        seconds=watch.seconds,
        threads=import_faiss().omp_get_max_threads(),
        query_source=queries.source,
        query_kind=queries.kind,
        exact=exact,
        planned=planned,
    )


def _write_queries(path: Path, vectors: NDArray[np.float32]) -> FileRecord:
    file = ArrayFile(path, "<f4", vectors.size)
    file.append(vectors.ravel())
    return file.finish()


def _finish_lexical(lexical: LexicalWriter) -> dict[str, FileRecord]:
    return {f"{Names.LEXICAL}/{name}": record for name, record in lexical.finish().items()}


def _draw_queries(documents: DocumentReader, encoder: Encoder | None, dimension: int) -> Queries:
    """A few words in a row out of random documents, encoded as queries: never vectors that are in the index."""
    assert encoder is not None, "give queries or an encoder"
    draw = random.Random(0)
    wanted = min(len(documents), max(_QUERIES[0], min(_QUERIES[1], len(documents) // 100)))
    texts = [_words(documents[row], draw) for row in draw.sample(range(len(documents)), wanted)]
    least, most = _QUERY_WORDS
    source = QueryKind.PASSAGES.describe(count=len(texts), least=least, most=most)
    return Queries(encode(encoder.encode_query, texts, dimension), QueryKind.PASSAGES, source)


def _words(document: Document, draw: random.Random) -> str:
    words = document.content[:20_000].split() or [document.id]
    start, length = draw.randrange(len(words)), draw.randint(*_QUERY_WORDS)
    return " ".join(words[max(0, min(start, len(words) - length)) :][:length])
