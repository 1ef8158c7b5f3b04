"""The training pass of a LoRA layer on CPUs, its products and its dropout as one autograd function.

PEFT's layers draw dropout number by number, and keep the dropped input, the mask in float32 and each product of every
layer for the backward pass. Here the mask is drawn in bulk, 16 bits per number, and is all ones or all zeros, so that
dropout is an AND of bits; the backward pass drops the input again, and the adapter's product is added in place to the
frozen one. Source of the method: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.
"""

from typing import Any

import numpy as np
import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["AdaptedLinear", "speed_up_adapter"]

_DRAWS = 2**16
"""Number of values of 16 random bits."""

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integer type by size in bytes."""


def speed_up_adapter(model: nn.Module) -> None:
    """Gives PEFT's linear layers the training pass of this module; everything else stays PEFT's."""
    for layer in model.modules():
        if type(layer) is Linear and type(layer.get_base_layer()) is nn.Linear:
            layer.__class__ = AdaptedLinear


class AdaptedLinear(Linear):
    """PEFT's LoRA layer, with a faster training pass for plain LoRA on a CPU."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(…, inputs) -> (…, outputs)."""
        base, name = self.get_base_layer(), self.active_adapters[0]
        plain = (
            self.training and x.device.type == "cpu" and not (args or kwargs or self.disable_adapters or self.merged)
        )
        if (
            not plain
            or self.active_adapters != [*self.lora_A]
            or name in self.lora_variant
            or self.lora_B[name].bias is not None
        ):
            return super().forward(x, *args, **kwargs)
        weights = [x, base.weight, base.bias, self.lora_A[name].weight, self.lora_B[name].weight]
        if torch.is_autocast_enabled("cpu"):
            weights = [weight if weight is None else weight.to(torch.get_autocast_dtype("cpu")) for weight in weights]
        elif len({weight.dtype for weight in weights if weight is not None}) > 1:
            return super().forward(x)
        share = getattr(self.lora_dropout[name], "p", 0.0)
        with torch.autocast("cpu", enabled=False):
            mask = _mask(x.shape, share) if share else None
            result: Tensor = _Adapted.apply(*weights, mask, self.scaling[name] / (1 - share))  # type: ignore[no-untyped-call]
        return result


def _mask(shape: torch.Size, share: float) -> Tensor:
    """Dropout mask, int8: all bits set for the numbers kept, none for the others.

    The share of numbers dropped is exact to 1 / 131,072.
    """
    count = shape.numel()
    # PyTorch's own generator takes three times as long as SFC64, which it seeds
    bits = np.random.SFC64(int(torch.randint(2**63 - 1, ()))).random_raw((count + 3) // 4)
    draws = torch.from_numpy(bits.view(np.int16))[:count]
    kept = torch.empty(count, dtype=torch.int8)
    return torch.ge(draws, round(share * _DRAWS) - _DRAWS // 2, out=kept).neg_().view(shape)


class _Adapted(torch.autograd.Function):
    """x W' + bias + scale (mask x) A' B', where W and the bias are frozen."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        mask: Tensor | None,
        scale: float,
    ) -> Tensor:
        result = functional.linear(x, weight, bias)
        narrow = _dropped(x, mask).flatten(0, -2).mm(down.T).mul_(scale)  # (rows, rank)
        result.flatten(0, -2).addmm_(narrow, up.T)
        ctx.save_for_backward(x, weight, down, up, mask, narrow)
        ctx.scale = scale
        return result

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, down, up, mask, narrow = ctx.saved_tensors
        slope = outputs[0].flatten(0, -2)
        of_narrow = slope.mm(up).mul_(ctx.scale)
        of_down = of_narrow.T.mm(_dropped(x, mask).flatten(0, -2))
        of_up = slope.T.mm(narrow)
        of_x = slope.mm(weight).view_as(x).add_(_dropped(of_narrow.mm(down).view_as(x), mask))
        return of_x, None, None, of_down, of_up, None, None


def _dropped(x: Tensor, mask: Tensor | None) -> Tensor:
    """The numbers that the mask keeps, and 0 for the others."""
    if mask is None:
        return x
    bits = _BITS[x.element_size()]
    return (x.view(bits) & mask.to(bits)).view(x.dtype)
