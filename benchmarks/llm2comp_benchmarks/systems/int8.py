"""A model whose layers multiply as int8 instructions would, to measure what the rounding costs in quality."""

from typing import Any

import torch
from torch import Tensor, nn

import llm2comp
from llm2comp.backbone.forward import decoder

__all__ = ["load_int8", "rounded_to_int8"]

_LARGEST = 127


def load_int8(name: str) -> "llm2comp.LLM2Comp":
    """A model of this package on the CPU with every product of its layers in int8.

    Weights have a scale per output channel, inputs one per token: the finest scales with which sums stay in int32, and
    none that depends on other texts of a batch. The products of the rounded numbers are computed in float32, exactly
    enough to stand for int8 instructions; this is a measure of quality, and no faster.

    Args:
        name: Name of a bundled model, or folder or Hub id of a model of this package.

    Raises:
        LLM2CompError: It cannot be loaded.
    """
    model = llm2comp.load(name, device="cpu", dtype="float32")
    model.encoder.backbone.merge_adapter()
    for module in decoder(model.encoder.backbone.language_model).modules():
        if isinstance(module, nn.Linear):
            module.weight.data = rounded_to_int8(module.weight.data)
            module.register_forward_pre_hook(_round_inputs)
    model.system = "int8"  # type: ignore[assignment]
    return model


def rounded_to_int8(rows: Tensor) -> Tensor:
    """Rows of numbers, each rounded to 255 equal steps between its largest magnitude and the negative of it."""
    scales = rows.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny) / _LARGEST
    return (rows / scales).round_().clamp_(-_LARGEST, _LARGEST) * scales


def _round_inputs(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return rounded_to_int8(inputs[0]), *inputs[1:]
