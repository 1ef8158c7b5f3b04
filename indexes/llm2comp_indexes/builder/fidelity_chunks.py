"""Chunks as long as their memories hold them: each keeps a share of what its text is worth to a language model."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from llm2comp.corpus.documents import Document
from llm2comp.corpus.split.cuts import Part, finer_parts, parts_of
from llm2comp.corpus.split.pack import Packed
from llm2comp.corpus.split.splitter import Piece, Split, Splitter, make_piece

__all__ = ["FidelitySplitter", "longest", "reading_share"]


def longest(count: int, holds: Callable[[int], bool], guess: int = 1) -> int:
    """The largest number of parts that hold, 0 if not even one does; what holds is taken to hold for fewer, too.

    Args:
        count: Number of parts, at least 1.
        holds: Whether so many parts hold. It is called at most 2 log2(count) + 2 times.
        guess: Number to try first; it is doubled while it holds, and then halved towards the answer.
    """
    low, high = 0, count + 1
    tried = min(max(1, guess), count)
    while low + 1 < high:
        if holds(tried):
            low = tried
            tried = min(2 * tried, count) if high > count else (low + high) // 2
        else:
            high = tried
            tried = (low + high) // 2
    return low


class FidelitySplitter:
    """Cuts documents into pieces whose memories keep at least a share of their texts, as long as that allows.

    A piece is extended by whole blocks, or sentences, lines and rows of a block that does not hold by itself; one of
    these that does not hold by itself stands alone.

    Args:
        splitter: Cuts documents into what the model reads at once, at headings and paragraphs.
        share: Smallest share, of the text that is encoded, read again after its memory; more than 0 and less than 1.
        measure: The share that the memory of a text keeps; None: it has none.

    Attributes:
        below: Number of sentences, lines and rows so far that stand alone, below the share.
        readings: Number of texts read so far.
    """

    def __init__(self, splitter: Splitter, share: float, measure: Callable[[str], float | None]) -> None:
        self.below = self.readings = 0
        self._splitter, self._share, self._measure = splitter, share, measure

    def split(self, document: Document) -> Split:
        """The pieces of the document, in order, and the number of words, rows and lines that had to be cut."""
        pieces, cut = self._splitter.split(document)
        if len(pieces) == 1 and self._holds(self._splitter.whole_text(document.title, document.text)):
            return Split(pieces, cut)
        return Split([finer for piece in pieces for finer in self._split_piece(document, piece)], cut)

    def _split_piece(self, document: Document, piece: Piece) -> list[Piece]:
        parts = parts_of(document, piece)
        pieces: list[Piece] = []
        guess = 1
        while parts:
            taken = longest(len(parts), lambda count: self._hold(document, piece, parts[:count]), guess)  # noqa: B023
            if not taken:
                if finer := finer_parts(parts[0], document.text):
                    parts = [*finer, *parts[1:]]
                    guess = 1
                    continue
                self.below += 1
            guess = max(1, taken)
            if (made := _join(document, piece, parts[:guess])) is not None:
                pieces.append(made)
            parts = parts[guess:]
        return pieces

    def _hold(self, document: Document, piece: Piece, parts: Sequence[Part]) -> bool:
        made = _join(document, piece, parts)
        if made is None:
            return True
        content = made.repeated + document.text[made.begin : made.end]
        return self._holds(self._splitter.encoded_text(document.title, made.headings, content))

    def _holds(self, text: str) -> bool:
        self.readings += 1
        share = self._measure(text)
        return share is not None and share >= self._share


def _join(document: Document, piece: Piece, parts: Sequence[Part]) -> Piece | None:
    """The piece of neighbouring parts of a piece; None if there is nothing but white space in them."""
    made = make_piece(document, Packed(parts[0].begin, parts[-1].end, piece.headings, parts[0].header))
    begins_alike = made is not None and piece.repeated and made.begin == piece.begin
    return replace(made, repeated=piece.repeated) if made is not None and begins_alike else made


def reading_share(encoder: Any) -> Callable[[str], float | None]:
    """A function that gives the share of a text that its memory keeps, by an encoder that has its reader.

    A text of more than what encoder and reader take at once has none, nor has one without tokens.
    """
    from llm2comp.analysis.fidelity import TooShortError, measure_splits, split_text

    def measure(text: str) -> float | None:
        try:
            split = split_text(encoder, text)
        except TooShortError:
            return None
        return None if split.cut else measure_splits(encoder, [split])[0].share

    return measure
