"""Cluster-then-merge against a slow reading of its one sentence."""

import itertools

import pytest
import torch
from torch import Tensor

from llm2comp.pooling import ClusterMerge, cluster_weights


def by_the_book(memory: Tensor, threshold: float) -> Tensor:
    """Mean of the cluster means of one text, (k, dim) -> (dim,): link, collect connected tokens, merge, average."""
    clusters = [{token} for token in range(len(memory))]
    for first, second in itertools.combinations(range(len(memory)), 2):
        if torch.cosine_similarity(memory[first], memory[second], dim=0) >= threshold:
            joined = [cluster for cluster in clusters if first in cluster or second in cluster]
            clusters = [cluster for cluster in clusters if cluster not in joined] + [set().union(*joined)]
    return torch.stack([memory[sorted(cluster)].mean(0) for cluster in clusters]).mean(0)


@pytest.mark.parametrize("tokens", [1, 2, 3, 5, 8, 16])
@pytest.mark.parametrize("threshold", [-1.1, 0.0, 0.3, 0.6, 0.9, 1.1])
def test_embedding_is_the_mean_of_the_cluster_means(tokens: int, threshold: float) -> None:
    generator = torch.Generator().manual_seed(tokens)
    few = torch.randn(6, 3, 4, generator=generator)  # three directions a text, so that there are clusters
    chosen = torch.randint(3, (6, tokens), generator=generator)
    memory = few.gather(1, chosen[..., None].expand(-1, -1, 4)) + 0.4 * torch.randn(6, tokens, 4, generator=generator)
    actual = ClusterMerge(4, threshold)({"token_embeddings": memory})["sentence_embedding"]
    torch.testing.assert_close(
        actual, torch.stack([by_the_book(text, threshold) for text in memory]), atol=1e-5, rtol=1e-5
    )


def test_a_chain_is_one_cluster() -> None:
    """Neighbouring tokens are similar, first and last are not: eight tokens need three squarings to be connected."""
    angles = torch.arange(8) * 0.3
    chain = torch.stack([angles.cos(), angles.sin()], dim=-1)[None]
    assert torch.allclose(cluster_weights(chain, 0.95), torch.full((1, 8), 1 / 8))
    with_another = torch.cat([chain, -chain[:, :1]], dim=1)
    assert torch.allclose(cluster_weights(with_another, 0.95), torch.tensor([[1 / 16] * 8 + [1 / 2]]))


def test_ends_of_the_scale_are_the_plain_mean() -> None:
    memory = torch.randn(4, 8, 16)
    for threshold in (-1.0, 1.01):
        torch.testing.assert_close(cluster_weights(memory, threshold), torch.full((4, 8), 1 / 8))


def test_weights_are_constants_to_gradients() -> None:
    memory = torch.randn(2, 4, 8, requires_grad=True)
    ClusterMerge(8, 0.1)({"token_embeddings": memory})["sentence_embedding"].sum().backward()
    assert memory.grad is not None
    torch.testing.assert_close(memory.grad, cluster_weights(memory, 0.1)[..., None].expand(-1, -1, 8))


def test_half_precision_stays() -> None:
    assert cluster_weights(torch.randn(2, 4, 8).bfloat16(), 0.5).dtype == torch.bfloat16
