"""The systems of a training benchmark, each in a process of its own, on the same weights and tokens.

They are ours and `plain transformers`; see `plain.PlainTransformers`.
"""

import json
import random
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from llm2comp import keep_freed_memory
from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.backbone.backbone import Backbone
from llm2comp.encoder import MemoryEncoder
from llm2comp.training.compression import compression_loss
from llm2comp_benchmarks.cost.devices import device_memory_peak, finish, start_memory
from llm2comp_benchmarks.cost.processes import Job
from llm2comp_benchmarks.cost.shapes import Shape, random_llama
from llm2comp_benchmarks.cost.train.plain import PlainTransformers
from llm2comp_benchmarks.cost.worker import serve

__all__ = ["SYSTEMS", "draw_batch", "open_system"]

_MEMORY_TOKENS = 8
_MARGIN = 10  # least tokens of a context and of a continuation, as in stage 1
_DROPOUT = 0.05
_CLIP = 2.0
_SPREAD = 0.02  # of weights that start at random

Loss = Callable[[list[list[int]], list[list[int]]], Tensor]


def draw_batch(number: int, *, vocabulary: int, texts: int, tokens: int) -> tuple[list[list[int]], list[list[int]]]:
    """Contexts and continuations of random tokens, split at random as in stage 1; the same for the same number.

    A context and its continuation have `tokens` tokens together.
    """
    chance = random.Random(number)
    contexts, continuations = [], []
    for _ in range(texts):
        text = [1, *(chance.randrange(3, vocabulary) for _ in range(tokens - 1))]
        cut = chance.randint(_MARGIN, tokens - _MARGIN)
        contexts.append(text[:cut])
        continuations.append(text[cut:])
    return contexts, continuations


def _memory(shape: Shape) -> Tensor:
    return _SPREAD * torch.randn(_MEMORY_TOKENS, shape.hidden, generator=torch.Generator().manual_seed(1))


def _open_ours(shape: Shape, vocabulary: int, longest: int, seed: int, precision: str) -> tuple[nn.Module, Loss]:
    """As in `llm2comp train`: with bfloat16 the frozen weights have that precision, trained ones stay in float32."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    keep_freed_memory()
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>"))
    backbone = Backbone(random_llama(shape, vocabulary, seed).to(getattr(torch, precision)))
    backbone.language_model.requires_grad_(False)
    backbone.add_adapter(AdapterSettings(dropout=_DROPOUT))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>")
    encoder = MemoryEncoder(backbone, tokenizer, _memory(shape), max_length=longest + _MEMORY_TOKENS)
    return encoder, lambda contexts, continuations: compression_loss(encoder, contexts, continuations, "distillation")


def _open_plain(shape: Shape, vocabulary: int, longest: int, seed: int, precision: str) -> tuple[nn.Module, Loss]:
    plain = PlainTransformers(
        random_llama(shape, vocabulary, seed),
        random_llama(shape, vocabulary, seed),
        _memory(shape),
        dropout=_DROPOUT,
    )
    return plain, plain


SYSTEMS: dict[str, Callable[[Shape, int, int, int, str], tuple[nn.Module, Loss]]] = {
    "llm2comp": _open_ours,
    "plain transformers": _open_plain,
}
"""Makes the module to be trained and its loss, by name of the system."""


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
    """Facts about a system, and its jobs: `loss` without dropout, `step`, `peak`.

    Both systems take the same steps: loss, gradient, clipping to 2, AdamW. In bfloat16 the loss is computed under
    autocast, as the trainer does. On a GPU memory is the GPU's.

    Args:
        system: A name in `SYSTEMS`.
        shape: Of the language model; see `Shape.parse`.
        vocabulary: Its tokens.
        texts: In a batch.
        tokens: Of a text, context and continuation together.
        precision: float32 or bfloat16.
        seed: Of the weights.
        device: `cpu`, or a GPU's name.
        checkpointing: Whether our system recomputes activations in the backward pass.
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
        batch_loss = forward(number)
        batch_loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, _CLIP)
        optimizer.step()
        finish(device)
        return {"seconds": time.perf_counter() - start, "loss": float(batch_loss.detach())}

    facts = {
        "loaded_bytes": start_memory(device),
        "trained_parameters": sum(parameter.numel() for parameter in trained),
    }
    return facts, {"loss": loss, "step": step, "peak": lambda: {"peak_bytes": device_memory_peak(device)}}


def _start_adapter(module: nn.Module) -> None:
    """Gives the adapter of every system the same weights.

    A fresh adapter has zeros in half of its matrices, which would hide differences between systems.
    """
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in module.named_parameters():  # in the order of the layers, whatever holds them
            if "lora_" in name:
                parameter.copy_(_SPREAD * torch.randn(parameter.shape, generator=generator))


if __name__ == "__main__":
    serve(lambda: open_system(**json.loads(sys.argv[1])))
