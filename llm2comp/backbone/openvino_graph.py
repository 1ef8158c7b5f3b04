"""What OpenVINO is given: a decoder on padded texts, every token seeing its whole text, traced from its own layers."""

import os
import threading
import warnings
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama.modeling_llama import rotate_half

from llm2comp.backbone.forward import decoder
from llm2comp.backbone.loading import quiet
from llm2comp.fork import never_free, run_after_fork

__all__ = ["convert_decoder", "convert_module", "openvino_core"]

_core: Any = None
_core_lock = threading.Lock()


def openvino_core() -> Any:
    """The process's one `openvino.Core`, which is never freed before the process ends.

    OpenVINO's plugin gives the thread that creates it another stack for signal handlers, and gives back the one before
    when it is freed. Of two plugins that are not freed in the opposite order, the second gives back a stack that the
    first has freed: the next signal, Ctrl-C too, then writes into whatever lies there.
    """
    import openvino

    global _core
    with _core_lock:
        if _core is None:
            _core = openvino.Core()
            _core.set_property({"ENABLE_MMAP": os.name != "nt"})  # Windows does not delete files that are mapped
        return _core


run_after_fork(lambda: never_free(_core))


def convert_decoder(model: PreTrainedModel, *, has_llama_layers: bool) -> Any:
    """A model's decoder as OpenVINO's graph, its weights in float32 and its adapter merged into them.

    Inputs and output are those of `_Graph.forward`.

    Args:
        model: The language model.
        has_llama_layers: Whether its layers are Llama's, so that the last can be computed for some tokens only.
    """
    embeddings: Any = model.get_input_embeddings()
    width = embeddings.weight.shape[1]
    example = torch.ones(2, 4, width), torch.zeros(2, 1, 1, 4), torch.tensor([[2, 3], [1, 2]])
    kind = _LlamaGraph if has_llama_layers else _Graph
    shapes = [-1, -1, width], [-1, 1, 1, -1], [-1, -1]
    with quiet():
        return convert_module(kind(_copied_decoder(model)), example, shapes)


def convert_module(module: nn.Module, example: tuple[Tensor, ...], shapes: Sequence[list[int]]) -> Any:
    """A module as OpenVINO's graph, traced.

    It is written and read back: as converted, OpenVINO computes rotary positions in bfloat16 too, which costs cosines
    of 0.998 where they are 0.99999 after reading. The file is mapped.

    Args:
        module: Takes and returns tensors; attention stays one operation.
        example: Inputs.
        shapes: Shape of each input; -1 for a dimension that varies.
    """
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(), TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        warnings.simplefilter("ignore")  # of the tracer, about conditions that do not change
        # not `openvino.convert_model`, which reports its use over the network
        frontend = FrontEndManager().load_by_framework("pytorch")
        traced = TorchScriptPythonDecoder(module, example_input=example, trace_kwargs={"check_trace": False})
        graph = frontend.convert(frontend.load(traced))
        graph.reshape(dict(zip(graph.inputs, shapes, strict=True)))
        file = Path(folder) / "graph.xml"
        openvino.save_model(graph, file, compress_to_fp16=False)
        return openvino_core().read_model(file)


def _copied_decoder(model: PreTrainedModel) -> nn.Module:
    """The decoder in float32 with transformers' attention and its adapter merged, without input embeddings."""
    copied: Any = deepcopy(decoder(model), {id(model.get_input_embeddings()): None}).float()
    copied.set_attn_implementation("sdpa")
    for module in copied.modules():
        if isinstance(module, BaseTunerLayer):
            module.merge()
        elif hasattr(module, "config"):  # of layers shared with a longer model, it is not the decoder's
            module.config._attn_implementation = "sdpa"
    assert isinstance(copied, nn.Module)
    return copied.eval()


class _Graph(nn.Module):
    """What is traced: a decoder of any architecture on padded texts."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner: Any = inner

    def forward(self, embeddings: Tensor, added: Tensor, columns: Tensor) -> Tensor:
        """Final hidden states of some tokens, (texts, tokens chosen of each, hidden).

        Args:
            embeddings: (texts, tokens, hidden).
            added: Added to attention's scores, (texts, 1, 1, tokens): four dimensions, which transformers takes as they
                are, whether the model is causal or not.
            columns: Positions of the chosen tokens, (texts, tokens chosen of each).
        """
        states = self.inner(inputs_embeds=embeddings, attention_mask=added, use_cache=False).last_hidden_state
        return _chosen(states, columns)


class _LlamaGraph(_Graph):
    """The graph of a decoder with Llama's layers, of which the last is computed for the chosen tokens only."""

    def forward(self, embeddings: Tensor, added: Tensor, columns: Tensor) -> Tensor:
        """As `_Graph.forward`."""
        *layers, last = self.inner.layers
        positions = torch.arange(embeddings.shape[1])[None]
        rotation = self.inner.rotary_emb(embeddings, position_ids=positions)
        states = embeddings
        for layer in layers:
            states = layer(states, attention_mask=added, position_ids=positions, position_embeddings=rotation)
        chosen = _chosen(states, columns) + _attended(last, states, added, columns, rotation)
        chosen = chosen + last.mlp(last.post_attention_layernorm(chosen))
        final: Tensor = self.inner.norm(chosen)
        return final


def _attended(layer: Any, states: Tensor, added: Tensor, columns: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Output of a Llama layer's attention for the chosen tokens, (texts, tokens chosen of each, hidden)."""
    attention, normed = layer.self_attn, layer.input_layernorm(states)
    query, key, value = (
        project(rows).unflatten(-1, (-1, attention.head_dim))
        for project, rows in (
            (attention.q_proj, _chosen(normed, columns)),
            (attention.k_proj, normed),
            (attention.v_proj, normed),
        )
    )
    if hasattr(attention, "q_norm"):  # Qwen3's
        query, key = attention.q_norm(query), attention.k_norm(key)
    query = _rotated(query, *(part[0, columns] for part in rotation))
    key = _rotated(key, *rotation)
    seen, _ = sdpa_attention_forward(
        attention, query, key, value.transpose(1, 2), added, scaling=attention.scaling, is_causal=False
    )
    output: Tensor = attention.o_proj(seen.flatten(2))
    return output


def _rotated(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Queries or keys, (texts, tokens, heads, dim), with the rotary embedding, as (texts, heads, tokens, dim)."""
    heads = heads.transpose(1, 2)
    rotated: Tensor = heads * cosines[:, None] + rotate_half(heads) * sines[:, None]
    return rotated


def _chosen(states: Tensor, columns: Tensor) -> Tensor:
    """States of the chosen tokens, (texts, tokens, hidden) -> (texts, tokens chosen of each, hidden)."""
    texts = torch.arange(states.shape[0])[:, None]
    return states[texts, columns]
