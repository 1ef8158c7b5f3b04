"""Vectors of texts and of their memory tokens, made of what SentenceTransformer returns for each text."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from llm2comp.late_interaction import TextVectors

__all__ = ["stack_vectors"]


def stack_vectors(features: Sequence[Any], memory_tokens: int, dimension: int, *, normalize: bool) -> TextVectors:
    """The vectors of several texts, those of memory tokens of unit length.

    Args:
        features: Of each text its `sentence_embedding` (dimension,) and `token_embeddings` (k, at least dimension).
        memory_tokens: k.
        dimension: Components that a vector keeps.
        normalize: Whether the vectors of texts are scaled to unit length; else they are left as they are.
    """
    if not features:
        empty = np.zeros((0, memory_tokens, dimension), np.float32)
        return TextVectors(empty[:, 0], empty)
    pooled = torch.stack([text["sentence_embedding"] for text in features]).float()
    if normalize:
        pooled = functional.normalize(pooled, dim=-1)
    memory = torch.stack([text["token_embeddings"][:, :dimension] for text in features]).float()
    return TextVectors(pooled.cpu().numpy(), functional.normalize(memory, dim=-1).cpu().numpy())
