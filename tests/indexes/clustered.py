"""Vectors in clusters of different sizes, as real ones are, a storage of them, and exact search by NumPy."""

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


def draw_clustered(rows: int, dimension: int, *, seed: int, clusters: int = 50) -> NDArray[np.float32]:
    """Unit vectors around topics of unequal size, which are the same for every seed.

    Most of the variance lies in a few directions.
    """
    topics = np.random.default_rng(7)
    centres = topics.standard_normal((clusters, dimension))
    directions = topics.standard_normal((8, dimension))
    share = 1 / np.arange(1, clusters + 1)
    generator = np.random.default_rng(seed)
    vectors = centres[generator.choice(clusters, rows, p=share / share.sum())]
    shared, rest = generator.standard_normal((rows, 8)), generator.standard_normal((rows, dimension))
    return unit(vectors + shared @ directions + 0.3 * rest)


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    """The vectors scaled to unit length."""
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
    """The k best rows for each query, computed by NumPy; equal scores by row, -1 if fewer are allowed."""
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
