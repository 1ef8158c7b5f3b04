"""An encoder before training: a causal language model, memory tokens that no training has changed, a new adapter."""

from typing import Literal

import torch
from torch import Tensor

from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.backbone.backbone import Backbone
from llm2comp.backbone.loading import Source, load_tokenizer
from llm2comp.encoder import MemoryEncoder

__all__ = ["untrained_encoder"]


def untrained_encoder(
    source: Source,
    memory_tokens: int,
    *,
    adapter: AdapterSettings | None,
    max_length: int,
    layers: int | None,
    dtype: torch.dtype,
    attention: Literal["auto", "packed", "padded"],
    trust_remote_code: bool,
) -> MemoryEncoder:
    """The encoder around the language model of a source; arguments and errors as `LLM2Comp.from_backbone`."""
    backbone = Backbone.from_source(
        source, dtype=dtype, attention=attention, layers=layers, trust_remote_code=trust_remote_code
    )
    tokenizer = load_tokenizer(source, trust_remote_code=trust_remote_code)
    if adapter is None:
        backbone.forget_origin()  # all weights will be trained
    else:
        backbone.language_model.requires_grad_(False)
        backbone.add_adapter(adapter)
    return MemoryEncoder(backbone, tokenizer, _initial_memory(backbone, memory_tokens), max_length=max_length)


def _initial_memory(backbone: Backbone, memory_tokens: int) -> Tensor:
    """Memory tokens before training, (k, hidden): the mean input embedding plus noise.

    The noise, a tenth of the embeddings' standard deviation, tells the tokens apart.
    """
    with torch.no_grad():
        embeddings = backbone.embed(torch.arange(backbone.vocabulary_size)).float()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(memory_tokens, embeddings.shape[1], generator=generator)
    return embeddings.mean(0) + 0.1 * embeddings.std(0) * noise
