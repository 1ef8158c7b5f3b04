"""Effort of a search: the parameters that trade recall for time, their defaults, and the values to measure."""

from dataclasses import dataclass, replace

from llm2comp.errors import SettingsError
from llm2comp_indexes.structures.types import IndexType

__all__ = ["Effort", "default_effort", "efforts_of"]

_MOST_EF = 4096


@dataclass(frozen=True, slots=True)
class Effort:
    """Search parameters that trade recall for time; None: the default of the index (`default_effort`).

    Attributes:
        nprobe: Number of lists that an IVF index visits.
        ef_search: Number of candidates that an HNSW index keeps while it walks the graph.
        rerank: Number of candidates per answer that are scored again with the stored vectors; 1: the k best only.

    Raises:
        SettingsError: A value is below 1.
    """

    nprobe: int | None = None
    ef_search: int | None = None
    rerank: int | None = None

    def __post_init__(self) -> None:
        for name in ("nprobe", "ef_search", "rerank"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{name} is {value}, expected at least 1")


def default_effort(kind: IndexType) -> Effort:
    """The effort of a search without one: 1/32 of the lists, but at least 8, or an ef_search of 64.

    Codes of 8 bits and fewer rank roughly: 4 candidates per answer are then scored again. The same holds for types
    whose codes are unknown.
    """
    rough = kind.family == "other" or (kind.family == "ivf" and kind.ivf.bits <= 8)
    nprobe = min(kind.lists, max(8, kind.lists // 32)) if kind.lists else None
    return Effort(nprobe, 64 if kind.walks_graph else None, 4 if rough else 1)


def efforts_of(kind: IndexType, k: int) -> tuple[Effort, ...]:
    """Efforts to measure for k answers: nprobe or ef_search in steps of about 1.4, for each `rerank`.

    `rerank` is 1 for types with at least 16 bits per component, up to 4 for 8 bits, and up to 64 for smaller codes,
    reduced dimensions and unknown types.
    """
    if kind.family == "flat":
        return (Effort(),)
    if kind.walks_graph:
        steps = [Effort(ef_search=step) for step in _steps(max(k, 8), max(_MOST_EF, 2 * k))]
    elif kind.lists:
        steps = [Effort(nprobe=step) for step in _steps(1, kind.lists)]
    else:
        steps = [Effort()]
    return tuple(replace(step, rerank=rerank) for rerank in _reranks(kind) for step in steps)


def _reranks(kind: IndexType) -> tuple[int, ...]:
    if kind.family == "hnsw":
        return (1,)
    if kind.family == "other" or kind.ivf.parts or kind.ivf.bits < 8 or kind.ivf.output:
        return (1, 4, 16, 64)
    return (1, 2, 4) if kind.ivf.bits == 8 else (1,)


def _steps(least: int, most: int) -> list[int]:
    """Whole numbers from `least` to `most`, each about 1.4 times the one before."""
    steps = [least]
    while steps[-1] < most:
        power = 1 << (steps[-1].bit_length() - 1)
        steps.append(min(most, steps[-1] + max(1, power // 2)))
    return steps
