"""The systems of a training benchmark, each in a process of its own: ours and `plain transformers` on the same weights and tokens."""

import json
import random
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.backbone.backbone import Backbone
from llm2comp.encoder import MemoryEncoder
from llm2comp.training.compression import compression_loss
from llm2comp_benchmarks.cost.devices import device_memory_peak, finish, start_memory
from llm2comp_benchmarks.cost.models import Shape
from llm2comp_benchmarks.cost.train.plain import PlainTransformers
from llm2comp_benchmarks.cost.worker import Job, serve

__all__ = ["SYSTEMS", "draw_batch", "open_system"]

_MEMORY_TOKENS = 8
_MARGIN = 10  # least tokens of a context and a continuation, as stage 1 splits texts
_DROPOUT = 0.05
_CLIP = 2.0
_SPREAD = 0.02  # of weights that start at random

Loss = Callable[[list[list[int]], list[list[int]]], Tensor]


def draw_batch(number: int, *, vocabulary: int, texts: int, tokens: int) -> tuple[list[list[int]], list[list[int]]]:
    """Contexts and continuations of random tokens, `tokens` together for each text, split where stage 1 might; the same for the same number."""
    chance = random.Random(number)
    contexts, continuations = [], []
    for _ in range(texts):
        text = [1, *(chance.randrange(3, vocabulary) for _ in range(tokens - 1))]
        cut = chance.randint(_MARGIN, tokens - _MARGIN)
        contexts.append(text[:cut])
        continuations.append(text[cut:])
    return contexts, continuations


def _language_model(shape: Shape, vocabulary: int, seed: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def _memory(shape: Shape) -> Tensor:
    return _SPREAD * torch.randn(_MEMORY_TOKENS, shape.hidden, generator=torch.Generator().manual_seed(1))


def _open_ours(shape: Shape, vocabulary: int, longest: int, seed: int, precision: str) -> tuple[nn.Module, Loss]:
    """As `llm2comp train` does: in bfloat16 the frozen weights are, too, while what is trained stays in float32."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>"))
    backbone = Backbone(_language_model(shape, vocabulary, seed).to(getattr(torch, precision)))
    backbone.language_model.requires_grad_(False)
    backbone.add_adapter(AdapterSettings(dropout=_DROPOUT))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>")
    encoder = MemoryEncoder(backbone, tokenizer, _memory(shape), max_length=longest + _MEMORY_TOKENS)
    return encoder, lambda contexts, continuations: compression_loss(encoder, contexts, continuations, "distillation")


def _open_plain(shape: Shape, vocabulary: int, longest: int, seed: int, precision: str) -> tuple[nn.Module, Loss]:
    plain = PlainTransformers(
        _language_model(shape, vocabulary, seed),
        _language_model(shape, vocabulary, seed),
        _memory(shape),
        dropout=_DROPOUT,
    )
    return plain, plain


SYSTEMS: dict[str, Callable[[Shape, int, int, int, str], tuple[nn.Module, Loss]]] = {
    "llm2comp": _open_ours,
    "plain transformers": _open_plain,
}
"""A module to be trained and its loss, by name of the system."""


def open_system(
    system: str,
    *,
    shape: str,
    vocabulary: int,
    texts: int,
    tokens: int,
    precision: str = "float32",
    seed: int = 0,
    device: str = "cpu",
    checkpointing: bool = False,
) -> tuple[dict[str, Any], Mapping[str, Job]]:
    """What a system says of itself, and its jobs: `loss` without dropout, `step`, `peak`.

    Both systems take the same steps: loss, gradient, clipping to 2, AdamW; in bfloat16 the loss is computed under
    autocast, as the trainer does. On a GPU memory is the GPU's. Checkpointing is ours: activations are recomputed in
    the backward pass.
    """
    module, loss_of = SYSTEMS[system](Shape.parse(shape), vocabulary, tokens, seed, precision)
    _start_adapter(module)
    module.to(device)
    if checkpointing and isinstance(module, MemoryEncoder):
        module.backbone.enable_checkpointing()
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=1e-5)
    size = {"vocabulary": vocabulary, "texts": texts, "tokens": tokens}

    def forward(number: int) -> Tensor:
        with nullcontext() if precision == "float32" else torch.autocast(torch.device(device).type, torch.bfloat16):
            return loss_of(*draw_batch(number, **size))

    def loss(number: int) -> dict[str, Any]:
        module.eval()
        with torch.no_grad():
            return {"loss": float(forward(number))}

    def step(number: int) -> dict[str, Any]:
        module.train()
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        found = forward(number)
        found.backward()
        torch.nn.utils.clip_grad_norm_(trained, _CLIP)
        optimizer.step()
        finish(device)
        return {"seconds": time.perf_counter() - start, "loss": float(found.detach())}

    facts = {
        "loaded_bytes": start_memory(device),
        "trained_parameters": sum(parameter.numel() for parameter in trained),
    }
    return facts, {"loss": loss, "step": step, "peak": lambda: {"peak_bytes": device_memory_peak(device)}}


def _start_adapter(module: nn.Module) -> None:
    """Gives every system's adapter the same weights: by itself half of them would be 0, and a difference between systems would not show."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in module.named_parameters():  # in the order of the layers, whatever holds them
            if "lora_" in name:
                parameter.copy_(_SPREAD * torch.randn(parameter.shape, generator=generator))


if __name__ == "__main__":
    serve(lambda: open_system(**json.loads(sys.argv[1])))
