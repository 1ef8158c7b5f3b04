"""Figures of embeddings and memory tokens as functions of arrays: effective dimension, uniformity, similarity."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import SettingsError

__all__ = [
    "VectorFigures",
    "alignment",
    "analyze_vectors",
    "entropy_rank",
    "mean_cosine",
    "memory_similarity",
    "participation_ratio",
    "singular_values",
    "uniformity",
]

_Array = NDArray[np.floating[Any]]
_ROWS_AT_ONCE = 1024


class VectorFigures(NamedTuple):
    """Result of `analyze_vectors`; each figure is defined by the function of its name."""

    texts: int
    dimension: int
    participation_ratio: float
    """Participation ratio of the centred vectors, over the eigenvalues of their covariance."""
    entropy_rank: float
    """Entropy rank of the centred vectors."""
    participation_ratio_uncentred: float
    """Participation ratio with the mean of all vectors left in, which dominates in a narrow cone of vectors."""
    entropy_rank_uncentred: float
    uniformity: float
    mean_cosine: float


def analyze_vectors(vectors: _Array) -> VectorFigures:
    """The figures of a matrix of embeddings, (texts, dim).

    Raises:
        SettingsError: If it is no matrix of at least two rows, or contains a value that is not finite.
    """
    centred, uncentred = (singular_values(vectors, centred=choice) for choice in (True, False))
    texts, dimension = np.shape(vectors)
    return VectorFigures(
        texts=texts,
        dimension=dimension,
        participation_ratio=participation_ratio(centred),
        entropy_rank=entropy_rank(centred),
        participation_ratio_uncentred=participation_ratio(uncentred),
        entropy_rank_uncentred=entropy_rank(uncentred),
        uniformity=uniformity(vectors),
        mean_cosine=mean_cosine(vectors),
    )


def singular_values(vectors: _Array, *, centred: bool) -> NDArray[np.float64]:
    """Singular values of the embedding matrix, largest first, (min(texts, dim),).

    Divided by the first they are the spectrum that the paper plots (Zhang et al., AAAI 2026, "effective dimension"),
    which does not say whether its vectors were centred. A collapse shows as an early drop to zero. Values within the
    rounding error of single-precision vectors are set to zero.

    Args:
        vectors: (texts, dim).
        centred: Whether to subtract the mean of all vectors first; the squares over the number of texts are then the
            eigenvalues of the covariance.

    Raises:
        SettingsError: As `analyze_vectors`.
    """
    matrix = _checked(vectors)
    scale = np.linalg.norm(matrix, axis=1).max(initial=0.0)
    values = np.linalg.svd(matrix - matrix.mean(0) if centred else matrix, compute_uv=False)
    rounding = scale * np.finfo(np.float32).eps * np.sqrt(len(matrix))
    return np.where(values > rounding, values, 0.0)


def participation_ratio(values: _Array) -> float:
    """Effective dimension from singular values: (sum l)^2 / sum l^2 over the variances l, their squares.

    d for equal variances in d directions, 1 for a single direction, 0 for no variance. For n texts spread evenly over d
    dimensions it is about n d / (n + d), so compare models on the same number of texts. Source: Gao et al., "A theory
    of multineuronal dimensionality, dynamics and measurement", bioRxiv 214262 (2017).
    """
    variances = _scaled(values) ** 2
    return float(variances.sum() ** 2 / (variances**2).sum()) if variances.any() else 0.0


def entropy_rank(values: _Array) -> float:
    """Effective dimension from singular values: exp of the entropy of p, the values over their sum.

    d for d equal values, 1 for a single one, 0 if all are zero. Small values count more here than in the participation
    ratio, which squares them twice.
    Source: Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007, definition 1.
    """
    shares = _scaled(values)
    if not shares.any():
        return 0.0
    shares = shares[shares > 0] / shares.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def uniformity(vectors: _Array, t: float = 2.0) -> float:
    """Log of the mean of exp(-t |x - y|^2) over all pairs of rows, scaled to unit length; lower is more uniform.

    0 if all vectors are the same; with t = 2 about -4 + 8 / dim for vectors spread evenly over a sphere of many
    dimensions. Source: Wang and Isola, "Understanding contrastive representation learning through alignment and
    uniformity on the hypersphere", ICML 2020, section 4.1.2.
    """
    unit = _unit(_checked(vectors))
    squares, rows, total = (unit**2).sum(1), len(unit), 0.0
    for first in range(0, rows, _ROWS_AT_ONCE):
        block = slice(first, first + _ROWS_AT_ONCE)
        distances = np.maximum(squares[block, None] + squares[None] - 2 * unit[block] @ unit.T, 0.0)
        total += float(np.exp(-t * distances).sum())
    others = max(total - rows, np.finfo(np.float64).tiny)  # each row is at distance 0 from itself
    return float(np.log(others / (rows * (rows - 1))))


def mean_cosine(vectors: _Array) -> float:
    """Anisotropy: the mean cosine of all pairs of different rows.

    Near 1 if all vectors point the same way, near 0 if there is no preferred direction. Source: Ethayarajh, "How
    contextual are contextualized word representations?", EMNLP 2019, section 3.3 (there of sampled pairs).
    """
    unit = _unit(_checked(vectors))
    rows = len(unit)
    return float(((unit.sum(0) ** 2).sum() - (unit**2).sum()) / (rows * (rows - 1)))


def alignment(first: _Array, second: _Array) -> float:
    """Mean of |x - y|^2 over positive pairs (rows of both arrays), scaled to unit length; lower is closer.

    0 if both texts of each pair have the same vector. Source: Wang and Isola, ICML 2020, section 4.1.1, with exponent
    2.

    Raises:
        SettingsError: If the shapes differ, or a value is not finite.
    """
    if np.shape(first) != np.shape(second):
        raise SettingsError(
            f"pairs of vectors of shape {np.shape(first)} and {np.shape(second)}; give one row a pair in both"
        )
    left, right = (_unit(_checked(vectors, least=1)) for vectors in (first, second))
    return float(((left - right) ** 2).sum(1).mean())


def memory_similarity(memory: _Array) -> NDArray[np.float64]:
    """Mean over texts of the cosines between a text's memory tokens, (texts, k, dim) -> (k, k); ones on the diagonal.

    Source: the k x k memory similarity of Zhang et al., AAAI 2026, which merges clusters of similar tokens.
    """
    states = np.asarray(memory, dtype=np.float64)
    if states.ndim != 3 or not len(states):
        raise SettingsError(f"memory states of shape {states.shape}; expected (texts, k, dim) with at least one text")
    unit = _unit(states)
    similarity: NDArray[np.float64] = np.einsum("tid,tjd->ij", unit, unit, optimize=True) / len(unit)
    return similarity


def _checked(vectors: _Array, *, least: int = 2) -> NDArray[np.float64]:
    matrix = np.asarray(vectors, dtype=np.float64)
    if matrix.ndim != 2 or len(matrix) < least:
        raise SettingsError(f"vectors of shape {matrix.shape}; expected (texts, dim) with at least {least} texts")
    if not np.isfinite(matrix).all():
        raise SettingsError(
            f"the vector of text {int(np.argmin(np.isfinite(matrix).all(1)))} holds a value that is not finite"
        )
    return matrix


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows scaled to unit length; a row of zeros stays zero."""
    lengths: NDArray[np.float64] = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)


def _scaled(values: _Array) -> NDArray[np.float64]:
    """The values over the largest one, so that powers neither overflow nor underflow."""
    array = np.asarray(values, dtype=np.float64)
    return array / (array.max(initial=0.0) or 1.0)
