"""Code cut at definitions: functions, classes and what stands beside them, in any language that indents."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from llm2comp.corpus.split.units import Kind, Unit, line_starts

__all__ = ["code_unit"]

_DEEPEST = 8
_DEFINITION = re.compile(
    r"(?:@|#\[|(?:(?:export|default|pub(?:\([^)]*\))?|public|private|protected|internal|static|final|abstract|async|unsafe"
    r"|inline|virtual|override|sealed|partial|const|extern)\s+)*"
    r"(?:def|class|function|func|fun|fn|interface|struct|enum|trait|impl|module|namespace|type|record|object|sub)\b)"
)
_CLOSING = re.compile(r"[)\]}>]|end\b|else\b|elif\b|except\b|finally\b|catch\b|rescue\b|ensure\b|```|~~~")

_ATTACHED = re.compile(r"@|#|//|/?\*|--|;")  # decorators and comments


class _Line(NamedTuple):
    begin: int
    end: int
    indent: int
    """Columns; -1: blank."""
    content: str


def code_unit(text: str, begin: int, end: int) -> Unit:
    """The range as a unit of definitions within definitions, which are cut into lines at last."""
    return _unit(list(_lines(text, begin, end)), begin, end, _DEEPEST)


def _lines(text: str, begin: int, end: int) -> Iterator[_Line]:
    for one, two in pairwise([*line_starts(text, begin, end), end]):
        line = text[one:two].expandtabs(4)
        content = line.strip()
        yield _Line(one, two, len(line) - len(line.lstrip()) if content else -1, content)


def _unit(lines: Sequence[_Line], begin: int, end: int, depth: int) -> Unit:
    starts = _definitions(lines) if depth else []
    if len(starts) < 2:
        inner = _definitions(lines[1:]) if depth else []
        starts = [0, *(1 + row for row in inner if row)] if len(inner) > 1 else []
    if len(starts) < 2:
        return Unit(Kind.CODE, begin, end)
    children = tuple(
        _unit(
            lines[one:two],
            begin if not one else lines[one].begin,
            end if two == len(lines) else lines[two].begin,
            depth - 1,
        )
        for one, two in pairwise([*starts, len(lines)])
    )
    return Unit(Kind.CODE, begin, end, children)


def _definitions(lines: Sequence[_Line]) -> list[int]:
    """Numbers of the lines, the first among them, at which something new begins on the outermost level."""
    outermost = min((line.indent for line in lines if line.indent >= 0), default=0)
    starts, attached = [0], False  # to a decorator or comment above
    for number, line in enumerate(lines):
        if line.indent == outermost and number and not _CLOSING.match(line.content):
            defines = _DEFINITION.match(line.content) is not None
            if lines[number - 1].indent < 0 or (defines and not attached):
                starts.append(number)
        if line.indent >= 0:
            attached = line.indent == outermost and _ATTACHED.match(line.content) is not None
    return starts
