"""Blocks of a Markdown text, as markdown-it parses them (CommonMark with tables)."""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from llm2comp.corpus.split.code import code_unit
from llm2comp.corpus.split.units import Kind, Unit, line_starts

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

__all__ = ["markdown_units"]

_CONTAINERS = frozenset({"bullet_list_open", "ordered_list_open", "list_item_open", "blockquote_open"})
_LEAVES = {
    "heading_open": Kind.HEADING,
    "paragraph_open": Kind.FLOWING,
    "fence": Kind.CODE,
    "code_block": Kind.CODE,
    "table_open": Kind.TABLE,
    "html_block": Kind.PARAGRAPH,
    "hr": Kind.PARAGRAPH,
}


def markdown_units(text: str) -> list[Unit]:
    """The blocks of the text, which make it up without gaps; headings know the headings above them."""
    parser = _parser()
    tokens = parser.parse(text)
    places = [*line_starts(text), len(text)]
    return _Reader(text, tokens, places).units(0, len(tokens), 0, len(text), path=[])


@cache
def _parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark").enable("table")
    parser.core.ruler.enableOnly(["normalize", "block"])
    return parser


@cache
def _inline_parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark")


def _plain(source: str) -> str:
    """The text of a heading without its markup."""
    if not any(mark in source for mark in "*_`[]<&\\"):
        return " ".join(source.split())
    [inline] = _inline_parser().parseInline(source)
    children = inline.children or []
    return " ".join("".join(token.content or " " * (token.type == "softbreak") for token in children).split())


class _Reader:
    """Makes units of markdown-it's tokens, which come in the order of the text, closed ones behind open ones."""

    def __init__(self, text: str, tokens: Sequence[Any], places: Sequence[int]) -> None:
        self._text, self._tokens, self._places = text, tokens, places

    def units(self, first: int, last: int, begin: int, end: int, path: "list[tuple[int, str]] | None") -> list[Unit]:
        """Units of the tokens from `first` up to `last`, for this range of the text.

        Args:
            first: Number of the first token.
            last: Number behind the last token.
            begin: Place at which the first unit begins.
            end: Place at which the last unit ends.
            path: Level and text of the headings so far, which is changed; None: headings here have no section.
        """
        spans = self._blocks(first, last)
        if not spans:
            return [Unit(Kind.PARAGRAPH, begin, end)] if begin < end else []
        starts = [begin, *(max(begin, self._place(self._tokens[opening].map[0])) for opening, _ in spans[1:]), end]
        return [
            self._unit(opening, closing, one, two, path)
            for (opening, closing), (one, two) in zip(spans, pairwise(starts), strict=True)
        ]

    def _blocks(self, first: int, last: int) -> "list[tuple[int, int]]":
        """Number of the opening and of the closing token of each block."""
        spans, number = [], first
        while number < last:
            token, opening = self._tokens[number], number
            while token.nesting == 1 and (self._tokens[number].nesting, self._tokens[number].level) != (
                -1,
                token.level,
            ):
                number += 1
            if token.map is not None:
                spans.append((opening, number))
            number += 1
        return spans

    def _place(self, line: int) -> int:
        return self._places[min(line, len(self._places) - 1)]

    def _unit(self, opening: int, closing: int, begin: int, end: int, path: "list[tuple[int, str]] | None") -> Unit:
        token = self._tokens[opening]
        if token.type in _CONTAINERS:
            children = tuple(self.units(opening + 1, closing, begin, end, None))
            return Unit(Kind.BLOCKS, begin, end, children)
        kind = _LEAVES.get(token.type, Kind.PARAGRAPH)
        if kind is Kind.HEADING:
            if path is None:
                return Unit(Kind.FLOWING, begin, end)
            level = int(token.tag[1:])
            path[:] = [entry for entry in path if entry[0] < level]
            path.append((level, _plain(self._tokens[opening + 1].content)))
            return Unit(kind, begin, end, headings=tuple(text for _, text in path if text))
        if kind is Kind.TABLE:
            return self._table(opening, closing, begin, end)
        return code_unit(self._text, begin, end) if kind is Kind.CODE else Unit(kind, begin, end)

    def _table(self, opening: int, closing: int, begin: int, end: int) -> Unit:
        """A table, whose header is its first row and the line of dashes below."""
        rows = [token.map[0] for token in self._tokens[opening:closing] if token.type == "tr_open"]
        body = [max(begin, self._place(line)) for line in rows[1:]]
        header = (begin, body[0] if body else end)
        children = tuple(Unit(Kind.ROW, one, two) for one, two in pairwise([begin, *body, end]))
        return Unit(Kind.TABLE, begin, end, children, header)
