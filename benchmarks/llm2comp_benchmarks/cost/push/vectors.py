"""Made-up rows: unit vectors in clusters, short texts and some metadata, and an index of them."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp_indexes import IndexOptions, VectorFiles, build_from_vectors

__all__ = ["MadeRows", "build", "make_rows"]

_CLUSTERS = 256
_SPREAD = 0.6
"""Length of the noise around the centre of a cluster, whose length is 1."""


class MadeRows(NamedTuple):
    """Rows with their vectors, and questions.

    Attributes:
        documents: The rows.
        vectors: Unit vectors (rows, dimension).
        queries: Unit vectors (queries, dimension) from the same clusters.
    """

    documents: list[Document]
    vectors: NDArray[np.float32]
    queries: NDArray[np.float32]


def make_rows(rows: int, dimension: int, queries: int, seed: int = 0) -> MadeRows:
    """Rows of a fixed random generator."""
    draw = np.random.default_rng(seed)
    centres = _unit(draw.standard_normal((_CLUSTERS, dimension)))

    def sample(count: int) -> NDArray[np.float32]:
        noise = draw.standard_normal((count, dimension)).astype(np.float32) * (_SPREAD / dimension**0.5)
        return _unit(centres[draw.integers(_CLUSTERS, size=count)] + noise)

    documents = [
        Document(
            f"document-{row}",
            f"Title of row {row}",
            f"The text of row {row}: some words that a store has to keep beside the vector, about as many as here.",
            {"year": 1990 + row % 40, "lang": ("en", "de", "fr")[row % 3], "score": row / 8, "rare": row % 1000 == 7},
        )
        for row in range(rows)
    ]
    return MadeRows(documents, sample(rows), sample(queries))


def build(made: MadeRows, folder: Path, kind: str) -> dict[str, Any]:
    """Builds an index of the type from the rows; its files, and the duration."""
    folder.mkdir(parents=True)
    np.save(folder / "vectors.npy", made.vectors)
    np.save(folder / "queries.npy", made.queries)
    (folder / "ids.txt").write_text("".join(f"{row.id}\n" for row in made.documents), encoding="utf-8")
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for row in made.documents:
            file.write(json.dumps({"_id": row.id, "title": row.title, "text": row.text, **row.metadata}) + "\n")
    report = build_from_vectors(
        VectorFiles([folder / "vectors.npy"], folder / "ids.txt", folder / "queries.npy"),
        folder / "index",
        corpora=[folder / "rows.jsonl"],
        options=IndexOptions(kind),
    )
    return {"seconds": report.seconds}


def _unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return scaled
