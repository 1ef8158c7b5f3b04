"""Settings of mining hard negatives."""

from dataclasses import dataclass
from typing import Literal

from llm2comp.errors import SettingsError
from llm2comp.training.settings import check_fields

__all__ = ["MiningSettings", "RecipeMiningSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MiningSettings:
    """Which passages of a file become negatives of a query.

    Ranks count the passages of the file that may be negatives of the query, the most similar one first, from 1.
    """

    negatives: int = 4
    """Negatives of a row, those that it has already included; a row for which fewer are found has fewer."""

    margin: float = 0.95
    """Largest similarity of a negative, relative to that of the query's least similar positive (NV-Retriever's
    TopK-PercPos, arXiv 2407.15831): a passage above it is probably an answer too. 1 only asks that it is below."""

    from_rank: int = 1
    """First rank considered; above 1, the most similar passages are skipped."""

    to_rank: int = 100
    """Last rank considered."""

    sampling: Literal["top", "random"] = "top"
    """Whether the most similar of the passages considered are taken, or any of them."""

    seed: int = 0
    """Seed of `random`."""

    limit: int | None = None
    """Rows of a file that are read, from its beginning; None: all."""

    same_source: bool = False
    """Whether a passage may be a negative of a query with the same `source`, which in derived pairs names the document
    that both come from."""

    negatives_from_label: bool = False
    """Whether passages with a label or score of 0 are negatives of their query; otherwise they are refused."""

    def __post_init__(self) -> None:
        check_fields(self, least={0: ["seed"], 1: ["negatives", "from_rank", "limit"]})
        if not 0 < self.margin <= 1:
            raise SettingsError(f"margin is {self.margin:g}; expected a number above 0, at most 1")
        if self.to_rank - self.from_rank + 1 < self.negatives:
            raise SettingsError(
                f"from_rank {self.from_rank} to to_rank {self.to_rank} are fewer passages than negatives "
                f"{self.negatives}; raise to_rank"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeMiningSettings(MiningSettings):
    """Hard negatives in a recipe: which of its derived pairs get some, found by the model of stage 3."""

    kinds: tuple[str, ...]
    """Kinds of derived pairs that are mined; pairs of other kinds are used as they are."""

    max_length: int | None = None
    """Longest text in tokens when mining, memory tokens included; None: the model's."""

    def __post_init__(self) -> None:
        MiningSettings.__post_init__(self)
        check_fields(self, least={1: ["max_length"]})
        if not self.kinds:
            raise SettingsError("kinds is empty; name the kinds of pairs that get negatives")
