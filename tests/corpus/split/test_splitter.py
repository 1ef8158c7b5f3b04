"""Budget, context and places: with the bundled model's tokenizer, and with words as tokens."""

import random
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from llm2comp.corpus.documents import Document, Markup
from llm2comp.corpus.split.splitter import Splitter
from llm2comp.errors import SettingsError
from tests.corpus.split.conftest import CharacterTokenizer, WordTokenizer, content


def encoded(splitter: Splitter, document: Document) -> list[str]:
    pieces = splitter.split(document).pieces
    return [splitter.encoded_text(document.title, piece.headings, content(document.text, piece)) for piece in pieces]


def test_title_and_headings_come_before_the_text() -> None:
    last = "Seven eight nine ten eleven twelve seven eight nine ten eleven twelve."
    text = f"# Guide\n\nOne two.\n\n## Install\n\n### Linux\n\nThree four five six. {last}\n"
    document = Document("d", "Guide", text, markup=Markup.MARKDOWN)
    assert encoded(Splitter(WordTokenizer(), 16), document) == [
        "# Guide\n\nOne two.",
        "Guide\n## Install\n\n### Linux\n\nThree four five six.",
        f"Guide\nInstall > Linux\n{last}",
    ]
    assert encoded(Splitter(WordTokenizer(), 16, context=False), document)[-1] == last


def test_title_and_headings_take_a_quarter_at_most() -> None:
    text = "# Outer words of it\n\n## Inner one two three four five six\n\n" + "word " * 60
    document = Document("d", "A title of many words that goes on and on", text, markup=Markup.MARKDOWN)
    last = encoded(Splitter(WordTokenizer(), 24), document)[-1]
    assert last.split("\n")[:2] == ["A title of", "Inner one"]
    assert len(last.split()) <= 24


def test_what_fits_with_its_title_stays_whole() -> None:
    text = "# A\n\none two\n\n# B\n\nthree four"
    document = Document("d", "T", text, markup=Markup.MARKDOWN)
    assert [(piece.begin, piece.end) for piece in Splitter(WordTokenizer(), 9).split(document).pieces] == [
        (0, len(text))
    ]
    assert len(Splitter(WordTokenizer(), 8).split(document).pieces) == 2


def test_a_limit_without_room_and_a_slow_tokenizer_are_refused(bundled_tokenizer: Any) -> None:
    class Slow(WordTokenizer):
        is_fast = False

    with pytest.raises(SettingsError, match="chunk_tokens needs a model with a fast tokenizer"):
        Splitter(Slow(), 8)
    with pytest.raises(SettingsError, match="chunk_tokens is 1, which leaves no room"):
        Splitter(bundled_tokenizer, 1)


WORDS = [
    "a",
    "tree",
    "Überraschung",
    "don't",
    "12.5",
    "e.g.",
    "Prof.",
    "我爱北京",
    "سؤال",
    "\U0001f600",
    "x" * 90,
    "no\u00a0break",
]


def make_text(draw: random.Random) -> str:
    def blocks() -> Iterator[str]:
        for _ in range(draw.randint(1, 12)):
            words = " ".join(draw.choices(WORDS, k=draw.randint(1, 40)))
            yield draw.choice(
                [
                    "#" * draw.randint(1, 4) + f" {draw.choice(WORDS[:5])}",
                    words + ".",
                    words.replace(" ", draw.choice([". ", "\n", "? "])),
                    "```py\ndef f():\n    # x\n\n    return\n```",
                    "| a | b |\n|---|---|\n" + "\n".join(f"| {number} | {words[:40]} |" for number in range(5)),
                    f"- {words}\n- b\n\n  {words}",
                    f"> {words}",
                ]
            )

    return "\n\n".join(blocks()) + draw.choice(["", "\n", "\n\n  "])


@pytest.mark.parametrize("markup", list(Markup))
@pytest.mark.parametrize("tokenizer", ["bundled", "words", "characters"])
def test_any_text_keeps_within_the_limit_and_loses_nothing(
    bundled_tokenizer: Any, markup: Markup, tokenizer: str
) -> None:
    kinds: dict[str, Any] = {"words": WordTokenizer(), "characters": CharacterTokenizer()}
    chosen = kinds.get(tokenizer) or bundled_tokenizer
    splitters = [Splitter(chosen, limit, overlap) for limit, overlap in ((24, 0), (24, 8), (48, 0), (96, 8))]
    for seed in range(32):
        draw, splitter = random.Random(seed), splitters[seed % 4]
        document = Document("d", draw.choice(["", "A title"]), make_text(draw), markup=markup)
        split, text = splitter.split(document), document.text
        assert split == splitter.split(document)
        sizes = splitter._tokens.counts(encoded(splitter, document))
        assert max(sizes, default=0) <= (24, 24, 48, 96)[seed % 4], (seed, sizes)
        covered = 0
        for piece in split.pieces:
            assert not text[covered : piece.begin].strip(), seed
            covered = max(covered, piece.end)
            if piece.repeated:
                assert text.count(piece.repeated.strip())
        assert not text[covered:].strip()
        assert all(one.begin < two.begin for one, two in pairwise(split.pieces))


@pytest.mark.parametrize("markup", list(Markup))
@pytest.mark.parametrize(
    "text",
    ["> " * 3000 + "x\n", " " * 50_000 + "x. y", "\n" * 50_000 + "x " * 90, "# h\n" * 500, "[" * 5000, "  - x\n" * 900],
    ids=["quotes", "spaces", "empty lines", "headings", "brackets", "items"],
)
def test_strange_texts_take_no_time(text: str, markup: Markup) -> None:
    document = Document("d", "T " * 500, text, markup=markup)
    splitter = Splitter(WordTokenizer(), 32, 8)
    pieces = splitter.split(document).pieces
    assert max(splitter._tokens.counts(encoded(splitter, document))) <= 32
    assert len(pieces) <= len(text.split())
