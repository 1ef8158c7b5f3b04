"""A small corpus on disk and an index of it, made with the stand-in encoder."""

import json
import random
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llm2comp_indexes import IndexOptions, build_index, delete_documents
from tests.word_encoder import WordEncoder

TEXTS = [
    "how bread rises in the oven",
    "the moon and the tides",
    "a list of prime numbers",
    "rain over the harbour",
    "bread with butter",
]


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
    return write_corpus(
        {"_id": f"d{row}", "title": f"Title {row}", "text": text, "year": 2000 + row} for row, text in enumerate(TEXTS)
    )


@pytest.fixture
def index_folder(tmp_path: Path, corpus: Path, encoder: WordEncoder) -> Path:
    build_index([corpus], tmp_path / "idx", model=encoder)
    return tmp_path / "idx"


@pytest.fixture(scope="session")
def make_full_index(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Function that copies an index with every kind of file: a structure of the type, metadata, BM25, deleted rows.

    It has 80 documents, of which 3 are deleted.
    """
    root = tmp_path_factory.mktemp("full")
    draw = random.Random(0)
    words = " ".join(TEXTS).split()
    documents = [
        {
            "_id": f"d{row}",
            "title": f"Title {row}",
            "text": " ".join(draw.choices(words, k=8)) + f" n{row}",
            "year": 2000 + row % 20,
            "tags": ["a", "é"][: row % 3],
        }
        for row in range(80)
    ]
    (root / "corpus.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")

    def make(target: Path, kind: str = "HNSW8") -> Path:
        folder = root / kind
        if not folder.exists():
            build_index([root / "corpus.jsonl"], folder, model=WordEncoder(), options=IndexOptions(kind, hybrid=True))
            delete_documents(folder, ["d3", "d50", "d79"])
        return Path(shutil.copytree(folder, target))

    return make


@pytest.fixture(scope="session")
def python_docs() -> NDArray[np.float32]:
    """Vectors (3,600, dimension) of documents from the Python documentation, by the bundled model.

    They take about 15 seconds.
    """
    import llm2comp
    from llm2comp.corpus.read import read_corpus

    documents = [document.content for document, _ in zip(read_corpus("python-docs:"), range(4000), strict=False)]
    chosen = random.Random(0).sample(documents, 3600)
    vectors: NDArray[np.float32] = llm2comp.load().encode_document(chosen)
    return vectors
