"""Systems that take turns: the middle and the spread of what each round gave, and of one system over another round by round."""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, NamedTuple, TypeVar

__all__ = ["RoundStats", "in_turn"]

_Item = TypeVar("_Item")


class RoundStats(NamedTuple):
    """The median of several rounds, with the least and the most of them."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "RoundStats":
        """The spread of values, at least one."""
        return cls(median(values), min(values), max(values))

    @classmethod
    def ratio(cls, above: Sequence[float], below: Sequence[float]) -> "RoundStats":
        """That of ratios round by round: what disturbs the machine for longer than a round disturbs both."""
        return cls.of([one / other for one, other in zip(above, below, strict=True)])

    def scaled(self, factor: float) -> "RoundStats":
        """The spread of the values times a factor above 0."""
        return RoundStats(*(factor * value for value in self))

    def to_json(self) -> dict[str, Any]:
        """As an object of a result file."""
        return self._asdict()


def in_turn(items: Sequence[_Item], rounds: int) -> Iterator[tuple[int, _Item]]:
    """(round, item): all items in every round, each round beginning with another one, so that none always follows the same."""
    for number in range(rounds):
        first = number % len(items) if items else 0
        for item in (*items[first:], *items[:first]):
            yield number, item
