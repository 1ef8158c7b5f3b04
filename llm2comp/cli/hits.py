"""Search results as text."""

import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from llm2comp.cli.output import printable
from llm2comp.units import format_ms

if TYPE_CHECKING:
    from llm2comp_indexes import Hit, SearchOptions

__all__ = ["describe_score", "format_hits", "format_times", "mark_words"]

_Mark = Callable[[str], str]

_MAX_COLUMNS = 100
_INDENT = 12
_SNIPPET_CHARACTERS = 2000
_SCORES = {"dense": "cosine of question and text", "bm25": "BM25"}
_BOLD, _PLAIN = "\x1b[1m", "\x1b[22m"
_WORD = re.compile(r"[^\W_]+")
_FUNCTION_WORDS = re.compile(
    "an?|and|are|as|at|be|by|can|do(es)?|for|from|how|i[ns]?|it|o[fnr]|that|the|this|to|was|what|wh(en|ere|ich|o|y)|will|"
    "with|you"
)
_ENDING = re.compile(r"(?<=.{3})(?:ing|ed|es|e|s)$")


def describe_score(options: "SearchOptions") -> str:
    """What the scores of such a search are."""
    if options.rescore is not None:
        return "MaxSim, a sum of the best cosines of memory tokens"
    if options.mode != "hybrid":
        return _SCORES[options.mode]
    vectors, words = (f"{weight:g}" for weight in options.fused_weights)
    if options.fusion == "ranks":
        return f"{vectors} / (60 + rank by vectors) + {words} / (60 + rank by words)"
    return f"cosine and BM25, each scaled to 0..1, in the ratio {vectors} to {words}"


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
        question: On a terminal, its words are bold in titles and texts, unless NO_COLOR is set or TERM is `dumb`.
        fields: Names of metadata to show.
    """
    width = min(shutil.get_terminal_size((_MAX_COLUMNS, 24)).columns, _MAX_COLUMNS)
    groups = around or [[hit] for hit in hits]
    mark: _Mark = partial(mark_words, question=question) if _has_styles() else str
    return "\n".join(
        _format_hit(rank, hit, group, width, fields, mark)
        for rank, (hit, group) in enumerate(zip(hits, groups, strict=True), start=1)
    )


def _has_styles() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def mark_words(text: str, question: str) -> str:
    """The text with the words of the question in bold, whatever their English ending is.

    Words such as "the" and "how" are bold only if the question has no other.
    """
    words = {word.casefold() for word in _WORD.findall(question)}
    stems = {_stem(word) for word in words if not _FUNCTION_WORDS.fullmatch(word)} or words

    def mark(match: re.Match[str]) -> str:
        word = match.group()
        return f"{_BOLD}{word}{_PLAIN}" if _stem(word) in stems else word

    return _WORD.sub(mark, text)


def _stem(word: str) -> str:
    return _ENDING.sub("", word.casefold())


def _format_hit(rank: int, hit: "Hit", group: Sequence["Hit"], width: int, fields: Sequence[str], mark: _Mark) -> str:
    identifier = printable(hit.id)
    title = printable(hit.title)
    place = f" ({printable(hit.location)})" if hit.location else ""
    lines = [mark(_cut(title or identifier + place, width - _INDENT))]
    if title and (not title.startswith(identifier) or place):
        lines.append(_cut(identifier + place, width - _INDENT))
    values = {name: value for name in fields if (value := _look_up(hit.metadata, name)) is not None}
    if values:
        shown = ", ".join(f"{printable(name)}: {_format_value(value)}" for name, value in values.items())
        lines.append(_cut(shown, width - _INDENT))
    for chunk in group:
        arrow = "" if len(group) == 1 else "> " if chunk is hit else "  "
        lines += map(mark, _wrap(chunk.text, arrow, max(width - _INDENT, 20)))
    return f"{rank:3d}  {hit.score:6.3f} " + ("\n" + " " * _INDENT).join(lines)


def _look_up(metadata: Mapping[str, Any], name: str) -> Any:
    """The value of the field, or within the object that the part of the name before a dot names; None without one."""
    if name in metadata:
        return metadata[name]
    outer, dot, inner = name.partition(".")
    within = metadata.get(outer) if dot else None
    return _look_up(within, inner) if isinstance(within, Mapping) else None


def _format_value(value: object) -> str:
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _wrap(text: str, arrow: str, width: int) -> list[str]:
    """The first two lines of the text; the arrow stands before the first."""
    lines = textwrap.wrap(printable(text[:_SNIPPET_CHARACTERS]), width - len(arrow), max_lines=2, placeholder=" …")
    return [(arrow if not number else " " * len(arrow)) + line for number, line in enumerate(lines)]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 1)] + "…"
