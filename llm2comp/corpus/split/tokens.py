"""Tokens of a text: how many there are, and where each ends."""

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from itertools import accumulate
from typing import Any

from llm2comp.errors import SettingsError

__all__ = ["TokenEnds", "Tokens"]

_WINDOW = 1 << 17
"""Number of characters tokenised at once, up to a line break, so that offsets of a long text take little memory."""
_SEGMENT = re.compile(r"\s*\S+|\s+")
"""A word with the white space before it: tokenizers make no token of parts of two of them."""
_REMEMBERED, _LONGEST = 200_000, 64
"""Number of segments whose tokens are kept, and of characters in one of them."""
_HALF_PAIR = re.compile("[\ud800-\udfff]")


class Tokens:
    """Counts tokens as a model's tokenizer makes them.

    Args:
        tokenizer: A fast tokenizer of transformers, or a stand-in that gives an `offset_mapping` when called.

    Attributes:
        special: Number of tokens that a model puts around a text.

    Raises:
        SettingsError: The tokenizer is not a fast one.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise SettingsError(
                "chunk_tokens needs a model with a fast tokenizer, which knows where its tokens begin in the text; "
                "leave it out, or split the texts yourself"
            )
        backend = getattr(tokenizer, "backend_tokenizer", None)
        # A copy: splitting runs beside encoding, and tokenizers keep settings between calls
        self._tokenizer: Any = deepcopy(tokenizer) if backend is None else None
        self._plain: Any = deepcopy(backend)
        self._known = dict[str, tuple[int, ...]]()  # ends of the tokens of a segment
        self.special = 0
        if self._plain is not None:
            self._plain.no_truncation()
            self._plain.no_padding()
            self._plain.encode_special_tokens = True  # as text, as the model reads them
            self.special = max(1, self._plain.num_special_tokens_to_add(False))

    def ends(self, text: str) -> "TokenEnds":
        """Where each token of the text ends, to a token or two: each word is tokenised once, and remembered.

        That takes a tenth of the time of a tokenizer. What must not be too long is counted by `counts`.
        """
        ends = array("Q")
        for begin, end in _windows(text):
            if self._plain is None:
                ends.extend(begin + place for place in self._ends(text[begin:end]))
            else:
                ends.extend(self._ends_of_segments(_HALF_PAIR.sub("\ufffd", text[begin:end]), begin))
        return TokenEnds(ends)

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens of each text, special ones included."""
        if self._plain is None:
            return [len(self._ends(text)) for text in texts]
        whole = [_HALF_PAIR.sub("\ufffd", text) for text in texts]
        encodings = self._plain.encode_batch_fast(whole, add_special_tokens=False)
        return [self.special + len(encoding) for encoding in encodings]

    def _ends(self, text: str) -> list[int]:
        """Ends of the tokens that a stand-in makes."""
        options = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
        return [end for _, end in self._tokenizer(text, **options)["offset_mapping"]]

    def _ends_of_segments(self, text: str, begin: int) -> list[int]:
        """Ends of the tokens of each segment by itself, for a text that begins at this place of another."""
        segments, known = _SEGMENT.findall(text), self._known
        unique = set(segments)
        if len(known) > _REMEMBERED:
            known.clear()
        self._learn([segment for segment in unique if segment not in known])
        starts = accumulate(map(len, segments), initial=begin)
        ends = [start + end for segment, start in zip(segments, starts, strict=False) for end in known[segment]]
        for segment in unique:
            if len(segment) > _LONGEST:
                del known[segment]
        return ends

    def _learn(self, segments: Iterable[str]) -> None:
        """Tokenises segments, behind a letter if they begin with white space, as all but the first of a text do."""
        for segment in segments:  # one by one: threads would cost more than they save
            first = int(segment[0].isspace())
            offsets = self._plain.encode("a" * first + segment, add_special_tokens=False).offsets
            self._known[segment] = tuple([end - first for _, end in offsets if end > first])


class TokenEnds:
    """Places, ascending, at which the tokens of one text end."""

    def __init__(self, ends: "array[int]") -> None:
        self._ends = ends

    def count(self, begin: int, end: int) -> int:
        """Number of tokens that end within the range of characters; about what its text alone has."""
        return bisect_right(self._ends, end) - bisect_right(self._ends, begin)

    def within(self, begin: int, end: int) -> list[int]:
        """Ends of tokens within the range, each place once, with the range's end as the last."""
        first, last = bisect_right(self._ends, begin), bisect_right(self._ends, end)
        return [*dict.fromkeys(place for place in self._ends[first:last] if place < end), end]


def _windows(text: str) -> Iterator[tuple[int, int]]:
    """Ranges that make up the text; all but the last end with a line break, if there is one."""
    begin = 0
    while len(text) - begin > _WINDOW:
        end = text.rfind("\n", begin + 1, begin + _WINDOW) + 1 or begin + _WINDOW
        yield begin, end
        begin = end
    yield begin, len(text)
