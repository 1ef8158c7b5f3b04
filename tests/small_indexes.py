"""A corpus file and indexes of it, built with a real model, for tests that search."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm2comp import LLM2Comp


def write_corpus(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def build_hybrid(folder: Path, corpus: Path, model: "LLM2Comp") -> Path:
    """Folder of an index with BM25, a row a document."""
    from llm2comp_indexes import IndexOptions, build_index

    build_index([corpus], folder / "corpus.index", model=model, options=IndexOptions(hybrid=True))
    return folder / "corpus.index"


def build_chunks(folder: Path, corpus: Path, model: "LLM2Comp") -> Path:
    """Folder of an index of chunks of 8 tokens."""
    from llm2comp_indexes import IndexOptions, build_index

    options = IndexOptions(chunk_tokens=8, chunk_overlap=0)
    build_index([corpus], folder / "chunks.index", model=model, options=options)
    return folder / "chunks.index"
