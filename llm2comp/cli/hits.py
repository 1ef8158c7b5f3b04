"""Search results as text."""

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from llm2comp.cli.output import printable
from llm2comp.units import format_ms

if TYPE_CHECKING:
    from llm2comp_indexes import Hit

__all__ = ["describe_score", "format_hits", "format_times", "mark_words"]

_MAX_COLUMNS = 100
_INDENT = 12
_SNIPPET_CHARACTERS = 2000
_SCORES = {
    "dense": "cosine of question and text",
    "bm25": "BM25",
    "hybrid": "sum of reciprocal ranks by vectors and by words (at most 0.033)",
}
_BOLD, _PLAIN = "\x1b[1m", "\x1b[22m"
_WORD = re.compile(r"\w+")
_ENDING = re.compile(r"(?<=.{3})(?:ing|ed|es|e|s)$")


def describe_score(mode: Literal["dense", "bm25", "hybrid"], weights: tuple[float, float] = (1.0, 1.0)) -> str:
    """What the scores of a mode are."""
    if mode == "hybrid" and weights != (1.0, 1.0):
        return "weighted sum of reciprocal ranks by vectors and by words"
    return _SCORES[mode]


def format_times(seconds: float, encoding: float) -> str:
    """Times of searching and, if vectors were used, of encoding the question; loading the model is in neither.

    Args:
        seconds: Seconds of both together.
        encoding: Seconds of encoding; 0 if no vectors were used.
    """
    encoded = f", encode {format_ms(1000 * encoding)}" if encoding else ""
    return f"search {format_ms(1000 * (seconds - encoding))}{encoded}"


def format_hits(
    hits: Sequence["Hit"],
    around: Sequence[Sequence["Hit"]] | None = None,
    *,
    question: str = "",
    fields: Sequence[str] = (),
) -> str:
    """Search results as text, at most 100 columns wide: rank, score, title, id and place, the first lines of the text.

    Args:
        hits: The results.
        around: For each, the chunks before and after it, itself among them; None: only the results.
        question: On a terminal, its words are bold in the results.
        fields: Names of metadata to show.
    """
    width = min(shutil.get_terminal_size((_MAX_COLUMNS, 24)).columns, _MAX_COLUMNS)
    groups = around or [[hit] for hit in hits]
    text = "\n".join(
        _format_hit(rank, hit, group, width, fields)
        for rank, (hit, group) in enumerate(zip(hits, groups, strict=True), start=1)
    )
    return mark_words(text, question) if sys.stdout.isatty() else text


def mark_words(text: str, question: str) -> str:
    """The text with the words of the question in bold, whatever their English ending is."""
    stems = {_stem(word) for word in _WORD.findall(question)}

    def mark(match: re.Match[str]) -> str:
        word = match.group()
        return f"{_BOLD}{word}{_PLAIN}" if _stem(word) in stems else word

    return _WORD.sub(mark, text) if stems else text


def _stem(word: str) -> str:
    return _ENDING.sub("", word.casefold())


def _format_hit(rank: int, hit: "Hit", group: Sequence["Hit"], width: int, fields: Sequence[str]) -> str:
    identifier = printable(hit.id)
    title = printable(hit.title)
    place = f" ({printable(hit.location)})" if hit.location else ""
    lines = [_cut(title or identifier + place, width - _INDENT)]
    if title and (not title.startswith(identifier) or place):
        lines.append(_cut(identifier + place, width - _INDENT))
    if shown := [f"{printable(name)}: {_value(hit.metadata[name])}" for name in fields if name in hit.metadata]:
        lines.append(_cut(", ".join(shown), width - _INDENT))
    for chunk in group:
        mark = "" if len(group) == 1 else "> " if chunk is hit else "  "
        lines += _wrap(chunk.text, mark, max(width - _INDENT, 20))
    return f"{rank:3d}  {hit.score:6.3f} " + ("\n" + " " * _INDENT).join(lines)


def _value(value: object) -> str:
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _wrap(text: str, mark: str, width: int) -> list[str]:
    """The first two lines of the text; the mark stands before the first."""
    lines = textwrap.wrap(printable(text[:_SNIPPET_CHARACTERS]), width - len(mark), max_lines=2, placeholder=" …")
    return [(mark if not number else " " * len(mark)) + line for number, line in enumerate(lines)]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 1)] + "…"
