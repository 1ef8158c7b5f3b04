"""The last layer, computed for the memory tokens only where that is enough.

A text's embedding is read from the last layer's states of its memory tokens; the states of the other tokens are read by
nothing. So the last layer needs keys and values of all tokens, and everything else for the memory tokens alone: the
MLP, which is most of it, the projections of queries and of attention's output, and attention itself
(`Packing.last_attention`). Hooks on the modules do it, set once when a model is loaded; they read the pass they belong
to from a context variable, so that threads share one model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from llm2comp.backbone.attention import Packing
from llm2comp.backbone.forward import decoder, rows_of_padding

__all__ = ["LAST_LAYER_HOOKS", "current_pass", "hook_last_layer", "last_attention", "memory_rows_only"]

_PROJECTIONS = ("q_proj", "o_proj")
"""Attention's projections by Llama's names; keys and values are needed of all tokens."""

_pass: ContextVar[Packing | None] = ContextVar("llm2comp_pass", default=None)


def last_attention(model: PreTrainedModel) -> nn.Module | None:
    """The attention module of the last layer; None unless the layer has a dense MLP, by Llama's names."""
    layers = getattr(decoder(model), "layers", None)
    if not isinstance(layers, nn.ModuleList):
        return None
    attention, mlp = (getattr(layers[-1], name, None) for name in ("self_attn", "mlp"))
    is_dense = isinstance(getattr(mlp, "down_proj", None), nn.Module)
    return attention if is_dense and isinstance(attention, nn.Module) else None


def hook_last_layer(model: PreTrainedModel) -> None:
    """Sets hooks on the last layer that act within `memory_rows_only`; none where `last_attention` is None."""
    attention = last_attention(model)
    if attention is None:
        return
    mlp = decoder(model).layers[-1].mlp  # type: ignore[index, union-attr]  # a ModuleList: see last_attention
    for module in (mlp, *(getattr(attention, name, None) for name in _PROJECTIONS)):
        # a copy of a hooked model has them
        if isinstance(module, nn.Module) and _select_memory_rows not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_select_memory_rows)
            module.register_forward_hook(_restore_rows)


def current_pass() -> Packing | None:
    """The packing of the pass that `memory_rows_only` surrounds in this thread."""
    return _pass.get()


@contextmanager
def memory_rows_only(packing: Packing | None) -> Iterator[None]:
    """Within the block, in this thread, the last layer is computed for the tails only where that is enough.

    Outputs of its MLP and projections are then 0 for other tokens. Without a packing, or with one that has no
    `last_attention`, the layer is computed for all tokens.
    """
    token = _pass.set(packing if packing is not None and packing.last_attention is not None else None)
    try:
        yield
    finally:
        _pass.reset(token)


def _select_memory_rows(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor] | None:
    """(1, tokens, hidden) -> (1, memory rows, hidden), padded as `rows_of_padding` says."""
    packing = _pass.get()
    if packing is None:
        return None
    rows = args[0].index_select(1, packing.tail_rows())
    return (nn.functional.pad(rows, (0, 0, 0, rows_of_padding(rows[0]))),)


def _restore_rows(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
    """(1, memory rows, hidden) -> (1, tokens, hidden), with zeros for the other tokens."""
    packing = _pass.get()
    if packing is None:
        return None
    rows = packing.tail_rows()
    states = output.new_zeros(1, packing.positions.shape[1], output.shape[-1])
    return states.index_copy(1, rows, output[:, : len(rows)])


LAST_LAYER_HOOKS = frozenset({_select_memory_rows, _restore_rows})
"""The hooks that `hook_last_layer` sets."""
