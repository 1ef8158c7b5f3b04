"""Vectors with the structure of real ones, and storages of them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llm2comp_indexes.format.vectors import Storage, StorageWriter, open_storage
from llm2comp_indexes.options import Store


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
    vectors = (
        vectors + generator.standard_normal((rows, 8)) @ directions + 0.3 * generator.standard_normal((rows, dimension))
    )
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def store_vectors(path: Path, vectors: NDArray[np.float32], store: Store = "float32") -> Storage:
    with StorageWriter(path, vectors.shape[1], store) as writer:
        writer.append(vectors)
        writer.finish()
    return open_storage(path, rows=len(vectors), dimension=vectors.shape[1], store=store)


def brute_force(vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The k best rows of each query in double precision, equal scores by row."""
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    best: NDArray[np.int64] = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return best
