"""The texts of a stream: short sentences of a corpus, each with a number so that no two are the same."""

import json
import re
from itertools import cycle, islice
from pathlib import Path

from llm2comp.errors import LLM2CompError

__all__ = ["short_sentences", "write_stream"]

_WORDS = range(3, 8)  # of a sentence
_CHARACTERS = 40
_SAMPLE = 20_000  # texts that are returned, to count their tokens


def short_sentences(corpus: str) -> list[str]:
    """Sentences of three to seven words from a corpus, each once.

    Raises:
        LLM2CompError: The corpus has none.
    """
    from llm2comp.corpus.read import read_corpus

    sentences: dict[str, None] = {}
    for document in read_corpus(corpus, on_error="skip", csv_strings=True):
        for sentence in re.split(r"(?<=[.!?])\s+|\n+", document.content):
            words = sentence.split()
            if len(sentence) <= _CHARACTERS and _are_plain(words):
                sentences[" ".join(words)] = None
    if not sentences:
        raise LLM2CompError(f"{corpus}: no sentence of {_WORDS.start} to {_WORDS.stop - 1} words in it")
    return list(sentences)


def _are_plain(words: list[str]) -> bool:
    """Whether these are three to seven ASCII words, all but one of letters only."""
    return (
        len(words) in _WORDS
        and all(word.isascii() for word in words)
        and sum(map(str.isalpha, words)) >= len(words) - 1
    )


def write_stream(file: Path, corpus: str, count: int) -> list[str]:
    """Writes `count` different texts as a corpus; returns the first 20,000 of them."""
    first = []
    with file.open("w", encoding="utf-8") as target:
        for number, sentence in enumerate(islice(cycle(short_sentences(corpus)), count)):
            text = f"{sentence} {number}"
            target.write(json.dumps({"_id": str(number), "text": text}) + "\n")
            if number < _SAMPLE:
                first.append(text)
    return first
