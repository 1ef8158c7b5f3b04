"""Units of a text: the tree of blocks, lines, sentences, words and tokens that chunks are packed of."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from itertools import pairwise

from llm2comp.corpus.split.boundaries import sentence_ends, word_ends

__all__ = ["Kind", "Unit", "cut_at", "line_starts", "parts"]

_LINE = re.compile(r"\r\n|\n|\r")
_WORD = re.compile(r"\S+\s*")
_UNSPACED = re.compile("[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]")
"""Thai, Lao, Tibetan, Burmese, Khmer, Japanese, Chinese."""
_CLOSING = re.compile("[)\\]}»”’›、。〉》」』】〕〗〙〛！），．：；？］｝～｡｣､…‥・ー々።፧।॥۔؟،؛!?.,;:]")
"""Punctuation that stays with what comes before it."""
_CLOSING_ALONE = re.compile(rf"{_CLOSING.pattern}++(?!\S)")
"""Such punctuation behind a blank, as French has it; not the first letter of `.profile`."""
_OPENING = "([{«“‘‹〈《「『【〔〖〘〚（［｛｢¿¡"
"""Punctuation that stays with what comes behind it."""
_WIDEST = 200
"""Width in characters above which the lines of a paragraph are not taken for lines that an editor wrapped."""


class Kind(Enum):
    """What a unit is, which says how it is cut."""

    HEADING = auto()
    BLOCKS = auto()
    PARAGRAPH = auto()
    FLOWING = auto()
    """A paragraph of Markdown, in which a line break is white space."""
    SENTENCE = auto()
    CODE = auto()
    TABLE = auto()
    """Its children are the rows; `header` is the range of the rows that are repeated."""
    ROW = auto()
    LINE = auto()
    WORD = auto()
    FRAGMENT = auto()
    """A word as dictionaries know it, in writing without spaces."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of a text.

    Attributes:
        kind: What it is.
        begin: Place of its first character.
        end: Place behind its last character, and behind the white space after it.
        children: Units that make it up without gaps.
        header: Of a table: the range of its header row.
        headings: Of a heading: the path of headings down to it, outermost first.
    """

    kind: Kind
    begin: int
    end: int
    children: tuple["Unit", ...] = ()
    header: tuple[int, int] | None = None
    headings: tuple[str, ...] = ()


def line_starts(text: str, begin: int = 0, end: int | None = None) -> list[int]:
    r"""Places within the range at which its lines begin; lines end with `\n`, `\r\n` or `\r`."""
    stop = len(text) if end is None else end
    return [begin, *(match.end() for match in _LINE.finditer(text, begin, stop) if match.end() < stop)]


def cut_at(places: Iterable[int], unit: Unit, kind: Kind) -> tuple[Unit, ...]:
    """Units of that kind that make up the unit, cut at the places within it."""
    inner = sorted({place for place in places if unit.begin < place < unit.end})
    return tuple(Unit(kind, one, two) for one, two in pairwise([unit.begin, *inner, unit.end]))


def parts(unit: Unit, text: str, tokens: Callable[[int, int], list[int]]) -> tuple[Unit, ...]:
    """Units that make up the unit, one level finer; empty for one that is cut no further.

    Args:
        unit: The unit.
        text: The whole text.
        tokens: Gives the ends of tokens in a range.
    """
    if unit.children:
        return unit.children
    match unit.kind:
        case Kind.PARAGRAPH | Kind.FLOWING:
            return _cut_sentences(unit, text)
        case Kind.CODE:
            return cut_at(line_starts(text, unit.begin, unit.end), unit, Kind.LINE)
        case Kind.SENTENCE | Kind.ROW | Kind.LINE | Kind.HEADING:
            words = _WORD.finditer(text, unit.begin, unit.end)
            ends = (word.end() for word in words if word[0].rstrip() not in _OPENING)
            return cut_at((end for end in ends if not _CLOSING_ALONE.match(text, end, unit.end)), unit, Kind.WORD)
        case Kind.WORD:
            ends = (unit.begin + end for end in word_ends(text[unit.begin : unit.end]))
            kept = (end for end in ends if not _CLOSING.match(text, end, unit.end) and text[end - 1] not in _OPENING)
            fragments = cut_at(kept, unit, Kind.FRAGMENT)
            return fragments if len(fragments) > 1 and _is_unspaced(text[unit.begin : unit.end]) else ()
    return ()


def _is_unspaced(word: str) -> bool:
    """Whether the word is of a writing without spaces, in which many words may stand in one run of characters."""
    return _UNSPACED.search(word) is not None


def _cut_sentences(unit: Unit, text: str) -> tuple[Unit, ...]:
    content = text[unit.begin : unit.end]
    starts = line_starts(content)[1:]
    hard = [] if unit.kind is Kind.FLOWING else _hard_breaks(content, starts)
    soft = set(starts).difference(hard)
    if soft:  # a line break would end a sentence
        content = _LINE.sub(lambda match: " " * len(match[0]) if match.end() in soft else match[0], content)
    return cut_at((unit.begin + end for end in [*sentence_ends(content), *hard]), unit, Kind.SENTENCE)


def _hard_breaks(paragraph: str, starts: list[int]) -> list[int]:
    """Starts of lines that an editor did not wrap: the first word would have had room on the line before."""
    if not starts:
        return []
    lines = [paragraph[one:two].rstrip() for one, two in pairwise([0, *starts, len(paragraph)])]
    width = max(map(len, lines))
    if width > _WIDEST:
        return starts
    return [
        start
        for start, before, line in zip(starts, lines, lines[1:], strict=False)
        if len(before) + 1 + len(line.split(None, 1)[0] if line.strip() else "") <= width
    ]
