"""The efforts that are tried for a type of index, least first."""

from dataclasses import replace

from llm2comp_indexes.index_types import IndexType
from llm2comp_indexes.structures import Effort

__all__ = ["efforts_of"]

_MOST_EF = 2048


def efforts_of(kind: IndexType, k: int) -> tuple[Effort, ...]:
    """Efforts for k answers: nprobe or efSearch in steps of about 1.4, for each number of candidates scored again.

    Types that keep components in 16 bits and more have only the k best scored again, those of 8 bits up to 4 candidates per answer, smaller codes, fewer
    dimensions and types unknown to us up to 64.
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
