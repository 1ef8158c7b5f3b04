"""The training pass of a LoRA layer on CPUs: the frozen product, the adapter's two and its dropout as one step of autograd.

PEFT's layers draw dropout number by number, and keep of every layer the dropped input, the mask in float32 and each
product for the backward pass. Here the mask is 16 bits per number, drawn at once and then all ones or all zeros, so
that dropping is an AND of bits; the input is dropped anew in the backward pass, and the adapter's product is added
where the frozen one stands. Source of the method: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR
2022.
"""

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["AdaptedLinear", "speed_up_adapter"]

_DRAWS = 2**16
"""Values of 16 random bits."""

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers of a number's size in bytes."""


def speed_up_adapter(model: nn.Module) -> None:
    """Gives PEFT's linear layers the training pass of this module; whatever else they do stays PEFT's."""
    for layer in model.modules():
        if type(layer) is Linear and type(layer.get_base_layer()) is nn.Linear:
            layer.__class__ = AdaptedLinear


class AdaptedLinear(Linear):
    """PEFT's layer, with a training pass of its own where it is a plain LoRA on a CPU."""

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
            kept = _kept(x.shape, share) if share else None
            result: Tensor = _Adapted.apply(*weights, kept, self.scaling[name] / (1 - share))  # type: ignore[no-untyped-call]
        return result


def _kept(shape: torch.Size, share: float) -> Tensor:
    """All bits of each number that is kept, and none of the others, int16; drops this share to within 1 / 131,072."""
    count = shape.numel()
    draws = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:count]
    return torch.ge(draws, round(share * _DRAWS) - _DRAWS // 2, out=draws).neg_().view(shape)


class _Adapted(torch.autograd.Function):
    """x W' + bias + scale (kept x) A' B', where W and the bias are frozen."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        kept: Tensor | None,
        scale: float,
    ) -> Tensor:
        result = functional.linear(x, weight, bias)
        narrow = _dropped(x, kept).flatten(0, -2).mm(down.T).mul_(scale)  # (rows, rank)
        result.flatten(0, -2).addmm_(narrow, up.T)
        ctx.save_for_backward(x, weight, down, up, kept, narrow)
        ctx.scale = scale
        return result

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, down, up, kept, narrow = ctx.saved_tensors
        slope = outputs[0].flatten(0, -2)
        of_narrow = slope.mm(up).mul_(ctx.scale)
        of_down = of_narrow.T.mm(_dropped(x, kept).flatten(0, -2))
        of_up = slope.T.mm(narrow)
        of_x = slope.mm(weight).view_as(x).add_(_dropped(of_narrow.mm(down).view_as(x), kept))
        return of_x, None, None, of_down, of_up, None, None


def _dropped(x: Tensor, kept: Tensor | None) -> Tensor:
    """The numbers that are kept, and 0 for the others."""
    if kept is None:
        return x
    bits = _BITS[x.element_size()]
    return (x.view(bits) & kept.to(bits)).view(x.dtype)
