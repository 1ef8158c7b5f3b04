"""What is asked in a search: queries, their number of answers, mode, filter, effort and fusion."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from llm2comp.errors import SettingsError
from llm2comp_indexes.filters.parse import Where, parse_where
from llm2comp_indexes.search.fusion import DEFAULT_WEIGHTS, Fusion
from llm2comp_indexes.structures.structure import Effort

__all__ = ["Mode", "SearchOptions", "check_k", "check_queries", "count_candidates"]

Mode = Literal["dense", "bm25", "hybrid"]
_MOST_ANSWERS = 1000
_MOST_CANDIDATES = 10_000
_MOST_WEIGHT = 1_000_000
_CANDIDATES = 100


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Options of a search.

    Attributes:
        mode: `dense` (by vectors), `bm25` (by words), or `hybrid` (both, fused).
        where: Filter on metadata, such as `year >= 2020 and lang in ("en", "de")`; see `parse_where`, whose
            result may be given too.
        effort: nprobe, ef_search and rerank in place of those that the index was tuned to.
        fusion: How `hybrid` fuses: `scores`, by the weighted mean of scores scaled to 0..1 (`fuse_scores`), or `ranks`,
            by weighted reciprocal ranks (`fuse_ranks`).
        weights: Weights of the rankings by vectors and by words in `hybrid`; None: 0.3 and 0.7 with `scores`, 1 and 1
            with `ranks`.
        by: `row`: every chunk may be an answer; `document`: only the best chunk of each document.
        threads: Number of FAISS threads; None: all cores.
        rescore: `maxsim` orders the first rows of the mode by MaxSim over the vectors of the memory tokens, which the
            index must store (`memory_vectors`); None: the order of the mode.
        candidates: Number of rows that are rescored, or more where `by` needs more; no other row is an answer. None:
            100, or as many as answers are asked for.

    Raises:
        SettingsError: A value is out of its range, or the filter cannot be parsed.
    """

    mode: Mode = "dense"
    where: str | Where | None = None
    effort: Effort = field(default_factory=Effort)
    fusion: Fusion = "scores"
    weights: tuple[float, float] | None = None
    by: Literal["row", "document"] = "row"
    threads: int | None = None
    rescore: Literal["maxsim"] | None = None
    candidates: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("dense", "bm25", "hybrid"):
            raise SettingsError(f"mode is {self.mode!r}, expected dense, bm25 or hybrid")
        if self.by not in ("row", "document"):
            raise SettingsError(f"by is {self.by!r}, expected row or document")
        if self.fusion not in DEFAULT_WEIGHTS:
            raise SettingsError(f"fusion is {self.fusion!r}, expected scores or ranks")
        if self.rescore not in (None, "maxsim"):
            raise SettingsError(f"rescore is {self.rescore!r}, expected maxsim, or nothing")
        if self.candidates is not None and self.rescore is None:
            raise SettingsError(f"candidates is {self.candidates} without rescore: give rescore maxsim too")
        if self.candidates is not None and not 1 <= self.candidates <= _MOST_CANDIDATES:
            raise SettingsError(f"candidates is {self.candidates}, expected 1 to {_MOST_CANDIDATES:,}")
        if self.threads is not None and self.threads < 1:
            raise SettingsError(f"threads is {self.threads}, expected at least 1 (or nothing, for all cores)")
        if self.weights is not None and not _are_weights(self.weights):
            raise SettingsError(
                f"weights is {self.weights!r}, expected two numbers from 0 to {_MOST_WEIGHT:,}, at least one above 0: "
                "of vectors and of words"
            )
        if isinstance(self.where, str):
            parse_where(self.where)

    @property
    def fused_weights(self) -> tuple[float, float]:
        """Weights of the rankings by vectors and by words: those given, or those of the kind of fusion."""
        return self.weights or DEFAULT_WEIGHTS[self.fusion]

    @property
    def uses_model(self) -> bool:
        """Whether the model encodes the queries."""
        return self.mode != "bm25" or self.rescore is not None


def _are_weights(weights: object) -> bool:
    """Whether these are two numbers in range, in a tuple or list."""
    return (
        isinstance(weights, tuple | list)
        and len(weights) == 2
        and all(isinstance(weight, int | float | np.number) and 0 <= weight <= _MOST_WEIGHT for weight in weights)
        and any(weights)
    )


def count_candidates(options: SearchOptions, k: int) -> int:
    """Number of rows to rescore for k answers.

    Raises:
        SettingsError: Fewer are given than answers asked for.
    """
    if options.candidates is None:
        return max(_CANDIDATES, k)
    if options.candidates < k:
        raise SettingsError(
            f"candidates is {options.candidates} and k {k}: only candidates are answers, so give at least {k}"
        )
    return options.candidates


def check_k(k: int) -> None:
    """Raises SettingsError unless so many answers may be asked for."""
    if not isinstance(k, int | np.integer) or not 1 <= k <= _MOST_ANSWERS:
        raise SettingsError(f"k is {k!r}, expected 1 to {_MOST_ANSWERS:,}")


def check_queries(queries: Sequence[str]) -> None:
    """Raises SettingsError unless the queries are several strings, naming the first that is none."""
    if isinstance(queries, str):
        raise SettingsError(f"queries is a string, expected a list: search([{queries[:40]!r}])")
    for place, query in enumerate(queries):
        if not isinstance(query, str):
            raise SettingsError(f"query {place} is {type(query).__name__} {str(query)[:40]!r}, expected a string")
