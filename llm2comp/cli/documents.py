"""Documents as commands count and name them."""

from collections.abc import Sequence
from pathlib import Path

from llm2comp.errors import CorpusError

__all__ = ["read_ids", "format_documents", "format_ids"]

_SHOWN = 10
_LONGEST = 60


def read_ids(path: Path) -> list[str]:
    """The ids in the file, one a line, spaces and all; empty lines are none.

    Raises:
        CorpusError: The file is missing, not text, or holds no id.
    """
    from llm2comp.corpus.text import open_text

    with open_text(path) as file:
        ids = [line.rstrip("\r\n") for line in file if line.strip()]
    if not ids:
        raise CorpusError(f"{path}: holds no ids, expected one a line")
    return ids


def format_documents(count: int) -> str:
    """So many documents."""
    return f"{count:,} document{'s' * (count != 1)}"


def format_ids(ids: Sequence[str]) -> str:
    """The first ids, cut to a length that can be read, and how many more there are."""
    more = f" and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else ""
    return ", ".join(map(_format_id, ids[:_SHOWN])) + more


def _format_id(identifier: str) -> str:
    """The id; quoted where it could be taken for another one."""
    cut = identifier if len(identifier) <= _LONGEST else identifier[: _LONGEST - 1] + "…"
    return cut if cut.isprintable() and cut.strip() == cut and cut else repr(cut)
