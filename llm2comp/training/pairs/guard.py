"""Evaluation texts that no training pair may contain, whole or in part. Imports corpora only."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from llm2comp.corpus.read import open_text, read_json_lines
from llm2comp.corpus.text import uncompressed_name
from llm2comp.training.pairs.sentences import letters

__all__ = ["SHARED_WORDS", "EvaluationTexts"]

SHARED_WORDS = 13
"""Number of successive words that a text may not share with an evaluation text."""
_SHORTEST = 3


class EvaluationTexts:
    """The texts of evaluation sets, and which other texts are too close to them.

    Only letters and digits are compared (see `letters`). Memory: about 100 bytes for each word of the files.

    Args:
        paths: JSON lines or tab-separated files; each of their fields of three words or more is a text.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._wholes: set[str] = set()
        self._runs: set[int] = set()
        for path in paths:
            for field in _read_fields(path):
                words = letters(field).split()
                if len(words) >= _SHORTEST:
                    self._wholes.add(" ".join(words))
                    self._runs.update(_runs(words))
        self._near = lru_cache(maxsize=1024)(self._is_near)  # a passage is the positive of several queries

    def is_near(self, text: str) -> bool:
        """Whether a text equals an evaluation text, or has 13 successive words of one."""
        return self._near(text) if self._wholes else False

    def _is_near(self, text: str) -> bool:
        words = letters(text).split()
        return " ".join(words) in self._wholes or not self._runs.isdisjoint(_runs(words))


def _runs(words: list[str]) -> Iterator[int]:
    """Hashes of all runs of `SHARED_WORDS` successive words, 64 bits each; they hold within this process."""
    return (hash(tuple(words[start : start + SHARED_WORDS])) for start in range(len(words) - SHARED_WORDS + 1))


def _read_fields(path: str) -> Iterator[str]:
    if uncompressed_name(Path(path)).endswith((".jsonl", ".json")):
        for _, row in read_json_lines(path):
            yield from (value for value in row.values() if isinstance(value, str))
    else:
        with open_text(path) as lines:
            for line in lines:
                yield from line.split("\t")
