"""The loss of stages 2 and 3 for late interaction: MaxSim over memory tokens, and a penalty that keeps them apart.

Memory vectors are those that an index stores (`LLM2Comp.encode_vectors`): memory states scaled to unit length each.
Sources: ColBERT (Khattab and Zaharia, SIGIR 2020) for MaxSim; the sum of one loss for each way of scoring is that of
BGE-M3 (Chen et al., 2024, section 3.3), without its distillation between them.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from sentence_transformers.base.losses.gradcache import CachedLossMixin, RandContext
from sentence_transformers.util import all_gather_with_grad, get_rank
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from llm2comp.errors import SettingsError
from llm2comp.training.settings import ContrastiveSettings

__all__ = ["LateInteractionLoss", "check_late_interaction", "diversity_penalty", "mean_maxsim"]

_PRODUCTS_AT_ONCE = 1 << 23
"""Inner products of memory vectors that are in memory at a time, forward and backward."""


def check_late_interaction(settings: ContrastiveSettings, memory_tokens: int) -> None:
    """Checks that a model has the memory tokens that the loss compares.

    Raises:
        SettingsError: If it has fewer than two.
    """
    if problems := settings.memory_problems(memory_tokens):
        raise SettingsError(*problems)


def mean_maxsim(queries: Tensor, documents: Tensor) -> Tensor:
    """Mean over the vectors of a query of the greatest inner product with a vector of a document.

    This is `llm2comp.late_interaction.maxsim` divided by the number of vectors of a query, so of unit vectors it is
    between -1 and 1 as a cosine is, and has gradients. Where the products are many, they are computed in parts and
    again in the backward pass, so that memory does not grow with them.

    Args:
        queries: (queries, k, dim).
        documents: (documents, k, dim).

    Returns:
        (queries, documents).
    """
    products_each = max(1, len(documents) * documents.shape[1] * queries.shape[1])
    blocks = queries.split(max(1, _PRODUCTS_AT_ONCE // products_each))
    if len(blocks) == 1:
        return _mean_maxsim(queries, documents)
    return torch.cat([checkpoint(_mean_maxsim, block, documents, use_reentrant=False) for block in blocks])


def _mean_maxsim(queries: Tensor, documents: Tensor) -> Tensor:
    products = queries.flatten(0, 1) @ documents.flatten(0, 1).T  # (queries * k, documents * k)
    return products.view(*queries.shape[:2], *documents.shape[:2]).amax(3).mean(1)


def diversity_penalty(memory: Tensor) -> Tensor:
    """Mean squared cosine of two memory tokens of a text, between 0 (orthogonal) and 1 (all alike).

    Args:
        memory: Unit vectors, (texts, k, dim), k at least 2.

    Returns:
        One value for each text, (texts,).
    """
    tokens = memory.shape[1]
    squares = (memory @ memory.transpose(1, 2)).square()  # (texts, k, k)
    others = squares.sum((1, 2)) - squares.diagonal(dim1=1, dim2=2).sum(1)
    return others / (tokens * (tokens - 1))


class LateInteractionLoss(CachedLossMixin, nn.Module):
    """Cross-entropy by pooled embeddings and by MaxSim, weighted, plus the weighted diversity penalty.

    With w the `maxsim_weight`: (1 - w) x loss by pooled similarity + w x loss by MaxSim / k + `diversity_weight` x mean
    penalty of all texts. Each loss is that of `contrastive_loss`, at the same temperature.

    Args:
        model: Adds `sentence_embedding` and, (texts, k, dim), `token_embeddings` to its features.
        settings: Weights and temperature.
        pooled_similarity: Of embeddings, (queries, dim) and (documents, dim), to (queries, documents).
        micro_batch: Rows per forward pass (GradCache); None takes a batch in one pass.
        gather_across_devices: Whether the texts of all devices are candidates.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: ContrastiveSettings,
        pooled_similarity: Callable[[Tensor, Tensor], Tensor],
        *,
        micro_batch: int | None = None,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.pooled_similarity = pooled_similarity
        self.mini_batch_size = micro_batch or settings.batch_size
        self.uses_gradient_cache = micro_batch is not None
        self.gather_across_devices = gather_across_devices
        self._dimension = self._tokens = 0  # of a pooled embedding, and memory tokens of a text; known from a pass

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """The loss of a batch, in nats.

        Args:
            sentence_features: Queries, their positives, and any number of columns of hard negatives.
            labels: Not used: a query's positive is in its own row.
        """
        if self.uses_gradient_cache:
            return self.forward_cached(sentence_features, labels)
        return self.calculate_loss([[self._embed(features)] for features in sentence_features], labels)

    def embed_minibatch(
        self,
        sentence_feature: dict[str, Tensor],
        begin: int,
        end: int,
        with_grad: bool,
        copy_random_state: bool,
        random_state: RandContext | None = None,
    ) -> tuple[Tensor, RandContext | None]:
        """Embedding and memory vectors of some texts, as `_embed`, and the state that repeats their dropout."""
        part = {name: _rows(value, begin, end) for name, value in sentence_feature.items()}
        with random_state or nullcontext(), nullcontext() if with_grad else torch.no_grad():
            state = RandContext(*part.values()) if copy_random_state else None
            return self._embed(part), state

    def calculate_loss(
        self, reps: Sequence[Sequence[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """The loss of texts that are embedded, a micro-batch of queries at a time.

        Args:
            reps: Of each column, parts of what `_embed` returns.
            labels: Not used.
            with_backward: Whether gradients are taken of each micro-batch at once; the loss then has none.
        """
        columns = [torch.cat(list(parts)) for parts in reps]
        rows, first = len(columns[0]), 0
        documents = torch.cat(columns[1:])
        if self.gather_across_devices:
            documents = torch.cat([all_gather_with_grad(column) for column in columns[1:]])
            first = get_rank() * rows
        total = torch.zeros((), device=documents.device)
        for begin in range(0, rows, self.mini_batch_size):
            parts = [column[begin : begin + self.mini_batch_size] for column in columns]
            positives = torch.arange(len(parts[0]), device=documents.device) + first + begin
            loss = self._objective(parts, documents, positives) * (len(parts[0]) / rows)
            if with_backward:
                loss.backward()
                loss = loss.detach()
            total = total + loss
        return total

    def _objective(self, columns: Sequence[Tensor], documents: Tensor, positives: Tensor) -> Tensor:
        """The loss of some rows.

        Args:
            columns: Their queries, positives and negatives, each (rows, all components).
            documents: All candidates, (documents, all components).
            positives: Which of these is the positive of each row, (rows,).
        """
        stage = self.settings
        pooled, memory = self._apart(columns[0])
        pooled_documents, memory_documents = self._apart(documents)
        loss = torch.zeros((), device=documents.device)
        if stage.maxsim_weight < 1:
            scores = self.pooled_similarity(pooled, pooled_documents) / stage.temperature
            loss = loss + (1 - stage.maxsim_weight) * functional.cross_entropy(scores, positives)
        if stage.maxsim_weight > 0:
            scores = mean_maxsim(memory, memory_documents) / stage.temperature
            loss = loss + stage.maxsim_weight * functional.cross_entropy(scores, positives)
        if stage.diversity_weight > 0:
            penalties = torch.stack([diversity_penalty(self._apart(column)[1]) for column in columns])
            loss = loss + stage.diversity_weight * penalties.mean()
        return loss

    def _embed(self, features: dict[str, Any]) -> Tensor:
        """Of each text its embedding and its memory vectors, end to end: (texts, dim + k * dim)."""
        found = self.model(features)
        memory = functional.normalize(found["token_embeddings"].float(), dim=-1)
        pooled: Tensor = found["sentence_embedding"].float()
        self._tokens, self._dimension = memory.shape[1], pooled.shape[1]
        return torch.cat([pooled, memory.flatten(1)], dim=1)

    def _apart(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (texts, dim) and memory vectors (texts, k, dim) of what `_embed` returns."""
        memory = embedded[:, self._dimension :]
        return embedded[:, : self._dimension], memory.unflatten(1, (self._tokens, -1))


def _rows(value: Any, begin: int, end: int) -> Any:
    """Rows of a tensor of a batch; anything else as it is."""
    return value[begin:end] if isinstance(value, Tensor) else value
