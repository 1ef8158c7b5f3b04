"""Counts and ids of documents as commands read and print them."""

import sys
from collections.abc import Sequence
from pathlib import Path

from llm2comp.cli.output import printable
from llm2comp.cli.progress import note
from llm2comp.errors import CorpusError

__all__ = ["Skips", "format_documents", "format_encoded", "format_ids", "note_cut", "read_ids"]

_SHOWN = 10
_ID_CHARACTERS = 60


def read_ids(path: Path) -> list[str]:
    """The ids in a file, one per line; spaces belong to the id, empty lines are skipped.

    Raises:
        CorpusError: The file is missing, not text, or holds no id.
    """
    from llm2comp.corpus.text import open_text

    with open_text(path) as file:
        ids = [line.rstrip("\r\n") for line in file if line.strip()]
    if not ids:
        raise CorpusError(f"{path}: holds no ids, expected one per line")
    return ids


def format_documents(count: int) -> str:
    """Number of documents, formatted."""
    return f"{count:,} document{'s' * (count != 1)}"


def format_ids(ids: Sequence[str]) -> str:
    """The first ten ids, long ones shortened, and how many more there are."""
    more = f" and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else ""
    return ", ".join(map(_format_id, ids[:_SHOWN])) + more


def _format_id(identifier: str) -> str:
    """The id; quoted if it has spaces at an end or characters that cannot be printed."""
    cut = identifier if len(identifier) <= _ID_CHARACTERS else identifier[: _ID_CHARACTERS - 1] + "…"
    return cut if cut.isprintable() and cut.strip() == cut and cut else repr(cut)


def format_encoded(encoded: int, rows: int, seconds: float) -> str:
    """Rows encoded per second, in brackets; with their number if an interrupted run had encoded the other rows."""
    if not encoded or not seconds:
        return ""
    number = f"{encoded:,} encoded now, " if encoded < rows else ""
    return f" ({number}{encoded / seconds:,.0f} encoded a second)"


def note_cut(count: int, below: int = 0) -> None:
    """Prints on stderr how many words, rows of tables and lines of code were cut for chunks, if any were.

    And how many sentences, rows and lines are chunks by themselves, below the fidelity of chunks.
    """
    if below:
        what = "sentence, row or line is a chunk" if below == 1 else "sentences, rows or lines are chunks"
        print(
            f"{below:,} {what} alone, and kept less than the fidelity of chunks; where these are most of the chunks, a "
            "lower share (--chunk-by-fidelity) makes longer ones",
            file=sys.stderr,
        )
    if count:
        what = "word, table row or code line was" if count == 1 else "words, table rows and code lines were"
        print(f"{count:,} {what} longer than a chunk, and cut at tokens", file=sys.stderr)


class Skips:
    """Skipped rows: prints the first messages about them, and how many there are in all."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, message: str) -> None:
        """Counts a skipped row and prints the message if it is one of the first ten."""
        self._count += 1
        if self._count <= _SHOWN:
            note(f"skipped: {printable(message)}")

    def summarize(self) -> None:
        """Prints the number of skipped rows on stderr, if there are any."""
        if self._count:
            unshown = f" (the first {_SHOWN} are named above)" if self._count > _SHOWN else ""
            print(f"skipped {self._count:,} row{'s' * (self._count > 1)} in all{unshown}", file=sys.stderr)
