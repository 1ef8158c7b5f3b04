"""Where to compute; and on a machine with a GPU that FAISS can use, that it computes the same as the CPU."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from llm2comp.errors import SettingsError
from llm2comp_indexes.gpu import copy_to_gpus, gpu_count, resolve_device
from llm2comp_indexes.structures import Effort, build_structure, open_structure, parse_type
from tests.indexes.clustered import best_rows, draw_vectors, recall, store_vectors

needs_gpu = pytest.mark.skipif(not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0, reason="FAISS sees no GPU (faiss-cpu, or none there)")


def test_cpu_is_always_there() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if gpu_count() else "cpu")


@pytest.mark.skipif(gpu_count() > 0, reason="there is a GPU")
def test_cuda_without_a_gpu_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"sees no GPU.*faiss-gpu.*llm2comp\[gpu\]"):
        resolve_device("cuda")
    storage = store_vectors(tmp_path / "v", draw_vectors(20, 8))
    for text in ("flat", "hnsw", "ivf"):
        with pytest.raises(SettingsError, match="sees no GPU"):
            build_structure(parse_type(text, rows=20, dimension=8), storage, device="cuda")


def test_other_devices_are_refused() -> None:
    with pytest.raises(SettingsError, match="'tpu', expected auto, cpu or cuda"):
        resolve_device("tpu")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("text", ["IVF64,SQfp16", "IVF64,Flat", "OPQ16_64,IVF64,PQ16x8"])
def test_a_structure_built_on_gpus_is_read_and_searched_on_the_cpu(text: str, tmp_path: Path) -> None:
    vectors, queries = draw_vectors(20_000, 64), draw_vectors(100, 64, seed=1)
    storage, truth = store_vectors(tmp_path / "v", vectors), best_rows(vectors, queries, 10)
    kind, recalls = parse_type(text, rows=20_000, dimension=64), []
    for device in ("cpu", "cuda"):
        record = build_structure(kind, storage, device=device).save(tmp_path / device)
        opened = open_structure(tmp_path / device, kind, storage, record=record)
        recalls.append(recall(opened.search(queries, 10, effort=Effort(nprobe=8)).rows, truth))
    assert recalls[1] > recalls[0] - 0.03


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("text", ["Flat", "IVF64,Flat", "IVF64,SQfp16"])
def test_a_search_on_gpus_finds_what_numpy_finds(text: str, tmp_path: Path) -> None:
    vectors, queries = draw_vectors(20_000, 64), draw_vectors(100, 64, seed=1)
    storage, kind = store_vectors(tmp_path / "v", vectors), parse_type(text, rows=20_000, dimension=64)
    index = None
    if kind.family != "flat":
        build_structure(kind, storage).save(tmp_path / "i")
        index = faiss.read_index(str(tmp_path / "i"))
        index.nprobe = 64
    _, rows = copy_to_gpus(kind, index, storage).search(np.ascontiguousarray(queries), 10)
    assert recall(rows, best_rows(vectors, queries, 10)) > 0.98
