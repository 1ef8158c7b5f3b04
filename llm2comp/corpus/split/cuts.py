"""Places within a piece at which it may be cut further: blocks, then the sentences, lines and rows that they are of."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from llm2comp.corpus.documents import Document
from llm2comp.corpus.split.splitter import Piece, document_units
from llm2comp.corpus.split.units import Kind, Unit, parts

__all__ = ["Part", "finer_parts", "parts_of"]

_FINEST = (Kind.SENTENCE, Kind.ROW, Kind.LINE, Kind.HEADING, Kind.WORD, Kind.FRAGMENT)


class Part(NamedTuple):
    """A part of a piece, behind which it may be cut; headings are in the part that follows them.

    Attributes:
        begin: Place of its first character.
        end: Place behind its last one.
        unit: What it is, without the headings.
        header: Range of the header of the table that it is a row of, if that is not in the part itself.
    """

    begin: int
    end: int
    unit: Unit
    header: tuple[int, int] | None = None


def parts_of(document: Document, piece: Piece) -> list[Part]:
    """The blocks that make up a piece of the document; what lies only partly in it is taken in parts."""
    units = [unit for whole in document_units(document) for unit in _within(whole, document.text, piece)]
    return _with_headings(
        [Part(max(unit.begin, piece.begin), min(unit.end, piece.end), unit, header) for unit, header in units]
    )


def finer_parts(part: Part, text: str) -> list[Part]:
    """The parts of a part, one level finer; empty for a sentence, a row and a line, which are not cut."""
    unit = part.unit
    if unit.kind in _FINEST:
        return []
    finer = [
        Part(max(one.begin, part.begin), min(one.end, part.end), one, part.header or header)
        for one, header in _parts(unit, text)
        if one.end > part.begin and one.begin < part.end
    ]
    if finer:
        finer[0] = finer[0]._replace(begin=part.begin)
    return _with_headings(finer)


def _parts(unit: Unit, text: str) -> Iterator[tuple[Unit, tuple[int, int] | None]]:
    """Units that make up the unit, and for rows of tables the header that is not in them."""
    if unit.kind is not Kind.TABLE:
        yield from ((one, None) for one in parts(unit, text, lambda begin, end: [end]))
        return
    first, *rows = unit.children
    if rows:  # a header stays with the first row
        first, *rows = Unit(Kind.ROW, first.begin, rows[0].end), *rows[1:]
    yield first, None
    yield from ((row, unit.header) for row in rows)


def _within(unit: Unit, text: str, piece: Piece) -> Iterator[tuple[Unit, tuple[int, int] | None]]:
    """The unit, if the piece holds all of it but white space; else those of its parts that lie in the piece."""
    if unit.end <= piece.begin or unit.begin >= piece.end:
        return
    outside = text[unit.begin : max(unit.begin, piece.begin)] + text[min(unit.end, piece.end) : unit.end]
    finer = list(_parts(unit, text)) if outside.strip() and unit.kind not in _FINEST else []
    if not finer:
        yield unit, None
    for one, header in finer:
        for inner, own in _within(one, text, piece):
            yield inner, own or header


def _with_headings(found: Sequence[Part]) -> list[Part]:
    """The parts, each heading joined with the part behind it; headings at the end stay with the part before."""
    joined: list[Part] = []
    begin: int | None = None
    for part in found:
        if part.unit.kind is Kind.HEADING:
            begin = part.begin if begin is None else begin
            continue
        joined.append(part if begin is None else part._replace(begin=begin))
        begin = None
    if begin is not None and joined:
        joined[-1] = joined[-1]._replace(end=found[-1].end)
    elif begin is not None:
        joined = [found[-1]._replace(begin=begin)]
    return joined
