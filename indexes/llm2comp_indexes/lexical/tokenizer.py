"""Words of texts in any language, for lexical search."""

import re
import unicodedata
from functools import cache
from itertools import groupby
from typing import NamedTuple

__all__ = ["LONGEST_WORD", "split_words"]

LONGEST_WORD = 64
"""Maximum characters in a word; longer ones (encoded data, mostly) are cut into pieces, as by Lucene at 255."""

# Scripts written without spaces between words (Thai, Lao, Myanmar, Khmer, kana, Han), and Hangul, whose words take
# endings
_UNSPACED = (
    *(
        (0x0E00, 0x0EFF),
        (0x1000, 0x109F),
        (0x1100, 0x11FF),
        (0x1780, 0x17FF),
        (0x3005, 0x3007),
        (0x3040, 0x30FF),
        (0x3130, 0x318F),
    ),
    *(
        (0x31F0, 0x31FF),
        (0x3400, 0x4DBF),
        (0x4E00, 0x9FFF),
        (0xA960, 0xA97F),
        (0xAC00, 0xD7FF),
        (0xF900, 0xFAFF),
        (0x20000, 0x3FFFF),
    ),
)


def split_words(text: str) -> list[str]:
    """The words of the text in order, with repeats.

    A word is a run of letters, digits and their combining marks, case-folded ("Straße" and "STRASSE" are the same word)
    and in NFKC form (full-width and other compatibility forms become plain ones). All other characters separate words,
    `_` too: `read_csv` is two words. Emoji count as letters. There are no stop words; stems depend on the language and
    are made by another module (`stems`). In scripts written without spaces (Chinese, Japanese, Thai, Lao, Khmer,
    Myanmar) and in Korean, every character and every pair of adjacent characters is a word.
    """
    if text.isascii():
        return _ascii_pattern().findall(text.lower())
    patterns = _patterns()
    words: list[str] = []
    for run in patterns.words.findall(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())):
        if patterns.unspaced.match(run):
            words += run
            words += (first + second for first, second in zip(run, run[1:], strict=False))
        else:
            words.append(run)
    return words


@cache
def _ascii_pattern() -> re.Pattern[str]:
    return re.compile(f"[a-z0-9]{{1,{LONGEST_WORD}}}")


class _Patterns(NamedTuple):
    words: re.Pattern[str]
    unspaced: re.Pattern[str]


@cache
def _patterns() -> _Patterns:
    """Patterns of letters, digits and marks by code point: `re` does not count marks, such as Hindi vowels."""
    unspaced = {point for first, last in _UNSPACED for point in range(first, min(last, 0xFFFF) + 1)}
    letters = {
        point for point in range(0x10000) if chr(point).isalnum() or unicodedata.category(chr(point)) in ("Mn", "Mc")
    }
    # Beyond 16 bits one range per block: `re` would try hundreds of small ranges for every character
    spaced = _to_class(letters - unspaced) + "\U00010000-\U0001ffff"
    unspaced_class = _to_class(letters & unspaced) + "\U00020000-\U0003ffff"
    return _Patterns(
        re.compile(f"[{spaced}]{{1,{LONGEST_WORD}}}|[{unspaced_class}]+"), re.compile(f"[{unspaced_class}]")
    )


def _to_class(points: set[int]) -> str:
    """The inside of a character class, as ranges."""
    runs = [list(run) for _, run in groupby(enumerate(sorted(points)), key=lambda pair: pair[1] - pair[0])]
    return "".join(f"{chr(run[0][1])}-{chr(run[-1][1])}" for run in runs)
