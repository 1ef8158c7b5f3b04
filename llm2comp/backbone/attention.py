"""Packed attention: texts end to end without padding, as one attention function registered with transformers.

The token axis holds the texts of a batch one after another, and attention stays within each text. The same function
serves the encoder (each token sees its whole text) and the frozen reader (causal). Which of the two is an argument of
the call, so no shared state is switched.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from llm2comp.backbone.blocked_attention import BlockPlan, blocked_attention, suits_blocks
from llm2comp.errors import BackboneError

__all__ = ["PACKED_ATTENTION", "Packing", "attend_packed", "packed_attention", "tail_rows"]

PACKED_ATTENTION = "llm2comp_packed"
"""The name to pass to transformers as `attn_implementation`."""

_WITHOUT_EFFECT = frozenset({"cache_position", "position_ids"})
"""Tensors that layers pass on, but have applied before attention."""


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """Where each text of a packed batch begins and ends, and which tokens may attend to which.

    Attributes:
        lengths: Tokens of each text, in order; at least one text, and none of 0 tokens.
        causal: Whether a token sees only those before it.
        dropout: Share of attention weights dropped in this pass, in place of the layers' own dropout.
        boundaries: Cumulative lengths, (texts + 1,), int32, on the batch's device.
        positions: Position of each token within its text, (1, tokens).
        padding: Rows after the last text, at position 0, outside attention; their output is 0.
        tail: Tokens at the end of each text whose states are needed from the last layer; 0: all.
        last_attention: The last layer's attention module, if it is to attend for the tails only; its output is then 0
            for other tokens.
    """

    lengths: tuple[int, ...]
    causal: bool
    dropout: float
    boundaries: Tensor
    positions: Tensor
    padding: int
    tail: int
    last_attention: nn.Module | None
    _plans: dict[tuple[int, int, int], BlockPlan] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        lengths: Sequence[int],
        *,
        causal: bool,
        device: torch.device,
        dropout: float = 0.0,
        padding: int = 0,
        tail: int = 0,
        last_attention: nn.Module | None = None,
    ) -> "Packing":
        """The packing of texts with these lengths."""
        sizes = torch.tensor(lengths, dtype=torch.int64)
        ends = sizes.cumsum(0)
        positions = torch.arange(int(ends[-1])) - torch.repeat_interleave(ends - sizes, sizes)
        boundaries = functional.pad(ends, (1, 0)).to(torch.int32)
        return cls(
            lengths=tuple(map(int, lengths)),
            causal=causal,
            dropout=dropout,
            boundaries=boundaries.to(device),
            positions=functional.pad(positions, (0, padding))[None].to(device),
            padding=padding,
            tail=tail,
            last_attention=last_attention,
        )

    def runs(self) -> list[tuple[int, int]]:
        """(texts, tokens per text) of each run of neighbouring texts of one length, which attend in one call."""
        return [(len(list(group)), length) for length, group in groupby(self.lengths)]

    def plan(self, heads: int, key_heads: int, tail: int) -> BlockPlan:
        """The plan of blocked attention, made by the first layer with these heads; see `BlockPlan.of`."""
        shape = heads, key_heads, tail
        if shape not in self._plans:
            self._plans[shape] = BlockPlan.of(self.lengths, *shape)
        return self._plans[shape]

    def tail_rows(self) -> Tensor:
        """Rows of the tails among all tokens, (texts x tail,)."""
        return tail_rows(self.boundaries[1:].to(torch.int64), self.tail).flatten()


def tail_rows(ends: Tensor, tail: int) -> Tensor:
    """Rows of the last tokens of each text, (texts, tail), from the row after each text, (texts,)."""
    return ends[:, None] - torch.arange(tail, 0, -1, device=ends.device)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    packing: Packing | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention within each text of a packed batch.

    Args:
        module: The layer's attention module.
        query: (1, heads, tokens, dim).
        key: (1, key heads, tokens, dim).
        value: (1, key heads, tokens, value dim).
        attention_mask: None; the packing takes its place.
        scaling: Factor on the scores; 1 / sqrt(dim) if None.
        packing: Passed down by the model from its keyword arguments.
        sliding_window: Tokens that a causal layer looks back at, the current one included. Bidirectional passes see the
            whole text, because memory tokens must see its beginning.
        softcap: Bound on the scores (Gemma 2).
        s_aux: Score of attending to nothing, one per head (gpt-oss).
        others: Other arguments of a layer, such as its own dropout, which the packing's replaces; tensors are refused.

    Returns:
        (1, tokens, heads, value dim) and None.

    Raises:
        BackboneError: If the layer does not pass `packing` on, or needs an attention that this function is not.
    """
    if packing is None:
        raise BackboneError(
            f"{type(module).__name__} does not pass its keyword arguments to attention, so texts cannot be packed"
        )
    unknown = [name for name, value in others.items() if isinstance(value, Tensor) and name not in _WITHOUT_EFFECT]
    if unknown or attention_mask is not None:
        raise BackboneError(
            f"{type(module).__name__} passes {', '.join(unknown) or 'a mask of its own'} to attention, which packed "
            "attention does not know"
        )
    window = _window(module, sliding_window) if packing.causal else None
    plain = softcap is None and s_aux is None
    if (
        plain
        and not packing.dropout
        and not packing.padding
        and _has_kernel(query.device)
        and (halves := _in_half_precision(query, key, value))
    ):
        return _varlen(*halves, packing, scaling, window), None
    if not plain:
        attend = partial(_written_out, packing=packing, scaling=scaling, softcap=softcap, sinks=s_aux)
        return _by_length(query, key, value, packing, window, 0, attend), None
    tail = packing.tail if module is packing.last_attention else 0
    return attend_packed(query, key, value, packing, scaling, window=window, tail=tail), None


def attend_packed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packing: Packing,
    scaling: float | None,
    *,
    window: int | None = None,
    tail: int = 0,
) -> Tensor:
    """Attention as of `packed_attention`, without its variants, by PyTorch's operations for all devices.

    Args:
        query: (1, heads, tokens, dim); key and value as for `packed_attention`.
        key: (1, key heads, tokens, dim).
        value: (1, key heads, tokens, value dim).
        packing: Which tokens see which.
        scaling: Factor on the scores; 1 / sqrt(dim) if None.
        window: Tokens that a token looks back at, itself included; None: all.
        tail: Tokens at the end of each text that attend; 0: all.

    Returns:
        (1, tokens, heads, value dim); 0 for tokens that do not attend.
    """
    if not packing.causal and not packing.dropout and suits_blocks(query, key, value):
        return blocked_attention(query, key, value, packing.plan(query.shape[1], key.shape[1], tail), scaling)
    return _by_length(query, key, value, packing, window, tail, partial(_fused, packing=packing, scaling=scaling))


def _by_length(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packing: Packing,
    window: int | None,
    tail: int,
    attend: Callable[..., Tensor],
) -> Tensor:
    """Attention of each run of texts of one length in one call, (1, tokens, heads, value dim).

    With a tail, the output is 0 for the tokens before it.
    """
    runs = packing.runs()
    sizes = [*(texts * length for texts, length in runs), packing.padding]
    # split, because slicing would fill whole tensors in its backward pass
    of_runs = [states[0].split(sizes, dim=1) for states in (query, key, value)]
    parts = []
    for (texts, length), *states in zip(runs, *of_runs, strict=False):  # without the padding, which comes last
        q, k, v = (part.unflatten(1, (texts, length)).transpose(0, 1) for part in states)  # (texts, heads, length, dim)
        mask = _window_mask(length, window, query.device) if window is not None and length > window else None
        attended = attend(q[:, :, -tail:] if tail else q, k, v, mask)
        if tail:
            attended = functional.pad(attended, (0, 0, length - tail, 0))
        parts.append(attended.transpose(1, 2).reshape(texts * length, query.shape[1], -1))
    if packing.padding:
        parts.append(parts[-1].new_zeros(packing.padding, *parts[-1].shape[1:]))
    return torch.cat(parts)[None]


def _fused(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, packing: Packing, scaling: float | None
) -> Tensor:
    """PyTorch's own attention over texts of one length, (texts, heads, length, dim).

    On CPUs its backward pass is twice as fast in float32 as in bfloat16, which costs more than bfloat16's forward pass
    saves; so training on a CPU attends in float32 whatever the surrounding precision.
    """
    causal = packing.causal and mask is None and query.shape[-2] > 1
    key, value, dtype = _all_heads(key, query), _all_heads(value, query), value.dtype
    trained = query.device.type == "cpu" and torch.is_grad_enabled() and query.requires_grad
    with torch.autocast("cpu", enabled=False) if trained else nullcontext():
        if trained:
            query, key, value = (
                states.to(torch.promote_types(states.dtype, torch.float32)) for states in (query, key, value)
            )
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=packing.dropout, is_causal=causal, scale=scaling
        ).to(dtype)


def _window(module: nn.Module, sliding_window: int | None) -> int | None:
    """The layer's sliding window; some classes apply it through the mask only, which they do not get here."""
    config, layer = getattr(module, "config", None), getattr(module, "layer_idx", None)
    kinds = getattr(config, "layer_types", None)
    if sliding_window is not None or not kinds or layer is None or kinds[layer] == "full_attention":
        return sliding_window
    if kinds[layer] != "sliding_attention":
        raise BackboneError(
            f"layer {layer} of {type(module).__name__} is of kind {kinds[layer]!r}, which packed attention does not "
            "know"
        )
    window: int | None = getattr(config, "sliding_window", None)
    return window


def _all_heads(states: Tensor, query: Tensor) -> Tensor:
    """Keys or values repeated for the query heads that share them."""
    shared = query.shape[1] // states.shape[1]
    return states if shared == 1 else states.repeat_interleave(shared, dim=1)


def _window_mask(length: int, window: int, device: torch.device) -> Tensor:
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)[None]
    return (distance >= 0) & (distance < window)


def _written_out(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    packing: Packing,
    scaling: float | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Attention with two variants that PyTorch's fused function lacks: capped scores and a sink per head."""
    key, value = _all_heads(key, query), _all_heads(value, query)
    scores = query @ key.transpose(-1, -2) * (scaling if scaling is not None else query.shape[-1] ** -0.5)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    length = query.shape[-2]
    if mask is None and packing.causal:
        mask = _window_mask(length, length, query.device)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    if sinks is not None:
        sink = sinks.reshape(1, -1, 1, 1).expand(scores.shape[0], -1, length, 1).to(scores.dtype)
        scores = torch.cat([scores, sink], dim=-1)
    weights = functional.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)[..., :length]
    return functional.dropout(weights, packing.dropout) @ value


@cache
def _has_kernel(device: torch.device) -> bool:
    """Whether PyTorch's variable-length attention runs on the device: NVIDIA GPUs from Ampere on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8


def _in_half_precision(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Query, key and value as the CUDA kernel takes them, (1, heads, tokens, dim) each; None where it has no kernel.

    Under autocast the rotary embedding leaves query and key in float32; they are cast to autocast's precision.
    """
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else query.dtype
    width = query.shape[-1]
    if dtype not in (torch.float16, torch.bfloat16) or value.shape[-1] != width or width > 256 or width % 8:
        return None
    return query.to(dtype), _all_heads(key, query).to(dtype), _all_heads(value, query).to(dtype)


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float | None, window: int | None
) -> Tensor:
    """PyTorch's variable-length attention on CUDA, in half precision.

    (1, heads, tokens, dim) -> (1, tokens, heads, dim).
    """
    from torch.nn.attention.varlen import varlen_attn  # absent from builds without CUDA support

    q, k, v = (states[0].transpose(0, 1).contiguous() for states in (query, key, value))
    longest = max(packing.lengths)
    reach = (-1 if window is None else window - 1, 0) if packing.causal else (-1, -1)
    attended = varlen_attn(
        q, k, v, packing.boundaries, packing.boundaries, longest, longest, scale=scaling, window_size=reach
    )
    assert isinstance(attended, Tensor)
    return attended[None]


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
