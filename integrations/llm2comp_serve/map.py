"""A flat picture of vectors: their two principal components."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["project"]


def project(
    sample: NDArray[np.float32], others: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The points, (vectors, 2) each, of a sample and of others along the sample's two principal components."""
    center = sample.mean(axis=0)
    _, _, directions = np.linalg.svd(sample - center, full_matrices=False)
    plane = np.zeros((2, sample.shape[1]))
    plane[: min(2, len(directions))] = directions[:2]
    return (sample - center) @ plane.T, (others - center) @ plane.T
