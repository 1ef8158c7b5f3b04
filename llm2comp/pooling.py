"""Pooling of a text's k memory tokens into one embedding: their mean, or the paper's clustering-then-merging."""

from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.modules import Module
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn
from torch.nn import functional

from llm2comp.errors import SettingsError

__all__ = ["ClusterMerge", "cluster_weights", "make_pooling"]


def make_pooling(settings: dict[str, Any], dimension: int) -> nn.Module:
    """The module that makes the embedding of k memory tokens of that dimension.

    Raises:
        SettingsError: If the settings name no pooling.
    """
    match settings:
        case {"mode": "mean", **others} if not others:
            mean: nn.Module = Pooling(dimension, pooling_mode="mean")
            return mean
        case {"mode": "cluster", "threshold": float() | int() as threshold, **others} if not others:
            return ClusterMerge(dimension, float(threshold))
    raise SettingsError(f'pooling is {settings}; give {{"mode": "mean"}} or {{"mode": "cluster", "threshold": 0.9}}')


def cluster_weights(memory: Tensor, threshold: float) -> Tensor:
    """Weight of each memory token in the embedding, so that a cluster of similar tokens counts as one.

    Tokens whose cosine is at least the threshold are linked; linked tokens form a cluster; the embedding is the mean of
    the cluster means. A threshold above 1 gives the plain mean, and so does -1 (a single cluster).

    Args:
        memory: (texts, k, dim).
        threshold: Cosine from which two tokens are linked.

    Returns:
        (texts, k), each row summing to 1.

    Source: clustering-then-merging, Zhang et al., AAAI 2026. The paper does not name the clustering method; single
    linkage at a threshold is this library's choice.
    """
    unit = functional.normalize(memory.detach().float(), dim=-1)
    tokens = memory.shape[1]
    linked = (unit @ unit.transpose(1, 2) >= threshold) | torch.eye(tokens, dtype=torch.bool, device=memory.device)
    reach = linked.float()
    for _ in range(max(1, (tokens - 1).bit_length())):
        reach = ((reach @ reach) > 0).float()
    size = reach.sum(-1)  # (texts, k): tokens in the cluster of each token
    clusters = (1 / size).sum(-1, keepdim=True)
    return (1 / (size * clusters)).to(memory.dtype)


class ClusterMerge(Module):
    """Pooling module: the sum of the memory tokens, weighted by `cluster_weights`."""

    config_keys = ["dimension", "threshold"]

    def __init__(self, dimension: int, threshold: float = 0.9) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dimension = dimension
        self.threshold = threshold

    def forward(self, features: dict[str, Tensor | Any], **_: Any) -> dict[str, Tensor | Any]:
        """Adds `sentence_embedding` (texts, dim), computed from `token_embeddings` (texts, k, dim)."""
        memory: Tensor = features["token_embeddings"]
        weights = cluster_weights(memory, self.threshold)
        return {**features, "sentence_embedding": (memory * weights[..., None]).sum(1)}

    def get_embedding_dimension(self) -> int:
        """Dimension of the embedding."""
        return self.dimension

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Writes the settings; there are no weights."""
        Path(output_path).mkdir(parents=True, exist_ok=True)
        self.save_config(output_path)
