"""What commands print: text from anywhere made safe for a terminal, ranked answers, JSON, progress."""

import json
import shutil
import sys
import textwrap
import time
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from llm2comp_indexes import Hit

__all__ = ["Progress", "format_bytes", "format_hits", "print_json", "printable"]

_WIDEST = 100
_INDENT = 12
_SNIPPET_CHARACTERS = 2000
_UNSAFE = {"Cc", "Cs"}
_TURNS_TEXT = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """The text in one line, with `\N{REPLACEMENT CHARACTER}` for characters that steer a terminal or turn the direction of what follows."""
    line = " ".join(text.split())
    return "".join("\N{REPLACEMENT CHARACTER}" if character in _TURNS_TEXT or unicodedata.category(character) in _UNSAFE else character for character in line)


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
    lines += textwrap.wrap(printable(hit.text[:_SNIPPET_CHARACTERS]), max(width - _INDENT, 20), max_lines=2, placeholder=" …")
    return f"{rank:3d}  {hit.score:6.3f} " + ("\n" + " " * _INDENT).join(lines)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 1)] + "…"


def print_json(value: Any) -> None:
    """Prints the value to stdout as JSON, two spaces a level."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def format_bytes(size: int) -> str:
    """The size with a decimal unit, such as `12.3 MB`."""
    amount, units = float(size), iter(("bytes", "kB", "MB", "GB"))
    unit = next(units)
    for larger in units:
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"


class Progress:
    """How far a count has come, on stderr: a bar on a terminal, elsewhere a plain line every ten seconds or so."""

    _SECONDS_BETWEEN_LINES = 10.0

    def __init__(self, what: str) -> None:
        from tqdm import tqdm

        self._what = what
        self._bar = tqdm(unit=f" {what}", disable=None, leave=False)
        self._started = self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def phase(self, name: str, count: int) -> None:
        """Shows the count of a named phase; a new phase starts a new bar."""
        if name != self._what:
            self._what = name
            self._bar.reset()
            self._bar.unit = f" {name}"
            self._started = self._last = time.monotonic()
            if self._bar.disable:
                print(f"{name} …", file=sys.stderr, flush=True)
        self.update(count)

    def update(self, count: int) -> None:
        """Shows the count so far."""
        self._bar.update(count - self._bar.n)
        now = time.monotonic()
        if self._bar.disable and now - self._last >= self._SECONDS_BETWEEN_LINES:
            self._last = now
            print(f"{count:,} {self._what} after {now - self._started:.0f} s", file=sys.stderr, flush=True)
