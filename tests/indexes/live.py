"""Helpers of tests of changes: an encoder that records its texts, one with a tokenizer, comparable answers."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp_indexes import Index, IndexOptions, SearchOptions, VectorFiles, build_from_vectors, open_index
from tests.word_encoder import WORDS as CORPUS_WORDS
from tests.word_encoder import WordEncoder

QUERIES = ["bread in the oven", "moon and tides", "a list of numbers", "rain", "harbour light"]
WORDS = [*CORPUS_WORDS, "the", "of", "in"]


class RecordingEncoder(WordEncoder):
    """An encoder that keeps the texts that it encoded as documents."""

    def __init__(self, dimension: int = 32, fingerprint: str = "words") -> None:
        super().__init__(dimension, fingerprint)
        self.texts: list[str] = []

    def encode_document(
        self, inputs: list[str], /, *, batch_size: int = 32, show_progress_bar: bool | None = None
    ) -> NDArray[np.float32]:
        self.texts += inputs
        return super().encode_document(inputs)


class WordTokenizer:
    """A tokenizer whose tokens are words."""

    is_fast = True

    def __call__(self, text: str, **options: Any) -> dict[str, list[tuple[int, int]]]:
        return {"offset_mapping": [found.span() for found in re.finditer(r"\S+", text)]}


class ChunkingEncoder(RecordingEncoder):
    """An encoder with a tokenizer, which splits documents."""

    tokenizer = WordTokenizer()


def make_documents(rows: "range | list[int]", seed: int = 0) -> list[dict[str, Any]]:
    """Documents of six words and some metadata; those of another seed have other texts."""
    documents = []
    for row in rows:
        words = np.random.default_rng([seed, row]).choice(WORDS, 6)
        documents.append(
            {
                "_id": f"d{row}",
                "title": f"T{row}",
                "text": " ".join(words),
                "year": 2000 + row % 10,
                "tags": ["even"] if row % 2 == 0 else [],
            }
        )
    return documents


def answers(
    folder: "Path | Index", encoder: WordEncoder, k: int = 1000, **options: Any
) -> list[list[tuple[str, str, str]]]:
    """Id, text and rounded score of each answer to each query; answers of the same rounded score are ordered by id."""
    index = open_index(folder, model=encoder) if isinstance(folder, Path) else folder
    results = index.search(QUERIES, k, options=SearchOptions(**options))
    return [
        sorted(((hit.id, hit.text, f"{hit.score:.4f}") for hit in hits), key=lambda hit: (-float(hit[2]), hit[0]))
        for hits in results
    ]


def names(folder: Path) -> set[str]:
    """Names of the files and folders in the folder."""
    return {path.name for path in folder.iterdir()}


def contents(folder: Path) -> dict[str, bytes]:
    """Contents of all files in the folder, by relative path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def identifiers(folder: Path, encoder: WordEncoder) -> set[str]:
    """Ids of all rows that can be found."""
    return {hit.id for hit in open_index(folder, model=encoder).search(["bread"], 1000)[0]}


def build_of_vectors(
    root: Path, vectors: NDArray[np.float32], queries: NDArray[np.float32], options: IndexOptions
) -> Path:
    """An index of the vectors, whose ids are v0, v1 …"""
    np.save(root / "vectors.npy", vectors)
    np.save(root / "queries.npy", queries)
    (root / "ids.txt").write_text("".join(f"v{row}\n" for row in range(len(vectors))))
    build_from_vectors(
        VectorFiles([root / "vectors.npy"], root / "ids.txt", root / "queries.npy"), root / "idx", options=options
    )
    return root / "idx"
