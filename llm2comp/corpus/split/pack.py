"""Units packed into pieces: as much as a budget of tokens allows, cut at the highest boundary that fits."""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llm2comp.corpus.split.tokens import TokenEnds
from llm2comp.corpus.split.units import Kind, Unit, line_starts, parts

__all__ = ["BLANK_LINES", "TRAILING", "Packed", "Packer"]

BLANK_LINES = re.compile(r"(?:[ \t\f\v]*+(?:\r\n|\n|\r))*+")
"""Left out at the beginning of a piece."""
TRAILING = " \t\f\v\r\n"
"""Left out at the end of a piece."""
_NEAR = 64
_LONG_BLANK = re.compile(rf"[{TRAILING}]{{{_NEAR},}}")
_HEADING_SHARE = 2
"""A heading with more than this part of the budget is cut like a paragraph."""

_MARKS = re.compile(r"(?:(?:[^\w\s]++|\d++[.)])\s++)*+")
"""Marks of lists and quotes at the beginning of a sentence."""
_FENCE = re.compile(r"[ \t]*+(?:`{3}|~{3})[^\r\n]*+[\r\n]++")
"""The line that opens a fence."""


@dataclass(slots=True)
class Packed:
    """A range of the text, the headings above it, and the range of a table's header that is repeated before it."""

    begin: int
    end: int
    headings: tuple[str, ...]
    header: tuple[int, int] | None = None


class Packer:
    """Packs units, which come in the order of the text.

    Args:
        text: The text.
        tokens: Its tokens.
        room: Gives the number of tokens that a piece may have which begins at a place below these headings.
        overlap: Maximum number of tokens of the sentences that a piece repeats from the one before.

    Attributes:
        pieces: The pieces so far.
        cut: Number of words, rows of tables and lines of code that had to be cut.
    """

    def __init__(self, text: str, tokens: TokenEnds, room: Callable[[int, tuple[str, ...]], int], overlap: int) -> None:
        self.pieces: list[Packed] = []
        self.cut = 0
        self._text, self._tokens, self._room, self._overlap = text, tokens, room, overlap
        self._path: tuple[str, ...] = ()
        self._begin = self._end = 0
        self._taken: list[Unit] = []  # units of the piece that is being made
        self._last: list[Unit] = []  # units of the piece before
        self._repeats: list[int] = []  # places at which it may begin earlier, the first one foremost
        self._header: tuple[int, int] | None = None
        self._blanks = [match.span() for match in _LONG_BLANK.finditer(text)]

    def pack(self, units: Sequence[Unit]) -> None:
        """Adds the units of a whole text, and finishes."""
        for unit in units:
            if unit.kind is Kind.HEADING:
                self._begin_section(unit)
            self._add(unit)
        self._finish()

    def _begin_section(self, heading: Unit) -> None:
        if not self._is_bare():
            self._close()
            self._repeats = []
        self._path = heading.headings

    def _is_bare(self) -> bool:
        """Whether the piece has nothing but headings so far."""
        return all(unit.kind is Kind.HEADING for unit in self._taken)

    def _add(self, unit: Unit, *, counted: bool = False) -> None:
        """Adds the unit to the piece, to a new one, or its parts to several.

        Args:
            unit: The unit.
            counted: Whether it is part of a row or line that is counted as cut.
        """
        if self._fits(unit):
            self._take(unit)
        elif self._taken and self._should_close(unit):
            self._close()
            self._add(unit, counted=counted)
        elif unit.kind is Kind.TABLE:
            self._add_rows(unit)
        elif finer := parts(unit, self._text, self._tokens.within):
            if unit.kind in (Kind.ROW, Kind.LINE):
                self.cut, counted = self.cut + (not counted), True
            for part in finer:
                self._add(part, counted=counted)
        else:
            self._add_tokens(unit, counted=counted)

    def _fits(self, unit: Unit) -> bool:
        if not self._taken:
            return self._fits_alone(unit)
        return self._size(self._begin, unit.end) <= self._room_now()

    def _fits_alone(self, unit: Unit) -> bool:
        if unit.kind is Kind.HEADING:
            return self._size(unit.begin, unit.end) <= self._room(unit.begin, self._path) // _HEADING_SHARE
        return self._size(unit.begin, unit.end) <= self._room(unit.begin, self._path)

    def _should_close(self, unit: Unit) -> bool:
        """Whether the piece ends before the unit: it fits into the next one, or this one is half full.

        Headings keep the first part of what comes below them: blocks, code and sentences are cut for that at items,
        lines and words. They stand alone, which is better than to be lost, only where the next row, line or word fits
        into a piece, but not with them; a mark of a list, a quote or a fence is no such word or line by itself.
        """
        if self._is_bare():
            return self._fits_alone(unit) and not self._can_begin_with_headings(unit)
        return self._fits_alone(unit) or 2 * self._size(self._begin, self._end) >= self._room_now()

    def _can_begin_with_headings(self, unit: Unit) -> bool:
        """Whether the unit may be cut to keep its first part with the headings before it."""
        match unit.kind:
            case Kind.HEADING | Kind.ROW | Kind.LINE:
                return False
            case Kind.SENTENCE:
                marks = _MARKS.match(self._text, unit.begin, unit.end)
                words = parts(unit, self._text, self._tokens.within)
                word = next((word for word in words if marks and word.end > marks.end()), unit)
                end = next(iter(parts(word, self._text, self._tokens.within)), word).end
                return self._size(self._begin, end) <= self._room_now()
            case Kind.CODE:
                fence = _FENCE.match(self._text, unit.begin, unit.end)
                starts = line_starts(self._text, fence.end() if fence else unit.begin, unit.end)
                return self._size(self._begin, [*starts, unit.end][1]) <= self._room_now()
        return bool(parts(unit, self._text, self._tokens.within))

    def _room_now(self) -> int:
        return self._room(self._begin, self._path)

    def _size(self, begin: int, end: int) -> int:
        """Number of tokens of the range, with the header that is repeated before it."""
        header = self._tokens.count(*self._header) + 1 if self._header else 0
        return header + self._count(begin, end)

    def _count(self, begin: int, end: int) -> int:
        """Number of tokens of the range without blank lines before it and white space at its end."""
        return self._tokens.count(self._first(begin, end), self._last_of(begin, end))

    def _first(self, begin: int, end: int) -> int:
        blank = BLANK_LINES.match(self._text, begin, end)
        return blank.end() if blank else begin

    def _last_of(self, begin: int, end: int) -> int:
        """Place behind the last character of the range that is no white space."""
        near = max(begin, end - _NEAR)
        while end > near and self._text[end - 1] in TRAILING:
            end -= 1
        if near < end or near == begin:
            return end
        run = self._blanks[bisect_right(self._blanks, (end, 0)) - 1]  # of more than _NEAR characters
        return max(begin, run[0])

    def _take(self, unit: Unit) -> None:
        if not self._taken:
            begin = self._first(unit.begin, unit.end)
            if begin == unit.end:
                return
            room = self._room(begin, self._path)
            earlier = (place for place in self._repeats if self._count(place, unit.end) <= room)
            self._begin = begin if self._header else next(earlier, begin)
        self._taken.append(unit)
        self._end = unit.end

    def _close(self) -> None:
        """Ends the piece; the next one may repeat its last sentences."""
        if self._taken:
            self.pieces.append(Packed(self._begin, self._end, self._path, self._header))
            self._repeats = self._find_repeats() if self._overlap else []
            self._taken, self._last = [], self._taken

    def _find_repeats(self) -> list[int]:
        """Beginnings of the last sentences (or lines of code) of the piece within the overlap, the first foremost."""
        places: list[int] = []
        for unit in reversed(self._taken):
            for sentence in reversed(self._sentences(unit)):
                if sentence.kind not in (Kind.SENTENCE, Kind.LINE):
                    return places
                if not self._text[self._begin : sentence.begin].strip(TRAILING):  # it would be the piece again
                    return places
                if self._count(sentence.begin, self._end) > self._overlap:
                    return places
                places.insert(0, sentence.begin)
        return places

    def _sentences(self, unit: Unit) -> Sequence[Unit]:
        """Sentences and lines of the unit; what is no part of either, or less than one, stays as it is."""
        if unit.kind in (Kind.BLOCKS, Kind.PARAGRAPH, Kind.FLOWING, Kind.CODE):
            finer = parts(unit, self._text, self._tokens.within)
            return [sentence for part in finer for sentence in self._sentences(part)]
        return [unit]

    def _add_rows(self, table: Unit) -> None:
        """Adds the table row by row; pieces that begin within it repeat its header, unless it takes half of them."""
        assert table.header is not None
        first, *rows = table.children
        if rows:  # a header stays with the first row, or else with the headings above the table
            both = Unit(Kind.ROW, first.begin, rows[0].end)
            if not self._taken or not self._is_bare() or self._fits(both) or not self._fits(first):
                first, *rows = both, *rows[1:]
        headless = not self._fits(first) and not self._fits_alone(first)
        self._add(first)
        large = 2 * self._tokens.count(*table.header) > self._room(table.begin, self._path)
        for row in rows:
            if not large and self._taken and (headless or not self._fits(row)):
                self._close()
                self._header = table.header
                headless = not self._fits_alone(row)  # no row may follow in its last piece, which has no header
                if headless:
                    self._header = None
            self._add(row)
        if self._header:
            self._close()
            self._header = None

    def _add_tokens(self, unit: Unit, *, counted: bool) -> None:
        """Adds a word that no piece holds, token by token."""
        self.cut += not counted
        begin = unit.begin
        for end in self._tokens.within(unit.begin, unit.end):
            token = Unit(Kind.FRAGMENT, begin, end)
            if self._taken and not self._fits(token):
                self._close()
            self._take(token)
            begin = end

    def _finish(self) -> None:
        """Ends the last piece; headings at the end of the text go with the sentences before them."""
        if not self._taken or not self._is_bare() or not self.pieces:
            self._close()
            return
        last, begin, end = self.pieces[-1], self._taken[0].begin, self._end
        if self._count(last.begin, end) <= self._room(last.begin, last.headings):
            last.end = end
            return
        room = self._room(begin, last.headings)
        content = [unit for unit in self._last if unit.kind is not Kind.HEADING]
        starts = [sentence.begin for unit in content for sentence in self._sentences(unit)][1:]
        split = next((place for place in starts if self._count(place, end) <= room), None)
        if split is None or last.header:
            self._close()
            return
        last.end = split
        self.pieces.append(Packed(split, end, last.headings))
