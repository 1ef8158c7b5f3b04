"""A forward pass in the layout that a language model takes, with all that shortens it."""

from collections.abc import Sequence

from torch import Tensor
from transformers import PreTrainedModel

from llm2comp.backbone.attention import Packing
from llm2comp.backbone.forward import AttentionLayout, rows_of_padding, run_packed, run_padded
from llm2comp.backbone.last_layer import last_attention, memory_rows_only

__all__ = ["run_layout"]


def run_layout(
    model: PreTrainedModel,
    layout: AttentionLayout,
    embeddings: Tensor,
    lengths: Sequence[int],
    *,
    causal: bool,
    dropout: float = 0.0,
    tail: int = 0,
) -> Tensor:
    """Final hidden states, (tokens, hidden), of texts end to end.

    Args:
        model: The language model.
        layout: How texts share the pass.
        embeddings: Input embeddings, (tokens, hidden).
        lengths: Tokens of each text.
        causal: Whether a token sees the tokens before it only, rather than its whole text.
        dropout: Share of the attention weights that is dropped; packed passes only.
        tail: Number of tokens at the end of each text whose states are needed; 0: all.
    """
    if layout == "padded":
        return run_padded(model, embeddings, lengths, causal=causal)
    packing = Packing.of(
        lengths,
        causal=causal,
        device=embeddings.device,
        dropout=dropout,
        padding=rows_of_padding(embeddings),
        tail=tail,
        last_attention=last_attention(model) if tail and embeddings.device.type == "cpu" else None,
    )
    with memory_rows_only(packing):
        return run_packed(model, embeddings, packing)
