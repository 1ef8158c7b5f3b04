"""Whitening: a linear map of embeddings that evens out their directions, fitted to texts without labels."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from sentence_transformers.sentence_transformer.modules import Dense
from torch import Tensor, nn

from llm2comp.errors import ModelFolderError, one_line

__all__ = ["WHITENING_FOLDER", "make_module", "read_whitening", "whitening_digest", "whitening_matrix"]

WHITENING_FOLDER = "2_Dense"
"""Where sentence-transformers writes the module, behind encoder and pooling."""

_WEIGHT = "linear.weight"


def whitening_matrix(vectors: NDArray[np.float32], power: float) -> NDArray[np.float32]:
    """The map of embeddings, (dim, dim): vectors that it maps have unit length in the mean.

    It turns vectors so that their components are uncorrelated, in falling order of their spread, and divides each by
    its root mean square raised to `power`. The first components are the best ones to keep when vectors are shortened.

    Args:
        vectors: Embeddings of unit length, (texts, dim).
        power: 0 turns vectors only, which changes no cosine; 1 gives all components the same spread.

    Source: Su et al., *Whitening Sentence Representations*, arXiv:2103.15316, for power 1 and centred vectors; the
    power is this library's choice. Vectors are not centred, so that the map is linear.
    """
    count, dimension = vectors.shape
    moments = np.zeros((dimension, dimension))
    for first in range(0, count, 4096):
        block = vectors[first : first + 4096].astype(np.float64)
        moments += block.T @ block
    squares, directions = np.linalg.eigh(moments / count)
    squares, directions = squares[::-1], directions[:, ::-1]
    squares = np.maximum(squares, squares[0] * np.finfo(np.float32).eps)  # of directions that no text has
    scales = squares ** (-power / 2)
    scales /= np.sqrt((squares * scales**2).sum())
    matrix: NDArray[np.float32] = (directions * scales).T.astype(np.float32)
    return matrix


def make_module(matrix: Tensor) -> Dense:
    """The module behind the pooling that applies the map; training leaves it as it is.

    Args:
        matrix: (dim, dim).
    """
    module = Dense(
        matrix.shape[1], matrix.shape[0], bias=False, activation_function=nn.Identity(), init_weight=matrix.float()
    )
    module.requires_grad_(False)
    return module


def whitening_digest(module: Dense) -> str:
    """SHA-256 over the values of the map, which a model's fingerprint contains."""
    values = module.linear.weight.detach().float().cpu().contiguous()
    return hashlib.sha256(values.numpy().data).hexdigest()


def read_whitening(folder: Path, dimension: int) -> Tensor:
    """The map in a model folder whose files have been checked, (dim, dim).

    Raises:
        ModelFolderError: There is none, or it is of vectors of another dimension.
    """
    path = folder / WHITENING_FOLDER / "model.safetensors"
    try:
        matrix = load_file(path)[_WEIGHT].float()
    except (OSError, KeyError, SafetensorError) as error:
        raise ModelFolderError(f"{path}: {one_line(error)}: copy the model folder again") from error
    if matrix.shape != (dimension, dimension):
        raise ModelFolderError(
            f"{path} has shape {tuple(matrix.shape)}, expected {(dimension, dimension)}: copy the model folder again"
        )
    return matrix
