"""Encoding passes of Llama's architecture on CPUs, with the arithmetic of transformers' layers but fewer operations.

A layer of transformers is some seventy operations, each of which PyTorch dispatches from Python and which writes its
result to memory. Here it is a third as many. What concerns each token by itself runs in blocks of tokens, whose
intermediate results stay in a core's cache; weights are packed (`packed_linear`), as long as they take little memory.
Other architectures, passes with gradients, autocast, and models with hooks of others take transformers' layers.
"""

import logging
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from llm2comp.backbone.attention import Packing, attend_packed
from llm2comp.backbone.blocked_attention import attend_in_one_block, fits_one_block
from llm2comp.backbone.forward import decoder
from llm2comp.backbone.hardware import multiplies_tiles
from llm2comp.backbone.openvino_pass import OpenVinoPass, openvino_runs_here
from llm2comp.backbone.packed_linear import packed_bytes, project_with
from llm2comp.backbone.shared_lock import SharedLock
from llm2comp.backbone.weight_state import WeightState, is_hooked
from llm2comp.errors import BackboneError

__all__ = ["Engine", "InferencePasses"]

_FAMILIES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
"""Modules of transformers and the names of their classes."""

_PARTS = {"self_attn": "Attention", "mlp": "MLP", "input_layernorm": "RMSNorm", "post_attention_layernorm": "RMSNorm"}

_MOST_PACKED_BYTES = 2**29
"""Weights of a larger model are not copied."""

_BLOCK_NUMBERS = 2**19
"""Numbers in an intermediate result of the MLP, (tokens of a block, intermediate size)."""

_LEAST_BLOCK, _LARGEST_BLOCK = 256, 1024
"""Tokens of a block: with fewer, products are slow."""

_STEP, _STEP_OF_TILES = 8, 16
"""Rows of a product are padded to a multiple of this; the second for CPUs with AMX."""

_SIZES = 16
"""Numbers of rows of a product between two powers of two, at most: oneDNN compiles code for each number of rows."""

Blocks = Sequence[Tensor]
"""States of all tokens in order, (tokens of the block, hidden) each."""

Engine = Literal["torch", "openvino"]
"""What computes the passes."""

_logger = logging.getLogger(__name__)


class InferencePasses:
    """The prepared passes of a model, made when first asked for; copies and other processes make their own."""

    def __init__(self, engine: Engine = "torch") -> None:
        self._engine = engine
        self._prepared: _InferencePass | OpenVinoPass | None = None
        self._lock = SharedLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return InferencePasses, (self._engine,)

    def forget(self) -> None:
        """Frees the prepared weights; to be called once weights may have changed."""
        self._prepared = None

    def use_openvino(self, model: PreTrainedModel) -> None:
        """Has OpenVINO compute the passes from now on.

        Raises:
            BackboneError: If it is not installed, or cannot compute those of this model.
        """
        with self._lock.alone():
            self._prepared = OpenVinoPass(model, has_llama_layers=_has_known_layers(model))
            self._engine = "openvino"

    def find(self, model: PreTrainedModel, embeddings: Tensor) -> "_InferencePass | OpenVinoPass | None":
        """The passes for the model's present weights; None where transformers' layers are to be called.

        Args:
            model: Packed, with passes that leave it as it is.
            embeddings: Of the pass.
        """
        if torch.is_grad_enabled():
            self.forget()  # what follows may be an optimizer whose changes PyTorch does not count
            return None
        if embeddings.device.type != "cpu" or torch.is_autocast_enabled("cpu") or model.training:
            return None
        with self._lock.alone():
            if self._engine == "openvino" and not openvino_runs_here():
                self._prepared = None
            prepared = self._prepared
            if prepared is None or not prepared.weights.is_current(model):
                self._prepared = prepared = self._prepare(model)
        return None if prepared is None or prepared.weights.is_hooked() else prepared

    def _prepare(self, model: PreTrainedModel) -> "_InferencePass | OpenVinoPass | None":
        if self._engine == "openvino":
            if is_hooked(list(decoder(model).modules())):
                return None  # to trace it would call the hooks
            try:
                return OpenVinoPass(model, has_llama_layers=_has_known_layers(model))
            except BackboneError as error:  # it could be used when it was chosen, so the model has changed since
                _logger.warning("%s; using torch from now on", error)
                self._engine = "torch"
        return _InferencePass(model) if _has_known_layers(model) else None


class _InferencePass:
    """The passes of a model of known layers, prepared for its present modules and weights."""

    def __init__(self, model: PreTrainedModel) -> None:
        inner: Any = decoder(model)
        self.weights = WeightState(model)
        pack = packed_bytes(self.weights.modules) <= _MOST_PACKED_BYTES
        last = len(inner.layers) - 1
        self._layers = [_Layer(layer, split=row == last, pack=pack) for row, layer in enumerate(inner.layers)]
        self._rotary, self._norm = inner.rotary_emb, inner.norm
        widest = max(layer.mlp.intermediate_size for layer in inner.layers)
        self._block: int = min(max(2 ** (_BLOCK_NUMBERS // widest).bit_length() // 2, _LEAST_BLOCK), _LARGEST_BLOCK)

    def __call__(self, embeddings: Tensor, lengths: Sequence[int], tail: int = 0) -> Tensor:
        """Final hidden states of texts that are given end to end, each token seeing its whole text.

        Args:
            embeddings: (tokens, hidden).
            lengths: Tokens of each text.
            tail: With a tail, the last layer is computed for this many tokens at the end of each text only.

        Returns:
            (tokens, hidden), after the final norm; with a tail, 0 for other tokens.
        """
        padding = self._rows_of_padding(len(embeddings))
        packing = Packing.of(lengths, causal=False, device=embeddings.device, padding=padding, tail=tail)
        padded = functional.pad(embeddings, (0, 0, 0, padding)) if padding else embeddings
        cosines, sines = (part[0, :, None] for part in self._rotary(padded[None], packing.positions))
        half = sines.shape[-1] // 2
        rotation = _Rotation(cosines, torch.cat([-sines[..., :half], sines[..., half:]], dim=-1))
        blocks: Blocks = padded.split(self._block)
        *layers, last = self._layers
        for layer in layers:
            blocks = layer(blocks, rotation, packing)
        if not tail:
            return self._final(last(blocks, rotation, packing))[: len(embeddings)]
        rows = packing.tail_rows()
        rows = functional.pad(rows, (0, self._rows_of_padding(len(rows))), value=int(rows[-1]))
        tails = self._final(last.of_tails(blocks, rotation, packing, rows))
        return torch.zeros_like(embeddings).index_copy_(0, rows, tails)

    def _rows_of_padding(self, rows: int) -> int:
        """Rows to add, so that the last block has one of few numbers of rows."""
        last: int = rows % self._block
        power: int = 2 ** last.bit_length()
        return -last % max(_STEP_OF_TILES if multiplies_tiles() else _STEP, power // 2 // _SIZES)

    def _final(self, blocks: Blocks) -> Tensor:
        return _joined([_normed(self._norm, block) for block in blocks])


class _Rotation(NamedTuple):
    """Cosines and sines of the rotary embedding, (tokens, 1, dim); the first half of the sines has the other sign."""

    cosines: Tensor
    sines: Tensor

    def __call__(self, states: Tensor) -> Tensor:
        """Rotates queries or keys, (tokens, heads, dim)."""
        return (states * self.cosines).addcmul_(states.roll(states.shape[-1] // 2, -1), self.sines)

    def split(self, blocks: Blocks) -> "list[_Rotation]":
        """The rotation of each block of tokens."""
        sizes = [len(block) for block in blocks]
        return [_Rotation(*parts) for parts in zip(*(part.split(sizes) for part in (*self,)), strict=True)]

    def of_rows(self, rows: Tensor) -> "_Rotation":
        """The rotation of some tokens."""
        return _Rotation(*(part.index_select(0, rows) for part in (*self,)))


class _Layer:
    """A decoder layer: attention and a gated MLP, each after a norm and added to its input.

    Args:
        layer: transformers' layer.
        split: Whether queries are projected apart from keys and values, because they may be wanted of fewer tokens.
        pack: Whether weights are copied.
    """

    def __init__(self, layer: Any, *, split: bool, pack: bool) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        config = attention.config
        self._attention, self._dim = attention, attention.head_dim
        self._heads, self._key_heads = config.num_attention_heads, config.num_key_value_heads
        self._norm, self._mlp_norm = layer.input_layernorm, layer.post_attention_layernorm
        self._head_norms = (attention.q_norm, attention.k_norm) if hasattr(attention, "q_norm") else None  # Qwen3's
        query, key, value = attention.q_proj, attention.k_proj, attention.v_proj
        groups = [(query,), (key, value)] if split else [(query, key, value)]
        self._inputs = [project_with(*modules, pack=pack) for modules in groups]
        self._output = project_with(attention.o_proj, pack=pack)
        self._gate, self._up, self._down = (
            project_with(module, pack=pack) for module in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        )

    def __call__(self, blocks: Blocks, rotation: _Rotation, packing: Packing) -> Blocks:
        """States of all tokens after the layer."""
        parts = [self._project(block, angles) for block, angles in zip(blocks, rotation.split(blocks), strict=True)]
        query, key, value = map(_joined, zip(*parts, strict=True))
        return self._finish(blocks, self._attend(query, key, value, packing))

    def of_tails(self, blocks: Blocks, rotation: _Rotation, packing: Packing, rows: Tensor) -> Blocks:
        """States of the tails' rows after the layer, from the states of all tokens; for a layer that is split."""
        parts = [
            self._project_keys(block, angles) for block, angles in zip(blocks, rotation.split(blocks), strict=True)
        ]
        key, value = map(_joined, zip(*parts, strict=True))
        tails = _joined(blocks).index_select(0, rows)
        heads = self._inputs[0](_normed(self._norm, tails)).view(len(rows), -1, self._dim)
        query, _ = self._rotated(heads, rotation.of_rows(rows), self._heads)
        return self._finish(tails.split(len(blocks[0])), self._attend(query, key, value, packing, rows))

    def _project(self, states: Tensor, rotation: _Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of a block, (tokens, heads or key heads, dim)."""
        normed = _normed(self._norm, states)
        projected = [project(normed) for project in self._inputs]
        heads = _joined(projected, dim=1).view(len(states), -1, self._dim)
        rotated, value = heads[:, : -self._key_heads], heads[:, -self._key_heads :]
        return *self._rotated(rotated, rotation, self._heads), value

    def _project_keys(self, states: Tensor, rotation: _Rotation) -> tuple[Tensor, Tensor]:
        """Keys and values of a block."""
        heads = self._inputs[1](_normed(self._norm, states)).view(len(states), -1, self._dim)
        _, key = self._rotated(heads[:, : self._key_heads], rotation, 0)
        return key, heads[:, self._key_heads :]

    def _rotated(self, heads: Tensor, rotation: _Rotation, queries: int) -> tuple[Tensor, Tensor]:
        """Queries and keys with the rotary embedding, from both side by side, of which `queries` heads are queries."""
        if self._head_norms is not None:
            parts = zip(self._head_norms, (heads[:, :queries], heads[:, queries:]), strict=True)
            heads = torch.cat([_normed(norm, part) for norm, part in parts], dim=1)
        rotated = rotation(heads)
        return rotated[:, :queries], rotated[:, queries:]

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, packing: Packing, rows: Tensor | None = None
    ) -> Tensor:
        """Attention of all tokens, or of the tails' rows, (tokens or rows, heads x dim)."""
        if len(packing.lengths) == 1 and fits_one_block(query, key):
            [length] = packing.lengths
            return attend_in_one_block(query, key[:length], value[:length], self._attention.scaling)
        if rows is not None:
            query = query.new_zeros(len(key), *query.shape[1:]).index_copy_(0, rows, query)
        query, key, value = (part.transpose(0, 1)[None] for part in (query, key, value))
        attended = attend_packed(
            query, key, value, packing, self._attention.scaling, tail=0 if rows is None else packing.tail
        )
        states = attended[0].flatten(1)
        return states if rows is None else states.index_select(0, rows)

    def _finish(self, blocks: Blocks, attended: Tensor) -> Blocks:
        """The states of each block with attention's output and the MLP added."""
        finished = []
        for block, seen in zip(blocks, attended.split([len(block) for block in blocks]), strict=True):
            states = self._output.plus(seen, block)
            normed = _normed(self._mlp_norm, states)
            gated = self._up.times(normed, self._gate.swish(normed))
            finished.append(self._down.plus(gated, states))
        return finished


def _has_known_layers(model: PreTrainedModel) -> bool:
    """Whether the model is of an architecture whose layers are computed here."""
    inner: Any = decoder(model)
    prefix = _FAMILIES.get(type(inner).__module__.removeprefix("transformers.models.").partition(".")[0])
    return (
        type(inner).__name__ == f"{prefix}Model"
        and inner.config.hidden_act == "silu"
        and all(
            type(getattr(layer, name, None)).__name__ == f"{prefix}{kind}"
            for layer in inner.layers
            for name, kind in _PARTS.items()
        )
    )


def _normed(norm: Any, states: Tensor) -> Tensor:
    return functional.rms_norm(states, states.shape[-1:], norm.weight, norm.variance_epsilon)


def _joined(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=dim)
