"""Last steps of a new segment: BM25 index, choice of the type, structure, measurement, report."""

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
from llm2comp_indexes.format.segment import Names, Segment
from llm2comp_indexes.format.vectors import Storage, open_storage
from llm2comp_indexes.lexical.stems import check_language
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

__all__ = [
    "SMALL",
    "check_feasible",
    "check_type",
    "count_queries",
    "finish_segment",
    "finish_unmeasured",
    "measure_exact",
    "write_queries",
]

_QUERIES = (32, 300)
"""Minimum and maximum number of queries to measure with; between, one per hundred rows."""
_QUERY_WORDS = (4, 12)
SMALL = 10_000
"""Number of rows up to which an added segment gets no structure: comparing all of them takes about a millisecond."""

_EXACT_REASON = "Comparing all vectors is fast enough, so nothing faster was tried."
_EXACT_QUERIES = 32
_EXACT_NUMBERS = 1 << 28
"""Number of queries that exact search is timed with for comparison, and of components up to which that is quick."""


def check_feasible(options: IndexOptions, device: str) -> None:
    """Raises SettingsError, before a model is loaded, if the language or a GPU is missing."""
    resolve_device(device)
    check_language(options.language)


def check_type(options: IndexOptions, dimension: int) -> None:
    """Raises SettingsError, before anything is encoded, if FAISS cannot make the type of so many components."""
    if options.type != "auto":
        parse_type(options.type, rows=None, dimension=dimension)


def count_queries(rows: int) -> int:
    """Number of queries that an index of so many rows is measured with, if they are drawn from its documents."""
    return min(rows, max(_QUERIES[0], min(_QUERIES[1], rows // 100)))


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
        options: Type and targets.
        queries: Queries to measure with; None: passages of the documents, encoded as queries.
        encoder: Model of the index; not needed with queries.
        device: Device on which FAISS trains and adds: `cpu`, `cuda` or `auto`.
        progress: Called with each phase.
        small_exact: Build no structure, whatever the type in the options, for a segment with few rows, or too few for
            that type.
        seconds: Duration of earlier phases, for the report.
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
            queries = queries or _draw_queries(documents, encoder, writer.dimension)
    finally:
        documents.close()
    queries = queries._replace(vectors=queries.vectors[: _QUERIES[1]])
    with watch.phase("choose"):
        kind, planned = _choose(storage, options, queries, device, progress, small_exact=small_exact)
    structure: Structure | Storage = storage
    if kind.family != "flat":
        with watch.phase("structure"):
            structure, files[Names.STRUCTURE] = _build_structure(kind, storage, folder, device, progress)
    progress(Phase.MEASURING, 0)
    with watch.phase("measure"):
        points = measure_curve(structure, storage, queries.vectors, k=options.targets.k, recall=options.targets.recall)
        exact = measure_exact(structure, storage, queries.vectors, options.targets.k)
    files[Names.QUERIES] = write_queries(folder / Names.QUERIES, queries.vectors)
    report = _report(kind, points, exact, options, storage, files, watch, queries, planned)
    files[Names.REPORT] = write_report(folder / Names.REPORT, report)
    sync_folder(folder)
    return Segment(folder.name, writer.rows, 0, writer.documents, kind.factory, files), report


def finish_unmeasured(new: NewSegment) -> Segment:
    """The finished segment without a structure or a measurement; all its files are on the device."""
    writer = new.rows
    files = writer.finish() | (_finish_lexical(new.lexical) if new.lexical else {})
    sync_folder(writer.folder)
    return Segment(writer.folder.name, writer.rows, 0, writer.documents, IndexType("Flat").factory, files)


def _build_structure(
    kind: IndexType, storage: Storage, folder: Path, device: str, progress: Progress
) -> tuple[Structure, FileRecord]:
    structure = build_structure(
        kind, storage, device=device, on_rows=lambda rows: progress(Phase.STRUCTURE_ROWS, rows), workdir=folder
    )
    return structure, structure.save(folder / Names.STRUCTURE)


def _choose(
    storage: Storage, options: IndexOptions, queries: Queries, device: str, progress: Progress, *, small_exact: bool
) -> tuple[IndexType, str]:
    if small_exact and storage.rows <= SMALL:
        return IndexType("Flat"), ""
    if options.type != "auto":
        try:
            return parse_type(options.type, rows=storage.rows, dimension=storage.dimension), ""
        except SettingsError:
            if not small_exact:
                raise
            return IndexType("Flat"), ""  # the numbers in the type are for the whole index, once it is merged
    progress(Phase.CHOOSING, 0)
    plan = choose_type(storage, options.targets, queries=queries.vectors, device=device, workdir=storage.path.parent)
    return plan.type, _EXACT_REASON if plan.type.family == "flat" and plan.met else plan.reason


def measure_exact(
    structure: Structure | Storage, storage: Storage, queries: NDArray[np.float32], k: int
) -> Point | None:
    """Exact search for comparison with the structure; None if there is no structure or it would take long."""
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


def write_queries(path: Path, vectors: NDArray[np.float32]) -> FileRecord:
    """Writes the vectors (queries, dimension) that a segment was measured with; returns the record of the file."""
    file = ArrayFile(path, "<f4", vectors.size)
    file.append(vectors.ravel())
    return file.finish()


def _finish_lexical(lexical: LexicalWriter) -> dict[str, FileRecord]:
    return {f"{Names.LEXICAL}/{name}": record for name, record in lexical.finish().items()}


def _draw_queries(documents: DocumentReader, encoder: Encoder | None, dimension: int) -> Queries:
    """Short passages of random documents, encoded as queries: never vectors of the index."""
    assert encoder is not None, "give queries or an encoder"
    draw = random.Random(0)
    count = count_queries(len(documents))
    texts = [_draw_passage(documents[row], draw) for row in draw.sample(range(len(documents)), count)]
    least, most = _QUERY_WORDS
    source = QueryKind.PASSAGES.describe(count=len(texts), least=least, most=most)
    return Queries(encode(encoder.encode_query, texts, dimension), QueryKind.PASSAGES, source)


def _draw_passage(document: Document, draw: random.Random) -> str:
    words = document.content[:20_000].split() or [document.id]
    start, length = draw.randrange(len(words)), draw.randint(*_QUERY_WORDS)
    return " ".join(words[max(0, min(start, len(words) - length)) :][:length])
