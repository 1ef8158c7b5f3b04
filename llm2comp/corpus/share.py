"""Shares of a corpus: consecutive files of it that one process reads, so that several read it together."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from llm2comp.errors import CorpusError

__all__ = ["Share", "cut_files"]

_T = TypeVar("_T")


class Share(NamedTuple):
    """Consecutive files of a corpus, or some of the rows that several processes have in memory.

    Attributes:
        first: Number of its first file, from 0.
        last: Number of the file behind its last one; None: all files from the first.
        files: Number of all files that the corpus had when it was cut; None: it was not cut.
    """

    first: int = 0
    last: int | None = None
    files: int | None = None

    @property
    def whole(self) -> bool:
        """Whether it is all files of the corpus."""
        return self.files is not None and (self.first, self.last) == (0, self.files)

    def take(self, files: Iterable[_T]) -> Iterator[_T]:
        """Those of the corpus's files that belong to the share."""
        return islice(files, self.first, self.last)

    def check(self, corpus: Path, files: Sequence[object]) -> None:
        """Raises CorpusError unless the corpus has as many files as when it was cut."""
        if self.files is not None and len(files) != self.files:
            raise CorpusError(
                f"{corpus}: {len(files):,} files, expected {self.files:,} as when reading began (or this host does not "
                "see all of them); read it again when nothing writes to it"
            )


def cut_files(sizes: Sequence[int], least: int, most: int) -> list[Share]:
    """Shares of files with these sizes in bytes: each of at least `least` bytes, and at most `most` shares if possible.

    A file is not divided: one larger than that is a share of its own, or the end of one.
    """
    target = max(least, -(-sum(sizes) // most))
    shares, first, held = list[Share](), 0, 0
    for number, size in enumerate(sizes, start=1):
        held += size
        if held >= target or number == len(sizes):
            shares.append(Share(first, number, len(sizes)))
            first, held = number, 0
    return shares
