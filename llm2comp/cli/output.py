"""What commands print: text from anywhere made safe for a terminal, ranked answers, JSON."""

import json
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llm2comp.errors import SettingsError

if TYPE_CHECKING:
    from llm2comp_indexes import Hit

__all__ = ["check_target", "format_hits", "print_json", "printable", "tell", "wrong_usage"]

_WIDEST = 100
_INDENT = 12
_SNIPPET_CHARACTERS = 2000
_UNSAFE = {"Cc", "Cs"}
_TURNS_TEXT = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """The text in one line, with `\N{REPLACEMENT CHARACTER}` for characters that steer a terminal or turn the direction of what follows."""
    line = " ".join(text.split())
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if character in _TURNS_TEXT or unicodedata.category(character) in _UNSAFE
        else character
        for character in line
    )


def tell(line: str) -> None:
    """Says on stderr, in one line, what has begun."""
    print(printable(line), file=sys.stderr, flush=True)


def check_target(file: Path | None) -> None:
    """Refuses a file to be written in no folder, before an hour is spent on it."""
    if file and not file.absolute().parent.is_dir():
        raise typer.BadParameter(f"{file}: there is no folder {file.parent}; make it first")


def format_hits(hits: Sequence["Hit"]) -> str:
    """Ranked answers as text for people: rank, score, title, id, the first lines of the text; at most 100 columns."""
    width = min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)
    return "\n".join(_format_hit(rank, hit, width) for rank, hit in enumerate(hits, start=1))


def _format_hit(rank: int, hit: "Hit", width: int) -> str:
    identifier = printable(hit.id)
    title = printable(hit.title)
    lines = [_cut(title or identifier, width - _INDENT)]
    if title and not title.startswith(identifier):
        lines.append(_cut(identifier, width - _INDENT))
    lines += textwrap.wrap(
        printable(hit.text[:_SNIPPET_CHARACTERS]), max(width - _INDENT, 20), max_lines=2, placeholder=" …"
    )
    return f"{rank:3d}  {hit.score:6.3f} " + ("\n" + " " * _INDENT).join(lines)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 1)] + "…"


def print_json(value: Any) -> None:
    """Prints the value to stdout as JSON, two spaces a level."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


@contextmanager
def wrong_usage() -> Iterator[None]:
    """Makes settings that cannot be, as the options on the command line give them, wrong usage: exit code 2."""
    try:
        yield
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from error
