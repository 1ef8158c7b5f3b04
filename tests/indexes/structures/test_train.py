"""Training: steps that are left out change no result."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from llm2comp_indexes.format.vectors import StorageWriter, open_storage
from llm2comp_indexes.structures.structure import IndexType
from llm2comp_indexes.structures.train import train_index


@pytest.mark.parametrize("factory", ["IVF16,SQfp16", "IVF16,SQbf16", "IVF32_HNSW4,SQfp16", "IVF16,SQ8", "IVF16,Flat"])
def test_an_index_trained_by_us_is_the_one_that_faiss_trains_on_the_same_vectors(factory: str, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((2000, 16), dtype=np.float32)
    with StorageWriter(tmp_path / "vectors", 16, "float32") as writer:
        writer.append(vectors)
        writer.finish()
    storage = open_storage(tmp_path / "vectors", rows=2000, dimension=16, store="float32")
    ours, theirs = (faiss.index_factory(16, factory, faiss.METRIC_INNER_PRODUCT) for _ in range(2))
    train_index(ours, IndexType(factory), storage, rows=2000, seed=0)
    theirs.cp.seed, theirs.cp.min_points_per_centroid, theirs.cp.max_points_per_centroid = 1, 1, 1 << 30
    theirs.train(vectors)
    assert ours.is_trained
    for index in (ours, theirs):
        index.add(vectors)
        index.nprobe = 4
    for one, other in zip(ours.search(vectors[:100], 5), theirs.search(vectors[:100], 5), strict=True):
        np.testing.assert_array_equal(one, other)
    assert faiss.serialize_index(ours).tobytes() == faiss.serialize_index(theirs).tobytes()
