"""Boundaries of sentences and words by Unicode's rules (UAX #29), as ICU implements them."""

import re
from typing import Any

__all__ = ["sentence_ends", "word_ends"]

_LOCALE = "en@ss=standard"
"""Unicode's rules, and no sentence ends at an English abbreviation of its list, such as Mr. and Prof."""
_OUTSIDE_BMP = re.compile("[\U00010000-\U0010ffff\ud800-\udfff]")


def sentence_ends(text: str) -> list[int]:
    """Where each sentence ends, with the white space behind it; the last place is the length of the text."""
    return [end for _, end in _breakers().SentenceBreaker(_in_one_unit(text), _LOCALE).segments()]


def word_ends(text: str) -> list[int]:
    """Where each word, punctuation mark or white space ends; Chinese, Japanese and Thai are cut by ICU's dictionary."""
    return [end for _, end in _breakers().WordBreaker(_in_one_unit(text), _LOCALE).segments()]


def _breakers() -> Any:
    """ICU's breakers, imported at first use: a search needs none."""
    from icu4py import breakers

    return breakers


def _in_one_unit(text: str) -> str:
    """The text with a stand-in for each character that is not one unit of UTF-16, in which ICU counts places."""
    return _OUTSIDE_BMP.sub(lambda match: "\u4e00" if match[0].isalpha() else "\ufffd", text)
