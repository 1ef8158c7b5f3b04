"""What commands print: text made safe for a terminal, search results, JSON."""

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

_MAX_COLUMNS = 100
_INDENT = 12
_SNIPPET_CHARACTERS = 2000
_UNSAFE_CATEGORIES = {"Cc", "Cs"}
_CHANGE_DIRECTION = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """The text on one line, safe for a terminal.

    Control characters and those that change the direction of the text become `\N{REPLACEMENT CHARACTER}`.
    """
    line = " ".join(text.split())
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if character in _CHANGE_DIRECTION or unicodedata.category(character) in _UNSAFE_CATEGORIES
        else character
        for character in line
    )


def tell(line: str) -> None:
    """Prints the message on stderr as one line."""
    print(printable(line), file=sys.stderr, flush=True)


def check_target(file: Path | None) -> None:
    """Checks that the folder of an output file exists, before the work that takes long.

    Raises:
        typer.BadParameter: There is no such folder.
    """
    if file and not file.absolute().parent.is_dir():
        raise typer.BadParameter(f"{file}: there is no folder {file.parent}; create it first")


def format_hits(hits: Sequence["Hit"], around: Sequence[Sequence["Hit"]] | None = None) -> str:
    """Search results as text, at most 100 columns wide: rank, score, title, id and place, the first lines of the text.

    Args:
        hits: The results.
        around: For each, the chunks before and after it, itself among them; None: only the results.
    """
    width = min(shutil.get_terminal_size((_MAX_COLUMNS, 24)).columns, _MAX_COLUMNS)
    groups = around or [[hit] for hit in hits]
    return "\n".join(
        _format_hit(rank, hit, group, width)
        for rank, (hit, group) in enumerate(zip(hits, groups, strict=True), start=1)
    )


def _format_hit(rank: int, hit: "Hit", group: Sequence["Hit"], width: int) -> str:
    identifier = printable(hit.id)
    title = printable(hit.title)
    place = f" ({printable(hit.location)})" if hit.location else ""
    lines = [_cut(title or identifier + place, width - _INDENT)]
    if title and (not title.startswith(identifier) or place):
        lines.append(_cut(identifier + place, width - _INDENT))
    for chunk in group:
        mark = "" if len(group) == 1 else "> " if chunk is hit else "  "
        lines += _wrap(chunk.text, mark, max(width - _INDENT, 20))
    return f"{rank:3d}  {hit.score:6.3f} " + ("\n" + " " * _INDENT).join(lines)


def _wrap(text: str, mark: str, width: int) -> list[str]:
    """The first two lines of the text; the mark stands before the first."""
    lines = textwrap.wrap(printable(text[:_SNIPPET_CHARACTERS]), width - len(mark), max_lines=2, placeholder=" …")
    return [(mark if not number else " " * len(mark)) + line for number, line in enumerate(lines)]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 1)] + "…"


def print_json(value: Any) -> None:
    """Prints the value on stdout as JSON, indented by two spaces; escaped where stdout cannot encode a character."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)
    print(text)


@contextmanager
def wrong_usage() -> Iterator[None]:
    """Reports a SettingsError about options of the command line as wrong usage (exit code 2)."""
    try:
        yield
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from error
