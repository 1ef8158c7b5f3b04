"""Training of FAISS indexes on a bounded, seeded sample of the stored vectors."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import SettingsError
from llm2comp_indexes.faiss_module import import_faiss
from llm2comp_indexes.format.vectors import Storage
from llm2comp_indexes.structures.types import IndexType

__all__ = ["SAMPLE_BYTES", "sample_size", "train_index"]

SAMPLE_BYTES = 2 << 30
"""Maximum size of the training sample in bytes, as float32."""

_POINTS_PER_LIST = 64  # FAISS warns below 39 and drops vectors beyond 256; the time of k-means is proportional
_POINTS_PER_CODE = 128
_AT_LEAST = 16384
_LEAST_OF_OTHERS = 1024  # more than the 256 centroids that most codes have
_NOT_TRAINED = ("SQfp16", "SQbf16")
_ROTATION_POINTS, _ROTATION_ROUNDS = 16384, 8  # FAISS's defaults, 65,536 and 50, take longer than all other steps


def sample_size(kind: IndexType, *, rows: int, dimension: int) -> int:
    """Number of rows that the type is trained on.

    64 per list, 128 per centroid of a product quantizer, at least 16,384; at most all rows, or 2 GiB.
    """
    size = _AT_LEAST
    if kind.family == "ivf":
        codes = _POINTS_PER_CODE * 2**kind.ivf.bits if kind.ivf.parts else 0
        size = max(size, _POINTS_PER_LIST * kind.ivf.lists, codes)
    elif kind.family == "other":
        size = max(size, 1 << 16, _POINTS_PER_LIST * (kind.lists or 0))
    return min(rows, size, max(_AT_LEAST, SAMPLE_BYTES // (4 * dimension)))


def train_index(index: Any, kind: IndexType, storage: Storage, *, rows: int, seed: int) -> None:
    """Trains the index on rows drawn from the first `rows` of the storage; with one thread, reproducible by the seed.

    Raises:
        SettingsError: FAISS cannot train the type on these rows.
    """
    if index.is_trained:
        return
    size = sample_size(kind, rows=rows, dimension=storage.dimension)
    chosen = (
        np.sort(np.random.default_rng(seed).choice(rows, size, replace=False, shuffle=False))
        if size < rows
        else np.arange(rows)
    )
    sample = _repeat_few(storage.fetch(chosen.astype(np.int64)), kind)
    _settle(index, kind, seed)
    try:
        with _settled_rotation(index, kind, seed):
            _train(index, kind, sample)
    except RuntimeError as error:
        raise SettingsError(
            f"FAISS cannot train an index {kind.factory!r} on {rows:,} rows ({str(error)[-120:]}); choose flat, hnsw, "
            "ivf, ivfpq or another string"
        ) from error


def _train(index: Any, kind: IndexType, sample: NDArray[np.float32]) -> None:
    """Trains the index; for IVF types whose codes learn nothing (half precision), only the lists.

    For the training of any codes, FAISS computes the residuals of 100,000 vectors, which takes twice their memory.
    """
    if kind.family == "ivf" and kind.ivf.codes in _NOT_TRAINED and not kind.ivf.transform:
        index.train_q1(len(sample), import_faiss().swig_ptr(sample), False, index.metric_type)
        index.is_trained = True
    else:
        index.train(sample)


def _repeat_few(sample: NDArray[np.float32], kind: IndexType) -> NDArray[np.float32]:
    """The sample, repeated if it has too few vectors.

    K-means needs as many as it makes centroids; a rotation learned from fewer vectors than it has dimensions crashes
    FAISS 1.15.1.
    """
    if kind.family == "ivf":
        least = max(kind.ivf.lists, 2**kind.ivf.bits if kind.ivf.parts else 1) + 1
        if kind.ivf.transform:
            least = max(least, 2 * sample.shape[1], 2 * (kind.ivf.output or 0))
    else:  # the largest number in the string may be that of lists or of dimensions
        least = max(
            2 * sample.shape[1], 2 * max(map(int, re.findall(r"\d+", kind.factory)), default=0), _LEAST_OF_OTHERS
        )
    return sample if len(sample) >= least else np.resize(sample, (least, sample.shape[1]))


def _settle(index: Any, kind: IndexType, seed: int) -> None:
    """Makes every k-means use the seed and the whole sample, and stops FAISS from printing advice about its size."""
    for part in _parts(index):
        owners: list[Any] = [part, getattr(part, "pq", None), getattr(part, "rq", None)]
        for clustering in (owner.cp for owner in owners if hasattr(owner, "cp")):
            clustering.seed = seed + 1
            clustering.min_points_per_centroid, clustering.max_points_per_centroid = 1, 1 << 30
        if hasattr(part, "pq"):
            part.pq.cp.max_points_per_centroid = _POINTS_PER_CODE
        if hasattr(part, "do_polysemous_training"):
            # Orders centroids for a filter that is not used here, and takes longer than k-means
            part.do_polysemous_training = False


def _parts(index: Any) -> Iterator[Any]:
    """The index and the indexes within it that are trained with it, downcast to their classes."""
    index = import_faiss().downcast_index(index)
    yield index
    for name in ("index", "base_index", "refine_index", "storage"):  # of a transform, a refinement, a graph
        if getattr(index, name, None) is not None:
            yield from _parts(getattr(index, name))


@contextmanager
def _settled_rotation(index: Any, kind: IndexType, seed: int) -> Iterator[None]:
    """`_settle` for the quantizer that an OPQ rotation is fitted to, with fewer rounds, within the block."""
    faiss = import_faiss()
    rotation = faiss.downcast_VectorTransform(index.chain.at(0)) if isinstance(index, faiss.IndexPreTransform) else None
    if not isinstance(rotation, faiss.OPQMatrix):
        yield
        return
    quantizer = faiss.ProductQuantizer(
        rotation.d_out, rotation.M, kind.ivf.bits if kind.family == "ivf" and kind.ivf.parts else 8
    )
    quantizer.cp.min_points_per_centroid, quantizer.cp.seed = 1, seed + 1
    rotation.max_train_points, rotation.niter = _ROTATION_POINTS, _ROTATION_ROUNDS
    rotation.pq = quantizer
    try:
        yield
    finally:
        rotation.pq = None
        quantizer.thisown = True  # FAISS's Python wrapper gave up ownership to the rotation, which does not free it
