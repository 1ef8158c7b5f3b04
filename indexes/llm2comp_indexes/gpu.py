"""Training, assignment and search on all GPUs that FAISS sees. Written from FAISS's documentation: no part of this has been run on a GPU yet.

What is built is an ordinary CPU index either way: k-means and the assignment of vectors to lists, which take the time of an IVF build, are what the GPUs do;
codes are made on the CPU and written straight to the lists' file, so that a segment may be larger than the memory of all GPUs. HNSW is built on the CPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from llm2comp.errors import SettingsError
from llm2comp_indexes.faiss_module import import_faiss, ivf_of
from llm2comp_indexes.index_types import IndexType
from llm2comp_indexes.storage import Storage

__all__ = ["clustering_on_gpus", "coarse_quantizer", "copy_to_gpus", "gpu_count", "resolve_device"]


def gpu_count() -> int:
    """GPUs that FAISS can use: none with faiss-cpu."""
    faiss = import_faiss()
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def resolve_device(device: str) -> Literal["cpu", "cuda"]:
    """Where to compute: "auto" is CUDA where FAISS sees a GPU, else the CPU.

    Raises:
        SettingsError: `device` is something else, or CUDA without a GPU that FAISS can use.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise SettingsError(f"device is {device!r}, expected auto, cpu or cuda")
    found = gpu_count() if device != "cpu" else 0
    if device == "cuda" and not found:
        raise SettingsError(
            "device is cuda, and FAISS sees no GPU: on a machine with one, put faiss-gpu in the place of faiss-cpu "
            '(pip uninstall faiss-cpu; pip install "llm2comp[gpu]"), or say cpu'
        )
    return "cuda" if found else "cpu"


@contextmanager
def clustering_on_gpus(index: Any) -> Iterator[None]:
    """Lets the GPUs compare vectors with centroids while the (untrained) IVF index is trained in this block."""
    faiss = import_faiss()
    inner = ivf_of(index)
    inner.clustering_index = comparer = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(inner.d))
    try:
        yield
    finally:
        inner.clustering_index = None
        comparer.thisown = True  # giving it to the index, which frees nothing, had taken that away


def coarse_quantizer(index: Any) -> Any:
    """A copy on the GPUs of what assigns vectors to the lists of a trained IVF index, its centroids compared one by one."""
    faiss = import_faiss()
    inner = ivf_of(index)
    centroids = faiss.IndexFlatIP(inner.d)
    centroids.add(inner.quantizer.reconstruct_n(0, inner.nlist))
    return faiss.index_cpu_to_all_gpus(centroids)


def copy_to_gpus(kind: IndexType, index: Any, storage: Storage) -> Any:
    """A copy of the index to search on the GPUs, in float16 where it holds floats, its lists spread over all of them.

    Raises:
        SettingsError: FAISS has no such index for GPUs.
    """
    faiss = import_faiss()
    options = faiss.GpuMultipleClonerOptions()
    options.shard, options.useFloat16 = True, True
    if kind.family == "flat":
        copy = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(storage.dimension), co=options)
        for block in storage.blocks():
            copy.add(block)
        return copy
    try:
        return faiss.index_cpu_to_all_gpus(index, co=options)
    except RuntimeError as error:
        raise SettingsError(f"FAISS cannot search {kind.factory!r} on a GPU ({str(error)[-120:]}); choose flat, ivf or ivfpq, or the device cpu") from error
