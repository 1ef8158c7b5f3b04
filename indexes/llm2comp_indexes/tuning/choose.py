"""Choice of an index type by memory, latency and recall, from trials on a sample of the corpus."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import SettingsError
from llm2comp.units import format_bytes, format_ms
from llm2comp_indexes.faiss_module import bounded_threads, import_faiss
from llm2comp_indexes.format.vectors import Storage
from llm2comp_indexes.options import Targets, format_latency
from llm2comp_indexes.structures.structure import Effort, IndexType
from llm2comp_indexes.tuning.measure import Point, best_point, rank
from llm2comp_indexes.tuning.trials import Candidate, Sample, list_candidates

__all__ = [
    "Choice",
    "Plan",
    "choose_type",
    "decide",
    "format_choice",
    "format_effort",
    "format_too_large",
    "try_alternatives",
]

_NEAR = 1.25
"""Expected latencies within this factor count as equal: timings on a sample are no more precise."""
_NO_TIME = "no time left"


class Choice(NamedTuple):
    """A candidate, the chosen point of its curve, and whether memory, recall and latency all keep to the targets."""

    candidate: Candidate
    point: Point
    met: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The type to build, and why.

    Attributes:
        type: The type chosen.
        effort: Effort from which the finished index is tuned.
        point: Expected recall and latency.
        memory: Bytes that searching will hold in memory.
        reason: One to three sentences for people.
        met: Whether all targets are expected to be met.
        candidates: All types considered, with the results of their trials.
    """

    type: IndexType
    effort: Effort
    point: Point
    memory: int
    reason: str
    met: bool
    candidates: tuple[Candidate, ...]


def choose_type(
    storage: Storage,
    targets: Targets,
    *,
    queries: NDArray[np.float32] | None = None,
    device: str = "cpu",
    threads: int | None = None,
    seed: int = 0,
    seconds: float = 60.0,
    workdir: Path | None = None,
    on_trial: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Plan:
    """The index type for the stored vectors, by trials on a sample with exact search as ground truth.

    Types over the memory target are not tried. Exact search is tried first, and taken if it is fast enough. Otherwise
    IVF and HNSW are tried; then, if none of these meets the targets, product quantizers, which read vectors from disk
    in each search, the longest codes first. `decide` chooses among them.

    Args:
        storage: The vectors of the whole corpus.
        targets: Memory, latency and recall.
        queries: Real queries (n, dimension), of which up to 300 are used. None: rows drawn from the corpus and left out
            of the sample.
        device: Where trials are built: "cpu", "cuda" or "auto".
        threads: Number of FAISS threads; None for all cores.
        seed: Seed of the sample and the training.
        seconds: Approximate time limit: after half of it, no trial but the first is begun.
        workdir: Folder for the sample; None for the system's temporary folder.
        on_trial: Called with the factory string of each type that is tried.
        clock: Function that returns seconds.

    Raises:
        SettingsError: There are no vectors or no queries, or every type is over the memory target: the message names
            the smallest.
    """
    if not storage.rows:
        raise SettingsError("no vectors to choose an index type for; expected at least one")
    if queries is not None and not len(queries):
        raise SettingsError(
            "no queries to try index types with; expected at least one, or None to draw them from the corpus"
        )
    listed = list_candidates(storage.rows, storage.dimension, storage.store)
    fitting = [candidate for candidate in listed if targets.allows(candidate.memory)]
    if not fitting:
        raise SettingsError(format_too_large(listed, storage.rows, storage.dimension, targets))
    end = clock() + seconds / 2
    with bounded_threads(threads), ExitStack() as opened:

        def draw_sample(slow: bool) -> Sample:
            return opened.enter_context(
                Sample(storage, targets, slow=slow, queries=queries, seed=seed, workdir=workdir, clock=clock)
            )

        trials = _Trials(
            draw_sample, device=device, threads=threads, seed=seed, seconds=seconds / 12, on_trial=on_trial
        )
        tried = {
            candidate.type: candidate for candidate in _try_in_order(fitting, targets, trials, lambda: clock() > end)
        }
        conditions = _format_conditions(trials.samples(), storage.rows)
    candidates = tuple(
        tried.get(candidate.type, replace(candidate, skipped="over the memory limit")) for candidate in listed
    )
    choice = decide(candidates, targets)
    reason = " ".join(
        filter(None, (format_choice(choice, candidates, targets), _format_untried(candidates), conditions))
    )
    return Plan(
        choice.candidate.type,
        choice.point.effort,
        choice.point,
        choice.candidate.memory,
        reason,
        choice.met,
        candidates,
    )


def try_alternatives(
    storage: Storage,
    targets: Targets,
    queries: NDArray[np.float32],
    *,
    threads: int | None = None,
    seconds: float = 60.0,
    workdir: Path | None = None,
    on_trial: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Candidate, ...]:
    """Trials of the types that `choose_type` leaves untried where exact search is fast enough.

    Types over the memory target are not among them, nor those for which no time is left.

    Args:
        storage: The vectors of the index.
        targets: Memory, latency and recall of the index.
        queries: Vectors (queries, dimension) that the index was measured with; up to 300 are used.
        threads: Number of FAISS threads; None for all cores.
        seconds: Approximate time limit: after half of it, no trial is begun.
        workdir: Folder for the sample; None for the system's temporary folder.
        on_trial: Called with the factory string of each type that is tried.
        clock: Function that returns seconds.
    """
    end = clock() + seconds / 2
    tried: list[Candidate] = []
    with bounded_threads(threads), ExitStack() as opened:

        def draw_sample(slow: bool) -> Sample:
            return opened.enter_context(
                Sample(storage, targets, slow=slow, queries=queries, workdir=workdir, clock=clock)
            )

        trials = _Trials(draw_sample, device="cpu", threads=threads, seed=0, seconds=seconds / 12, on_trial=on_trial)
        for candidate in list_candidates(storage.rows, storage.dimension, storage.store):
            if candidate.type.family != "flat" and targets.allows(candidate.memory) and clock() < end:
                tried.append(trials(candidate))
    return tuple(tried)


class _Trials:
    """Tries candidates on samples of the corpus, which are drawn at first use."""

    def __init__(
        self,
        draw_sample: Callable[[bool], Sample],
        *,
        device: str,
        threads: int | None,
        seed: int,
        seconds: float,
        on_trial: Callable[[str], None] | None,
    ) -> None:
        self._draw_sample, self._on_trial = draw_sample, on_trial
        self._device, self._threads, self._seed, self._seconds = device, threads, seed, seconds
        self._samples: dict[bool, Sample] = {}

    def __call__(self, candidate: Candidate) -> Candidate:
        """The candidate with the result of its trial."""
        if self._on_trial:
            self._on_trial(candidate.type.factory)
        if candidate.slow not in self._samples:
            self._samples[candidate.slow] = self._draw_sample(candidate.slow)
        return self._samples[candidate.slow].try_out(
            candidate, device=self._device, threads=self._threads, seed=self._seed, seconds=self._seconds
        )

    def samples(self) -> list[Sample]:
        """The samples drawn so far."""
        return list(self._samples.values())


def _try_in_order(
    candidates: Sequence[Candidate],
    targets: Targets,
    try_out: Callable[[Candidate], Candidate],
    late: Callable[[], bool],
) -> Iterator[Candidate]:
    """The candidates in order, tried as long as a trial may change the choice and there is time."""
    exact_met = met = False
    for number, candidate in enumerate(candidates):
        if exact_met or (met and candidate.compressed):
            yield replace(candidate, skipped="not needed")
        elif number and late():
            yield replace(candidate, skipped=_NO_TIME)
        else:
            yield (tried := try_out(candidate))
            met = met or rank(best_point(tried.points, targets), targets) < 2
            exact_met = exact_met or (met and candidate.type.family == "flat")


def decide(candidates: Sequence[Candidate], targets: Targets) -> Choice:
    """The candidate to build, by the results of the trials.

    - Memory is a hard limit: a type over it is never chosen.
    - Exact search, if it is fast enough: it needs no training or tuning, misses no neighbor, and rows are added and
      deleted at no cost.
    - Else the fastest of those that reach recall and latency; among types up to 1.25 times slower than it, the one that
      needs the least memory. Recall is reached if its lower bound is (95 % confidence), or, if no type gets there, as
      measured.
    - If none reaches both, the fastest that reaches the recall; ties as above.
    - If none reaches the recall, the one with the highest recall.

    Raises:
        SettingsError: No candidate within the memory target was tried.
    """
    choices = [
        _choice(candidate, targets) for candidate in candidates if candidate.points and targets.allows(candidate.memory)
    ]
    if not choices:
        raise SettingsError("no type of index within the memory limit was tried; give a larger one (--memory)")
    for choice in choices:
        if choice.candidate.type.family == "flat" and choice.met:
            return choice
    ranks = [rank(choice.point, targets) for choice in choices]
    level = min(ranks)
    if level == 4:
        return min(choices, key=lambda choice: (-choice.point.recall, choice.point.median_ms))
    equal = [choice for choice, its_rank in zip(choices, ranks, strict=True) if its_rank == level]
    fastest = min(choice.point.median_ms for choice in equal)
    near = [choice for choice in equal if choice.point.median_ms <= _NEAR * fastest]
    return min(near, key=lambda choice: (choice.candidate.memory, choice.point.median_ms))


def _choice(candidate: Candidate, targets: Targets) -> Choice:
    point = best_point(candidate.points, targets)
    return Choice(candidate, point, rank(point, targets) < 2 and targets.allows(candidate.memory))


def format_effort(kind: IndexType, effort: Effort) -> str:
    """The type and effort as text: IVF4000,SQ8 (nprobe 16, 2 candidates re-scored per answer)."""
    parts = [f"nprobe {effort.nprobe}"] if effort.nprobe else []
    parts += [f"efSearch {effort.ef_search}"] if effort.ef_search else []
    parts += [f"{effort.rerank} candidates re-scored per answer"] if effort.rerank and effort.rerank > 1 else []
    name = "exact search" if kind.family == "flat" else kind.factory
    return f"{name} ({', '.join(parts)})" if parts else name


def format_choice(choice: Choice, candidates: Sequence[Candidate], targets: Targets) -> str:
    """The choice and its reason, or the targets that cannot be met, as one or two sentences with numbers."""
    candidate, point = choice.candidate, choice.point
    measured = (
        f"recall@{targets.k} {point.recall:.3f}, {format_ms(point.median_ms)} per query, "
        f"{format_bytes(candidate.memory)} of memory"
    )
    chosen = f"{format_effort(candidate.type, point.effort)}: {measured}"
    if choice.met:
        return f"Chose {chosen}. {_format_why(choice, candidates, targets)}"
    limit = "" if targets.memory is None else f" within {format_bytes(targets.memory)} of memory"
    if rank(point, targets) == 4:
        return (
            f"The targets cannot all be met: no type tried{limit} reaches recall@{targets.k} {targets.recall:g}. "
            f"Chose the nearest, {chosen}: recall gives way, memory does not."
        )
    return (
        f"The targets cannot all be met: no type tried{limit} reaches recall@{targets.k} {targets.recall:g} in "
        f"{format_latency(targets)}. "
        f"Chose the nearest, {chosen}: latency gives way before recall, and memory not at all."
    )


def _format_why(choice: Choice, candidates: Sequence[Candidate], targets: Targets) -> str:
    memory = "any memory" if targets.memory is None else f"at most {format_bytes(targets.memory)}"
    limits = f"recall {targets.recall:g}, {format_latency(targets)}, {memory}"
    if choice.candidate.type.family == "flat":
        return f"That meets the targets ({limits}) and misses no neighbour, so nothing faster was tried."
    others = [
        _choice(candidate, targets)
        for candidate in candidates
        if candidate.points and candidate.type != choice.candidate.type
    ]
    meeting = sorted((other for other in others if other.met), key=lambda other: other.point.median_ms)
    compared = [
        f"{other.candidate.type.factory} {format_ms(other.point.median_ms)} and {format_bytes(other.candidate.memory)}"
        for other in meeting[:2]
    ]
    exact = [
        f"exact search {format_ms(other.point.median_ms)}"
        for other in others
        if other.candidate.type.family == "flat" and not other.met
    ]
    if not meeting:
        return f"It is the only type tried that meets the targets ({limits})." + (
            f" For comparison: {exact[0]}." if exact else ""
        )
    why = (
        "the fastest"
        if choice.point.median_ms <= meeting[0].point.median_ms
        else "the smallest of the fastest (within a quarter of the least time)"
    )
    return f"Of the types that meet the targets ({limits}) it is {why}; for comparison: {', '.join(compared + exact)}."


def _format_untried(candidates: Sequence[Candidate]) -> str:
    names = [candidate.type.factory for candidate in candidates if candidate.skipped == _NO_TIME]
    return f"There was no time left to try {', '.join(names)}." if names else ""


def _format_conditions(samples: Sequence[Sample], rows: int) -> str:
    largest = max(samples, key=lambda sample: sample.storage.rows)
    sizes = " and ".join(f"{size:,}" for size in sorted({sample.storage.rows for sample in samples}, reverse=True))
    origin = "others as queries" if largest.held_out else "queries"
    scaled = f"; times are scaled to {rows:,}" if rows > 1.2 * min(sample.storage.rows for sample in samples) else ""
    threads = import_faiss().omp_get_max_threads()
    return (
        f"Measured on {sizes} of the vectors with {len(largest.queries)} {origin}, one at a time "
        f"(FAISS threads: {threads}){scaled}."
    )


def format_too_large(candidates: Sequence[Candidate], rows: int, dimension: int, targets: Targets) -> str:
    """The error where no type is within the memory target: the smallest of them, and what it needs."""
    smallest = min(candidates, key=lambda candidate: candidate.memory)
    return (
        f"memory is {format_bytes(targets.memory or 0)}, too little for any index of {rows:,} vectors of "
        f"dimension {dimension}: "
        f"the smallest, {smallest.type.factory}, needs {format_bytes(smallest.memory)}; allow at least "
        f"{smallest.memory} bytes (--memory)"
    )
