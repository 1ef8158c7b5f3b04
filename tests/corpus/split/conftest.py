"""A tokenizer whose tokens are words, and pieces as texts."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from llm2comp.corpus.documents import Document, Markup
from llm2comp.corpus.split.splitter import Piece, Splitter
from tests.paths import ROOT


class WordTokenizer:
    """A tokenizer whose tokens are words."""

    is_fast = True

    def __call__(self, text: str, **options: Any) -> dict[str, list[tuple[int, int]]]:
        return {"offset_mapping": [match.span() for match in re.finditer(r"\S+", text)]}


class CharacterTokenizer:
    """A tokenizer whose tokens are characters."""

    is_fast = True

    def __call__(self, text: str, **options: Any) -> dict[str, list[tuple[int, int]]]:
        return {"offset_mapping": [(place, place + 1) for place in range(len(text))]}


@pytest.fixture(scope="session")
def bundled_tokenizer() -> Any:
    """The tokenizer of the bundled model, whose words have several tokens."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ROOT / "llm2comp" / "bundled" / "llm2comp-tiny")


Cut = Callable[..., list[tuple[str, tuple[str, ...]]]]


def content(text: str, piece: Piece) -> str:
    return piece.repeated + text[piece.begin : piece.end]


@pytest.fixture
def cut() -> Cut:
    """Text and headings of each piece of a Markdown text, with words as tokens and nothing put before them."""

    def cut_text(
        text: str, limit: int, overlap: int = 0, *, markup: Markup = Markup.MARKDOWN, tokenizer: Any = None
    ) -> list[tuple[str, tuple[str, ...]]]:
        splitter = Splitter(tokenizer or WordTokenizer(), limit, overlap, context=False)
        pieces = splitter.split(Document("d", "", text, markup=markup)).pieces
        return [(content(text, piece), piece.headings) for piece in pieces]

    return cut_text


@pytest.fixture
def texts(cut: Cut) -> Callable[..., list[str]]:
    """Text of each piece, as `cut` gives it."""
    return lambda *arguments, **settings: [text for text, _ in cut(*arguments, **settings)]
