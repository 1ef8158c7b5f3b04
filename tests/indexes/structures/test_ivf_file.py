"""IVF files mapped for searching: the same answers as when FAISS reads them, and no prefetching threads."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from llm2comp_indexes.format.vectors import StorageWriter, open_storage
from llm2comp_indexes.structures.build import build_structure
from llm2comp_indexes.structures.ivf_file import map_lists
from llm2comp_indexes.structures.structure import Effort, IndexType, open_structure


@pytest.mark.parametrize("factory", ["IVF16,SQfp16", "RR32,IVF16,Flat"])
def test_mapped_lists_answer_as_lists_in_memory_and_read_nothing_ahead(factory: str, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((2000, 32), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with StorageWriter(tmp_path / "vectors", 32, "float32") as writer:
        writer.append(vectors)
        writer.finish()
    storage = open_storage(tmp_path / "vectors", rows=2000, dimension=32, store="float32")
    kind = IndexType(factory)
    built = build_structure(kind, storage)
    record = built.save(tmp_path / "lists")
    mapped, loaded = map_lists(tmp_path / "lists"), faiss.read_index(str(tmp_path / "lists"))
    for index in (mapped, loaded):
        faiss.extract_index_ivf(index).nprobe = 4
    for one, other in zip(mapped.search(vectors[:50], 10), loaded.search(vectors[:50], 10), strict=True):
        np.testing.assert_array_equal(one, other)
    opened = open_structure(tmp_path / "lists", kind, storage, record=record)
    for structure in (built, opened):
        lists = faiss.downcast_InvertedLists(faiss.extract_index_ivf(structure._index).invlists)
        assert isinstance(lists, faiss.OnDiskInvertedLists)
        assert lists.prefetch_nthread == 0  # two searches at once would share what FAISS reads ahead with, unguarded
        np.testing.assert_array_equal(
            structure.search(vectors[:50], 10, effort=Effort(nprobe=4)).rows, loaded.search(vectors[:50], 10)[1]
        )


def test_the_file_may_be_read_by_whoever_may_read_the_others(tmp_path: Path) -> None:
    with StorageWriter(tmp_path / "vectors", 8, "float32") as writer:
        writer.append(np.eye(8, dtype=np.float32))
        writer.finish()
    built = build_structure(
        IndexType("IVF2,SQfp16"),
        open_storage(tmp_path / "vectors", rows=8, dimension=8, store="float32"),
        workdir=tmp_path,
    )
    built.save(tmp_path / "lists")
    assert (tmp_path / "lists").stat().st_mode == (tmp_path / "vectors").stat().st_mode
