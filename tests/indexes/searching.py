"""A search that other processes can import."""

from typing import Any

__all__ = ["Answers", "ids"]


def ids(index: Any, text: str) -> list[str]:
    """Ids of the best five documents."""
    return [hit.id for hit in index.search([text], 5)[0]]


class Answers:
    """A data set of one row, for PyTorch's DataLoader: the answers to a question."""

    def __init__(self, index: Any) -> None:
        self._index = index

    def __len__(self) -> int:
        return 1

    def __getitem__(self, row: int) -> list[str]:
        return ids(self._index, "bread")
