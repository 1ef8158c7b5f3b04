"""Vectors with the structure of real ones, in many clusters of different sizes, and a storage that holds them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llm2comp_indexes.format.vectors import Storage, StorageWriter, open_storage
from llm2comp_indexes.options import Store


def draw_vectors(rows: int, dimension: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors around one centre for each 20 rows; a few clusters are much larger than the rest."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((max(1, rows // 20), dimension))
    chosen = np.floor(len(centres) * generator.random(rows) ** 2).astype(int)
    vectors = centres[chosen] + 0.7 * generator.standard_normal((rows, dimension))
    return unit(vectors)


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def store_vectors(path: Path, vectors: NDArray[np.float32], store: Store = "float32") -> Storage:
    """The vectors, written to the file and opened."""
    with StorageWriter(path, vectors.shape[1], store) as writer:
        writer.append(vectors)
        writer.finish()
    return open_storage(path, rows=len(vectors), dimension=vectors.shape[1], store=store)


def best_rows(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """The k best rows for each query, computed by numpy; equal scores by row, -1 where fewer are allowed."""
    scores = (queries.astype(np.float64) @ vectors.T.astype(np.float64)).astype(np.float32)
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    order = np.lexsort((np.broadcast_to(np.arange(len(vectors)), scores.shape), -scores))[:, :k]
    order = np.where(np.isneginf(np.take_along_axis(scores, order, axis=1)), -1, order)
    return np.pad(order, ((0, 0), (0, max(0, k - order.shape[1]))), constant_values=-1)


def recall(rows: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Share of the true rows that were returned."""
    return float(
        np.mean(
            [len(set(a[b >= 0]) & set(b[b >= 0])) / max(1, (b >= 0).sum()) for a, b in zip(rows, truth, strict=True)]
        )
    )
