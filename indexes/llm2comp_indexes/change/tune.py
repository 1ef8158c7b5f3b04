"""Measures an index with questions of its user, and commits the effort that suits them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.atomic import sync_folder
from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import IndexFolderError, SettingsError
from llm2comp_indexes.builder.finish_segment import measure_exact, write_queries
from llm2comp_indexes.encoder import Encoder, encode
from llm2comp_indexes.faiss_module import import_faiss
from llm2comp_indexes.format.commits import Change, change_index
from llm2comp_indexes.format.manifest import Manifest
from llm2comp_indexes.format.segment import Names, Segment
from llm2comp_indexes.options import Targets
from llm2comp_indexes.progress import Phase, Progress, silent
from llm2comp_indexes.search.index import Index
from llm2comp_indexes.search.segment import OpenSegment
from llm2comp_indexes.structures.structure import Effort, memory_bytes, parse_type
from llm2comp_indexes.tuning.measure import Point, measure_curve
from llm2comp_indexes.tuning.queries import QueryKind
from llm2comp_indexes.tuning.report import Report, make_report, write_report

__all__ = ["TuneReport", "tune_index"]

_MOST = 300
_TIMED_ALONE = 20


@dataclass(frozen=True, slots=True)
class TuneReport:
    """Result of `tune_index`.

    Attributes:
        questions: Number of questions that were measured with.
        encode_ms: Median time in milliseconds to encode one question, the model being loaded.
        before: Effort that the largest segment was set to, with its recall and latency for these questions; None if it
            has no structure.
        measured: Measurements of the largest segment with these questions: the new effort is `measured.point`. Its
            latency is that of finding and scoring rows, without encoding.
        segments: Number of segments measured.
        committed: Whether the index was changed.
        seconds: Duration, without loading the model.
    """

    questions: int
    encode_ms: float
    before: Point | None
    measured: Report
    segments: int
    committed: bool
    seconds: float


class _Questions(NamedTuple):
    """Vectors (questions, dimension) to measure with, their number before some were drawn, and where they come from."""

    vectors: NDArray[np.float32]
    total: int
    source: str


def tune_index(
    folder: str | Path,
    questions: Sequence[str],
    *,
    source: str = "a list",
    targets: Targets | None = None,
    model: str | Path | Encoder | None = None,
    encoder: EncoderOptions | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> TuneReport:
    """Measures recall and latency with real questions, and commits the effort that keeps to the targets for them.

    Every segment with a structure is measured, and the largest in any case. Nothing is encoded but the questions, and
    no structure is built: a later merge chooses the type by these questions, which the index keeps.

    Args:
        folder: Folder of the index.
        questions: Texts; of more than 300, that many are drawn at random.
        source: Where the questions come from, for the report: the name of a file.
        targets: Recall and latency that the index should keep to from now on; None: those of the index.
        model: The model of the index, if it is not where the index says.
        encoder: Where and how the model runs, as for `open_index`.
        dry_run: Only measure.
        progress: Called with each phase.

    Raises:
        IndexFolderError: The index is damaged, empty, of another model, or being written by another process.
        SettingsError: There are no questions, or one of them is no text.
    """
    if isinstance(questions, str) or not questions:
        raise SettingsError(f"questions are {questions!r:.40}, expected a list of at least one text")
    if strange := [text for text in questions if not isinstance(text, str)]:
        raise SettingsError(f"questions hold {strange[0]!r:.40}, expected texts only")
    path, show = Path(folder), progress or silent
    with change_index(path) as change:
        before = change.before
        assert before is not None
        if not before.rows:
            raise IndexFolderError(f"{folder}: holds no documents, so there is nothing to tune")
        with Index(path, before, model=model, encoder=encoder, for_queries=True) as index:
            loaded = index.model
            start = time.perf_counter()
            asked, encode_ms = _encode(loaded, list(questions), before.dimension, source)
            chosen = targets or before.options.targets
            show(Phase.MEASURING, 0)
            largest = max(index.segments, key=lambda segment: segment.rows)
            earlier = _measure_before(largest, asked, chosen)
            reports = {
                segment.segment.name: _measure(segment, asked, chosen, before)
                for segment in index.segments
                if segment is largest or segment.structure is not None
            }
        if not dry_run:
            _commit(change, before, _replace_targets(before, chosen), reports, asked.vectors)
    seconds = time.perf_counter() - start
    measured = reports[largest.segment.name]
    return TuneReport(len(asked.vectors), encode_ms, earlier, measured, len(reports), not dry_run, seconds)


def _replace_targets(manifest: Manifest, targets: Targets) -> Manifest:
    """The manifest with these targets among its options."""
    return replace(manifest, options=replace(manifest.options, targets=targets))


def _encode(model: Encoder, texts: list[str], dimension: int, source: str) -> tuple[_Questions, float]:
    """Up to 300 random questions as vectors, and the median milliseconds that one takes alone, after a first one."""
    drawn = texts
    if len(texts) > _MOST:
        rows = np.random.default_rng(0).choice(len(texts), _MOST, replace=False)
        drawn = [texts[row] for row in sorted(rows.tolist())]
    encode(model.encode_query, drawn[:1], dimension)
    times = []
    for text in drawn[:_TIMED_ALONE]:
        start = time.perf_counter()
        encode(model.encode_query, [text], dimension)
        times.append(1e3 * (time.perf_counter() - start))
    return _Questions(encode(model.encode_query, drawn, dimension), len(texts), source), float(np.median(times))


def _measure_before(segment: OpenSegment, questions: _Questions, targets: Targets) -> Point | None:
    if segment.structure is None:
        return None
    effort = segment.report.point.effort if segment.report else Effort()
    return measure_curve(segment.structure, segment.storage, questions.vectors, k=targets.k, efforts=[effort])[0]


def _measure(segment: OpenSegment, questions: _Questions, targets: Targets, manifest: Manifest) -> Report:
    structure = segment.structure or segment.storage
    points = measure_curve(structure, segment.storage, questions.vectors, k=targets.k, recall=targets.recall)
    kind = parse_type(segment.segment.type, rows=segment.rows, dimension=manifest.dimension)
    size = sum(record.bytes for record in segment.segment.files.values())
    return make_report(
        kind,
        points,
        targets,
        rows=segment.rows,
        dimension=manifest.dimension,
        memory=memory_bytes(kind, rows=segment.rows, dimension=manifest.dimension, store=manifest.options.store),
        bytes=size,
        seconds=segment.report.seconds if segment.report else {},
        threads=import_faiss().omp_get_max_threads(),
        query_source=QueryKind.QUESTIONS.describe(
            count=len(questions.vectors), total=questions.total, file=questions.source
        ),
        query_kind=QueryKind.QUESTIONS,
        exact=measure_exact(structure, segment.storage, questions.vectors, targets.k),
    )


def _commit(
    change: Change, before: Manifest, manifest: Manifest, reports: dict[str, Report], vectors: NDArray[np.float32]
) -> None:
    segments = [
        _with_report(change, segment, reports[segment.name], vectors) if segment.name in reports else segment
        for segment in before.segments
    ]
    change.commit(replace(manifest, segments=tuple(segments)))


def _with_report(change: Change, segment: Segment, report: Report, vectors: NDArray[np.float32]) -> Segment:
    """The segment with other measurements; their files are on the device, beside those of the commit before."""
    folder = change.folder / "segments" / segment.name
    names = Names.report(change.commit_number), Names.queries(change.commit_number)
    for name in names:
        (folder / name).unlink(missing_ok=True)  # left by a killed run
    records = write_report(folder / names[0], report), write_queries(folder / names[1], vectors)
    sync_folder(folder)
    kept = {
        name: record
        for name, record in segment.files.items()
        if name not in (segment.report_file, segment.queries_file)
    }
    return replace(segment, files={**kept, **dict(zip(names, records, strict=True))})
