"""Additions to small indexes of one source, with the stand-in encoder."""

from pathlib import Path
from typing import Any

from llm2comp_indexes import IndexOptions, add_documents, build_index
from tests.word_encoder import WordEncoder

FLAT = IndexOptions(type="flat")


def build(corpus: Path, output: Path, **options: Any) -> Path:
    """The folder of a new index of the corpus."""
    build_index([corpus], output, model=WordEncoder(), options=FLAT, **options)
    return output


def add(folder: Path, corpus: Path, **options: Any) -> tuple[int, ...]:
    """Numbers of documents that were added, replaced and unchanged."""
    return add_documents(folder, [corpus], model=WordEncoder(), **options)[:3]
