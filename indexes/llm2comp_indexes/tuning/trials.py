"""Trials of index types on a sample of the corpus, and their results scaled to the whole corpus."""

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from llm2comp_indexes.format.vectors import Storage, StorageWriter, open_storage
from llm2comp_indexes.options import Store, Targets
from llm2comp_indexes.structures.build import build_structure
from llm2comp_indexes.structures.structure import Structure
from llm2comp_indexes.structures.types import POINTS_PER_LIST, IndexType, default_type, memory_bytes
from llm2comp_indexes.tuning.measure import Point, exact_search, measure_curve

__all__ = ["Candidate", "Sample", "growth_exponent", "list_candidates", "rows_to_sample", "scale_point"]

_ROWS = (10_000, 50_000)
"""Minimum and maximum number of rows in a sample."""
_NUMBERS = 15_000_000
"""Maximum number of components in all sampled vectors, above the minimum of rows: long vectors take longer."""
_SLOW_ROWS = (2_560, 10_000)
_SLOW_NUMBERS = 2_560_000
_QUERIES = 300
_FEW_QUERIES = 100
_MUCH_MORE = 1.2  # corpus size over sample size from which growth with the rows is measured
_STEEP = 0.98  # recall up to which a curve determines the effort well
_READ_ROWS = 4096
_CENTROIDS = 256  # per part of a product quantizer: a byte
_MOST_PARTS = 128


@dataclass(frozen=True, slots=True)
class Candidate:
    """A type that may suit the corpus.

    Attributes:
        type: The type, with parameters for the whole corpus.
        memory: Bytes that searching the whole corpus holds in memory.
        points: Expected curve of the whole corpus, scaled from the trial on the sample; empty without a trial.
        skipped: Why there was no trial; empty if there was one.
    """

    type: IndexType
    memory: int
    points: tuple[Point, ...] = ()
    skipped: str = ""

    @property
    def compressed(self) -> bool:
        """Whether it keeps less than a byte per component, so that answers depend on vectors read from disk."""
        return self.type.family == "ivf" and (self.type.ivf.parts is not None or self.type.ivf.bits < 8)

    @property
    def slow(self) -> bool:
        """Whether it is slow to train or build and so tried on fewer rows: graphs and product quantizers."""
        return self.type.family == "hnsw" or (self.type.family == "ivf" and self.type.ivf.parts is not None)


def list_candidates(rows: int, dimension: int, store: Store) -> tuple[Candidate, ...]:
    """The types to consider, in the order in which they are tried.

    Flat; IVF with 16-bit components; HNSW with M 16 and 32; IVF with 8-bit components; then the compressed types: IVF
    with 4-bit components and, if there are enough vectors to train them, with product quantizers of three sizes (a byte
    for at least 4 components) after a random rotation, which spreads the variance over the parts. (OPQ's rotation takes
    minutes to train and cannot be tried here; `ivfpq` uses it.)
    """
    ivf = default_type("ivf", rows=rows, dimension=dimension)
    coarse = ivf.factory.rsplit(",", 1)[0]
    names = ["Flat", f"{coarse},SQfp16", "HNSW16", "HNSW32", f"{coarse},SQ8", f"{coarse},SQ4"]
    if rows >= POINTS_PER_LIST * _CENTROIDS:
        names += [f"RR{dimension // parts * parts},{coarse},PQ{parts}x8" for parts in _code_sizes(dimension)]
    kinds = [IndexType(name) for name in names]
    return tuple(Candidate(kind, memory_bytes(kind, rows=rows, dimension=dimension, store=store)) for kind in kinds)


def _code_sizes(dimension: int) -> list[int]:
    """Sizes of codes in bytes: three powers of two, largest first."""
    most = min(_MOST_PARTS, 1 << max(0, (dimension // 4).bit_length() - 1))
    return [parts for parts in (most, most // 2, most // 4) if parts]


def scale_point(
    point: Point, base: Point, kind: IndexType, tried: IndexType, *, rows: int, sample_rows: int, exponent: float
) -> Point:
    """The point with the same recall that is expected for the whole corpus, from one measured on the sample.

    - flat: time is linear in the rows.
    - hnsw: ef_search grows with the rows to the power `exponent`; time is linear in ef_search and logarithmic in the
      rows (Malkov and Yashunin 2018, section 4.2).
    - ivf: the share of lists probed grows with the rows to the power `exponent`. The time for a single list (`base`) is
      the comparison with the centroids, linear in their number, or logarithmic if they are found through a graph; the
      time beyond it is linear in the rows probed.

    Args:
        point: Point measured on the sample.
        base: Point measured on the sample with nprobe 1 and the same re-ranking.
        kind: The type for all rows.
        tried: The type that was tried on the sample.
        rows: Number of rows in the corpus.
        sample_rows: Number of rows in the sample.
        exponent: From `growth_exponent`.
    """
    growth = rows / sample_rows
    harder = growth**exponent
    if kind.family == "hnsw":
        effort = replace(point.effort, ef_search=math.ceil((point.effort.ef_search or 1) * harder))
        return _slower(replace(point, effort=effort), harder * math.log(max(rows, 2)) / math.log(max(sample_rows, 2)))
    if kind.family != "ivf":
        return _slower(point, growth)
    lists, tried_lists = kind.ivf.lists, tried.ivf.lists
    coarse = lists / tried_lists if not kind.ivf.links else math.log(lists) / math.log(max(tried_lists, 2))
    fixed = min(point.median_ms, base.median_ms)
    scaled = fixed * coarse + (point.median_ms - fixed) * growth * harder
    effort = replace(
        point.effort, nprobe=max(1, min(lists, math.ceil((point.effort.nprobe or 1) * harder * lists / tried_lists)))
    )
    return _slower(replace(point, effort=effort), scaled / point.median_ms if point.median_ms else 1.0)


def growth_exponent(
    points: Sequence[Point],
    smaller: Sequence[Point],
    kinds: tuple[IndexType, IndexType],
    *,
    growth: float,
    recall: float,
) -> float:
    """Exponent of the effort's growth: the effort for a recall grows with the rows to this power.

    The effort is ef_search (exponent 0 to 0.5) or the share of lists probed (exponent -0.5 to 0).

    Args:
        points: Points measured on a sample.
        smaller: Points measured on a smaller sample.
        kinds: The types tried on the two samples.
        growth: Rows of the larger sample over rows of the smaller.
        recall: The recall at which the curves are compared.
    """
    logs = [
        math.log(large / small) / math.log(growth)
        for rerank in {point.effort.rerank for point in points}
        if (large := _effort_for(points, rerank, kinds[0], recall))
        and (small := _effort_for(smaller, rerank, kinds[1], recall))
    ]
    least, most = (0.0, 0.5) if kinds[0].family == "hnsw" else (-0.5, 0.0)
    return min(most, max(least, median(logs))) if logs else most


def _effort_for(points: Sequence[Point], rerank: int | None, kind: IndexType, recall: float) -> float | None:
    """ef_search, or share of lists, at which the curve reaches the recall, interpolated; None if it does not."""
    group = [point for point in points if point.effort.rerank == rerank]
    for low, high in pairwise(group):
        if low.recall < recall <= high.recall:
            first, second = ((point.effort.ef_search or point.effort.nprobe or 1) for point in (low, high))
            part = (recall - low.recall) / (high.recall - low.recall)
            return float(first * (second / first) ** part / (kind.ivf.lists if kind.family == "ivf" else 1))
    return None


def _slower(point: Point, factor: float) -> Point:
    return replace(point, median_ms=point.median_ms * factor, p99_ms=point.p99_ms * factor)


class Sample:
    """Rows of a corpus in temporary files, with queries that are not among them; a context manager that removes them.

    50,000 rows, or 10,000 for types that are slow to build; fewer for long vectors. Unless that is nearly the whole
    corpus, each type is tried on a quarter of the rows too, to measure how the effort grows with the rows.

    Attributes:
        storage: The sampled rows, in random order.
        queries: Query vectors (queries, dimension): held-out rows of the corpus, or those passed in.
        held_out: Whether the queries are held-out rows.
    """

    def __init__(
        self,
        storage: Storage,
        targets: Targets,
        *,
        slow: bool = False,
        queries: NDArray[np.float32] | None = None,
        seed: int = 0,
        workdir: Path | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        generator = np.random.default_rng(seed)
        order = (
            generator.permutation(storage.rows)
            if storage.rows <= 1 << 24
            else generator.choice(storage.rows, 1 << 18, replace=False, shuffle=True)
        )
        left_out = min(_QUERIES, storage.rows // 10) if queries is None else 0
        self._source, self._targets, self._clock = storage, targets, clock
        self.held_out = left_out > 0
        rows = order[left_out : left_out + rows_to_sample(storage.dimension, slow)]
        if queries is None:  # with fewer than ten rows, any query does: exact search finds them all
            queries = storage.read(order[:left_out] if left_out else rows[:1])
        self.queries = queries[generator.permutation(len(queries))[:_QUERIES]]
        self._folder = TemporaryDirectory(prefix="llm2comp-plan-", dir=workdir)
        self.storage = self._copy(rows, "sample.faiss")
        self._parts = [_Part(self.storage, self.queries, targets.k)]
        if storage.rows > _MUCH_MORE * len(rows):
            self._parts.append(
                _Part(self._copy(rows[: len(rows) // 4], "quarter.faiss"), self.queries[:_FEW_QUERIES], targets.k)
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def _copy(self, rows: NDArray[np.int64], name: str) -> Storage:
        path = Path(self._folder.name) / name
        with StorageWriter(path, self._source.dimension, self._source.store) as writer:
            for start in range(0, len(rows), _READ_ROWS):
                writer.append(self._source.read(rows[start : start + _READ_ROWS]))
            writer.finish()
        return open_storage(path, rows=len(rows), dimension=self._source.dimension, store=self._source.store)

    def try_out(
        self, candidate: Candidate, *, device: str, threads: int | None, seed: int, seconds: float
    ) -> Candidate:
        """The candidate with points expected for the whole corpus, near the target recall.

        Each point is measured for at most an eighth of `seconds`.
        """
        kind, curves, tried = candidate.type, [], []
        for part in self._parts[: 1 if kind.family == "flat" else 2]:
            tried.append(_shrink(kind, part.storage.rows))
            structure: Structure | Storage = part.storage
            if kind.family != "flat":
                structure = build_structure(
                    tried[-1], part.storage, device=device, threads=threads, seed=seed, workdir=Path(self._folder.name)
                )
            curves.append(part.measure(structure, self._targets, seconds, self._clock))
        exponent = 0.0
        if len(curves) > 1:
            growth = self._parts[0].storage.rows / self._parts[1].storage.rows
            exponent = growth_exponent(
                curves[0], curves[1], (tried[0], tried[1]), growth=growth, recall=min(self._targets.recall, _STEEP)
            )
        return replace(candidate, points=self._scale(curves[0], kind, tried[0], exponent))

    def _scale(self, points: Sequence[Point], kind: IndexType, tried: IndexType, exponent: float) -> tuple[Point, ...]:
        base: dict[int | None, Point] = {}
        for point in points:
            base.setdefault(point.effort.rerank, point)
        rows, sampled = self._source.rows, self.storage.rows
        return tuple(
            scale_point(
                point, base[point.effort.rerank], kind, tried, rows=rows, sample_rows=sampled, exponent=exponent
            )
            for point in points
        )


class _Part:
    """Rows that types are tried on, with the true scores of the queries."""

    def __init__(self, storage: Storage, queries: NDArray[np.float32], k: int) -> None:
        self.storage, self._queries = storage, queries
        self._truth = exact_search(storage, queries, k).scores

    def measure(
        self, structure: Structure | Storage, targets: Targets, seconds: float, clock: Callable[[], float]
    ) -> tuple[Point, ...]:
        return measure_curve(
            structure,
            self.storage,
            self._queries,
            k=targets.k,
            recall=targets.recall,
            truth=self._truth,
            point_seconds=seconds / 8,
            seconds=0,
            clock=clock,
        )


def rows_to_sample(dimension: int, slow: bool = False) -> int:
    """Number of rows that types are tried on; fewer for those that are slow to build."""
    (least, most), numbers = (_SLOW_ROWS, _SLOW_NUMBERS) if slow else (_ROWS, _NUMBERS)
    return max(least, min(most, numbers // dimension))


def _shrink(kind: IndexType, rows: int) -> IndexType:
    """The type with at most as many lists as the rows can train, and without a graph over the centroids."""
    if kind.family != "ivf" or kind.ivf.lists <= (most := max(1, rows // POINTS_PER_LIST)):
        return kind
    return IndexType(re.sub(r"IVF\d+(_HNSW\d+)?", f"IVF{most}", kind.factory))
