"""Stems of the words of one language, so that a search for "indexes" finds "indexing" too.

Source of the rules: Porter, "Snowball: A language for stemming algorithms", 2001; PyStemmer applies them.
"""

import threading
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from types import ModuleType
from typing import Any

from llm2comp.errors import SettingsError
from llm2comp.optional import optional_import
from llm2comp_indexes.lexical.tokenizer import split_words

__all__ = ["SplitWords", "check_language", "stemmer_version", "word_splitter"]

SplitWords = Callable[[str], list[str]]
"""From a text to its words, in order and with repeats."""


def check_language(language: str | None) -> None:
    """Raises what `word_splitter` raises."""
    if language is not None:
        known = _import(language).algorithms()
        if language not in known:
            near = get_close_matches(language.lower(), known, 1)
            meant = f"do you mean {near[0]}? Known are" if near else "expected its name in English:"
            raise SettingsError(f"language is {language!r}; {meant} {', '.join(known)}")


@cache
def word_splitter(language: str | None) -> SplitWords:
    """`split_words`, followed by a stemmer; stop words stay, since BM25 gives them next to no weight.

    Args:
        language: By Snowball's name, such as `english`; None: words stay as they are.

    Raises:
        LLM2CompError: PyStemmer is not installed.
        SettingsError: There is no stemmer for the language.
    """
    if language is None:
        return split_words
    check_language(language)
    of_thread = _OfThread(_import(language), language)

    def split(text: str) -> list[str]:
        stems: list[str] = of_thread.stemmer.stemWords(split_words(text))
        return stems

    return split


def stemmer_version(language: str) -> str:
    """Version of PyStemmer, which stems depend on.

    Raises:
        LLM2CompError: It is not installed.
    """
    return str(_import(language).version())


class _OfThread(threading.local):
    """A stemmer for each thread, since one serves a thread at a time."""

    def __init__(self, module: ModuleType, language: str) -> None:
        self.stemmer: Any = module.Stemmer(language)


def _import(language: str) -> ModuleType:
    return optional_import("Stemmer", extra="stem", needed_by=f"BM25 with language {language}")
