"""A stand-in for a model, and a small BEIR folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from numpy.typing import NDArray

Rows = list[dict[str, Any]]


class WordHashes:
    """Encodes a text as counts of its words, each at a place by its checksum: texts that share words are near.

    Attributes:
        dimension: Of the vectors.
        queries: All texts that were encoded as queries.
    """

    def __init__(self, dimension: int = 4096) -> None:
        self.dimension = dimension
        self.queries: list[str] = []

    def encode_document(
        self, inputs: list[str], /, *, batch_size: int = 32, show_progress_bar: bool | None = None
    ) -> NDArray[np.float32]:
        vectors = np.zeros((len(inputs), self.dimension), np.float32)
        for row, text in enumerate(inputs):
            for word in text.lower().split():
                vectors[row, crc32(word.encode()) % self.dimension] += 1
        return vectors

    def encode_query(
        self, inputs: list[str], /, *, batch_size: int = 32, show_progress_bar: bool | None = None
    ) -> NDArray[np.float32]:
        self.queries += inputs
        return self.encode_document(inputs)


@pytest.fixture
def encoder() -> WordHashes:
    return WordHashes()


@pytest.fixture
def write_beir(tmp_path: Path) -> Callable[[Rows, Rows, Any], Path]:
    """Writes a BEIR folder `tiny` of documents, queries and rows (query, document, score) of the split test."""

    def write(documents: Rows, queries: Rows, qrels: Any) -> Path:
        folder = tmp_path / "tiny"
        (folder / "qrels").mkdir(parents=True, exist_ok=True)
        (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents), encoding="utf-8")
        (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries), encoding="utf-8")
        lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in qrels)]
        (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return folder

    return write


@pytest.fixture
def fruit(write_beir: Callable[[Rows, Rows, Any], Path]) -> Path:
    """Four documents, two judged queries and one without judgements."""
    documents = [
        {"_id": "d1", "title": "Apple", "text": "a red fruit"},
        {"_id": "d2", "title": "Banana", "text": "a long yellow fruit"},
        {"_id": "d3", "title": "", "text": "stone of the moon"},
        {"_id": "d4", "title": "Plum", "text": "a small blue fruit with a stone"},
    ]
    queries = [
        {"_id": "q1", "text": "long yellow"},
        {"_id": "q2", "text": "blue plum"},
        {"_id": "q3", "text": "never judged"},
    ]
    return write_beir(documents, queries, [("q1", "d2", 1), ("q2", "d4", 2), ("q2", "d1", 1), ("q2", "d3", 0)])
