"""Systems that take turns: statistics over the rounds, and ratios of two systems round by round."""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, NamedTuple, TypeVar

__all__ = ["RoundStats", "in_turn"]

_Item = TypeVar("_Item")


class RoundStats(NamedTuple):
    """Median, least and most of the values of several rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "RoundStats":
        """The statistics of one value or more."""
        return cls(median(values), min(values), max(values))

    @classmethod
    def ratio(cls, above: Sequence[float], below: Sequence[float]) -> "RoundStats":
        """The statistics of the ratios `above / below`, taken round by round.

        What disturbs the machine for longer than a round disturbs both sides of a ratio alike.
        """
        return cls.of([one / other for one, other in zip(above, below, strict=True)])

    def scaled(self, factor: float) -> "RoundStats":
        """The statistics of the values times a factor above 0."""
        return RoundStats(*(factor * value for value in self))

    def to_json(self) -> dict[str, Any]:
        """The object that a result file holds."""
        return self._asdict()


def in_turn(items: Sequence[_Item], rounds: int) -> Iterator[tuple[int, _Item]]:
    """(round, item): all items in every round, each round starting with another item.

    So no system always follows the same one.
    """
    for number in range(rounds):
        first = number % len(items) if items else 0
        for item in (*items[first:], *items[:first]):
            yield number, item
