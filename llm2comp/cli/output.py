"""What commands print: text made safe for a terminal, JSON."""

import json
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from llm2comp.errors import SettingsError

__all__ = ["check_target", "print_json", "printable", "tell", "wrong_usage"]

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
