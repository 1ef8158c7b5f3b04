"""Documents cut into pieces within a budget of tokens, each with its place in the text, its headings and its pages."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from llm2comp.corpus.documents import Document, Markup
from llm2comp.corpus.split.code import code_unit
from llm2comp.corpus.split.context import Context
from llm2comp.corpus.split.markdown import markdown_units
from llm2comp.corpus.split.pack import BLANK_LINES, TRAILING, Packed, Packer
from llm2comp.corpus.split.plain import plain_units
from llm2comp.corpus.split.tokens import TokenEnds, Tokens
from llm2comp.corpus.split.units import Unit
from llm2comp.errors import SettingsError

__all__ = ["Piece", "Split", "Splitter", "document_units", "make_piece"]

_ROUNDS = 12
_EDGES = 8
"""Number of tokens that a text by itself may have beyond those that it has within another: they differ at its edges."""
_UNSURE = 8
"""A text that has this part of the budget left, by the tokens of its words, is not counted exactly."""
_SHOWN = 2000
"""Number of characters of a piece in which the headings that it begins with are looked for."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a document's text.

    Attributes:
        begin: Place of its first character.
        end: Place behind its last one: the text of the piece is `text[begin:end]`.
        headings: Headings above it, outermost first.
        pages: Numbers of the pages, from 1, on which it begins and ends; None: the document has none.
        repeated: Header of the table in which it begins, with line break; empty for any other piece.
    """

    begin: int
    end: int
    headings: tuple[str, ...] = ()
    pages: tuple[int, int] | None = None
    repeated: str = ""


class Split(NamedTuple):
    """Pieces of a document, and the number of words, rows of tables and lines of code that had to be cut for them."""

    pieces: list[Piece]
    cut: int


class Splitter:
    """Cuts documents into pieces that end at headings, at paragraphs, and at sentences.

    A piece holds at most `limit` tokens, with the special tokens of the model and what `Context` puts before it.

    Args:
        tokenizer: The fast tokenizer of the model.
        limit: Maximum number of tokens of a piece.
        overlap: Maximum number of tokens in the whole sentences that a piece repeats from the one before.
        context: Whether title and headings are put before the text of a piece that is encoded.

    Raises:
        SettingsError: The tokenizer is not a fast one, or the limit leaves no room for text.
    """

    def __init__(self, tokenizer: Any, limit: int, overlap: int = 0, *, context: bool = True) -> None:
        self._tokens, self._limit, self._overlap = Tokens(tokenizer), limit, overlap
        if limit <= self._tokens.special:
            raise SettingsError(
                f"chunk_tokens is {limit}, which leaves no room for text beside the {self._tokens.special} special "
                "tokens of the model; give more"
            )
        self._context = Context(self._tokens, limit) if context else None

    def encoded_text(self, title: str, headings: Sequence[str], content: str) -> str:
        """The text that is encoded for a piece with this content."""
        return self._context.text(title, headings, content) if self._context else content

    def whole_text(self, title: str, text: str) -> str:
        """The text that is encoded for a document of one piece: with the whole title before it, if that fits."""
        document = Document("", title, text)
        long_title = text.strip() and len(title.encode("utf-8", "surrogatepass")) > self._limit // 4
        if long_title and not self._is_one(document, self._tokens.ends(text)):
            return self.encoded_text(title, (), text)
        return document.content

    def split(self, document: Document) -> Split:
        """The pieces of the document, in order; none overlaps another but by repeated sentences.

        One piece is the whole text if that fits, with the title before it.
        """
        text, ends = document.text, self._tokens.ends(document.text)
        if self._is_one(document, ends):
            return Split([Piece(0, len(text), pages=_pages(document, 0, len(text)))], 0)
        units, margin = document_units(document), 0
        for _ in range(_ROUNDS):
            packer = Packer(text, ends, self._room(document, margin), self._overlap)
            packer.pack(units)
            pieces = [piece for packed in packer.pieces if (piece := make_piece(document, packed))]
            excess = self._measure(document, ends, pieces) - self._limit
            if excess <= 0:
                break
            margin += excess  # a text by itself may have other tokens than within another
        return Split(pieces, packer.cut)

    def _is_one(self, document: Document, ends: TokenEnds) -> bool:
        """Whether text and title fit; they are tokenised together only if they are near the limit."""
        title = self._tokens.ends(document.title).count(0, len(document.title)) if document.title else 0
        tokens = ends.count(0, len(document.text))
        if tokens > self._limit:
            return False
        near = self._tokens.special + title + tokens + _EDGES > self._limit - self._limit // _UNSURE
        return not near or self._tokens.counts([document.content])[0] <= self._limit

    def _room(self, document: Document, margin: int) -> Callable[[int, tuple[str, ...]], int]:
        """A function that gives the number of tokens for text in a piece, by its beginning and its headings."""
        known: dict[tuple[int, tuple[str, ...]], int] = {}
        text, free = document.text, self._limit - self._tokens.special - margin

        def room(begin: int, headings: tuple[str, ...]) -> int:
            if self._context is None:
                return max(1, free)
            key = (begin if text.startswith("#", begin) else -1, headings)
            if key not in known:
                content = text[begin : begin + _SHOWN] if key[0] >= 0 else ""
                known[key] = max(1, free - self._context.before(document.title, headings, content)[1])
            return known[key]

        return room

    def _measure(self, document: Document, ends: TokenEnds, pieces: Sequence[Piece]) -> int:
        """Number of tokens of the longest piece, as it is encoded.

        Pieces near the limit are tokenised for that, and one in any case; all, if its number is not the expected one.
        """
        expected = [self._expect(document, ends, piece) for piece in pieces]
        longest = max(expected, default=0)
        near = min(longest, self._limit - _EDGES + 1)
        counts = self._count(
            [piece for piece, tokens in zip(pieces, expected, strict=True) if tokens >= near], document
        )
        if max(counts, default=0) > longest + _EDGES:
            counts = self._count(pieces, document)
        return max(counts, default=0)

    def _expect(self, document: Document, ends: TokenEnds, piece: Piece) -> int:
        """Number of tokens of a piece, by those of the parts that it is made of."""
        tokens = self._tokens.special + ends.count(piece.begin, piece.end)
        if piece.repeated:
            tokens += self._tokens.ends(piece.repeated).count(0, len(piece.repeated))
        if self._context is None:
            return tokens
        content = document.text[piece.begin : piece.begin + _SHOWN]
        return tokens + self._context.before(document.title, piece.headings, piece.repeated + content)[1]

    def _count(self, pieces: Sequence[Piece], document: Document) -> list[int]:
        """Number of tokens of each piece, as it is encoded."""
        text = document.text
        contents = (piece.repeated + text[piece.begin : piece.end] for piece in pieces)
        texts = [
            self.encoded_text(document.title, piece.headings, content)
            for piece, content in zip(pieces, contents, strict=True)
        ]
        return self._tokens.counts(texts)


def document_units(document: Document) -> list[Unit]:
    """The units that make up the text of the document, by its markup."""
    if document.markup is Markup.MARKDOWN:
        return markdown_units(document.text)
    if document.markup is Markup.CODE:
        return [code_unit(document.text, 0, len(document.text))]
    return plain_units(document.text)


def make_piece(document: Document, packed: Packed) -> Piece | None:
    """The piece without blank lines around it; None if nothing is left."""
    text, begin, end = document.text, packed.begin, packed.end
    blank = BLANK_LINES.match(text, begin, end)
    begin = blank.end() if blank else begin
    end = begin + len(text[begin:end].rstrip(TRAILING))
    if begin == end:
        return None
    header = packed.header and text[slice(*packed.header)]
    repeated = header.rstrip(TRAILING) + "\n" if header else ""
    return Piece(begin, end, packed.headings, _pages(document, begin, end), repeated)


def _pages(document: Document, begin: int, end: int) -> tuple[int, int] | None:
    pages = document.pages
    if not pages:
        return None
    return max(1, bisect_right(pages, begin)), max(1, bisect_right(pages, max(begin, end - 1)))
