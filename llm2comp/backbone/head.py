"""Logits of a language model from its final hidden states, as its own forward pass computes them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from llm2comp.backbone.attention import Packing
from llm2comp.backbone.forward import AttentionLayout
from llm2comp.errors import BackboneError

__all__ = ["check_logits", "freeze_head", "logits"]


def logits(model: PreTrainedModel, states: Tensor) -> Tensor:
    """Logits of a language model, (rows, hidden) -> (rows, vocabulary)."""
    head = model.get_output_embeddings()
    if not torch.is_autocast_enabled(states.device.type):
        states = states.to(head.weight.dtype)
    return _scaled(head(states), model.config)


@torch.no_grad()
def check_logits(
    model: PreTrainedModel, layout: AttentionLayout, run: Callable[[Tensor, tuple[int, ...]], Tensor]
) -> None:
    """Compares `logits` with the model's own.

    Args:
        model: The language model.
        layout: How texts share a forward pass of it.
        run: Its final hidden states, (tokens, hidden), of embeddings, (tokens, hidden), and the tokens of each text.

    Raises:
        BackboneError: If the model computes its logits in a way `logits` does not know.
    """
    device = model.device
    tokens = torch.arange(3, 9, device=device)
    packing = Packing.of((len(tokens),), causal=True, device=device)
    options = {"packing": packing} if layout == "packed" else {}
    states = run(model.get_input_embeddings()(tokens), packing.lengths)
    expected = model(input_ids=tokens[None], use_cache=False, **options).logits[0]
    ours = logits(model, states)
    if not torch.allclose(ours.float(), expected.float(), rtol=1e-2, atol=1e-2 * float(expected.abs().max())):
        raise BackboneError(
            f"{type(model).__name__} computes its logits in a way this version does not know, so it cannot teach; "
            "its encoder still works"
        )


def freeze_head(model: PreTrainedModel) -> None:
    """Freezes the head, which encoding does not use, unless its weights are the input embeddings too."""
    head = model.get_output_embeddings()
    if head.weight is not model.get_input_embeddings().weight:
        head.requires_grad_(False)


def _scaled(logits: Tensor, config: Any) -> Tensor:
    """Logits as Cohere, Granite and Gemma 2 scale or cap them after their head."""
    if (factor := getattr(config, "logit_scale", None)) is not None:
        logits = logits * factor
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        logits = logits / divisor
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits
