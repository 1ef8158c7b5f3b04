"""A small corpus on disk and an index of it, made with the stand-in encoder."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from llm2comp_indexes import build_index
from tests.word_encoder import WordEncoder

TEXTS = ["how bread rises in the oven", "the moon and the tides", "a list of prime numbers", "rain over the harbour", "bread with butter"]


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder()


@pytest.fixture
def write_corpus(tmp_path: Path) -> Callable[..., Path]:
    def write(documents: Iterable[dict[str, Any]], name: str = "corpus.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
        return path

    return write


@pytest.fixture
def corpus(write_corpus: Callable[..., Path]) -> Path:
    return write_corpus({"_id": f"d{row}", "title": f"Title {row}", "text": text, "year": 2000 + row} for row, text in enumerate(TEXTS))


@pytest.fixture
def index_folder(tmp_path: Path, corpus: Path, encoder: WordEncoder) -> Path:
    build_index([corpus], tmp_path / "idx", model=encoder)
    return tmp_path / "idx"
