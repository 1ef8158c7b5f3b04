"""Linear layers on CPUs whose weights are copied to oneDNN's own layout, with what follows a product fused in.

PyTorch's own linear layer copies its weights to that layout piece by piece in every product. For a short query that is
a third of the product, for a large batch a twentieth. The operations are those that `torch.compile` uses on CPUs.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Projection", "packed_bytes", "project_with"]

_OPERATIONS = ("_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported")


class Projection(Protocol):
    """The outputs of linear layers side by side, (rows, in) -> (rows, out), and what may follow them."""

    def __call__(self, states: Tensor) -> Tensor:
        """The output."""

    def swish(self, states: Tensor) -> Tensor:
        """The output through SiLU."""

    def times(self, states: Tensor, factor: Tensor) -> Tensor:
        """The output times another tensor, (rows, out)."""

    def plus(self, states: Tensor, term: Tensor) -> Tensor:
        """The output plus another tensor, (rows, out)."""


def project_with(*modules: nn.Module, pack: bool) -> Projection:
    """The projection by linear layers or modules in their place, such as layers with an adapter.

    Args:
        modules: Of equal inputs.
        pack: Copy the weights, where that is possible; later changes of them are then not seen.
    """
    if pack and _can_be_packed(modules):
        return _PackedLinear(modules)
    return _CalledModules(modules)


def packed_bytes(modules: Sequence[nn.Module]) -> int:
    """Memory that packing would take."""
    return sum(
        module.weight.nbytes for module in modules if isinstance(module, nn.Linear) and _can_be_packed((module,))
    )


@cache
def _has_operations() -> bool:
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in _OPERATIONS)


def _can_be_packed(modules: Sequence[nn.Module]) -> bool:
    """Whether all are plain linear layers of one precision that oneDNN computes in, all or none with a bias."""
    if not _has_operations() or not all(type(module) is nn.Linear for module in modules):
        return False
    weights: list[Any] = [module.weight for module in modules]
    [dtype, *others] = {weight.dtype for weight in weights}
    is_fit = dtype == torch.float32 or (dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))
    on_cpu = all(weight.device.type == "cpu" for weight in weights)
    return is_fit and not others and on_cpu and len({module.bias is None for module in modules}) == 1


class _CalledModules:
    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = tuple(modules)

    def __call__(self, states: Tensor) -> Tensor:
        outputs: list[Tensor] = [module(states) for module in self._modules]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)

    def swish(self, states: Tensor) -> Tensor:
        return functional.silu(self(states))

    def times(self, states: Tensor, factor: Tensor) -> Tensor:
        return self(states) * factor

    def plus(self, states: Tensor, term: Tensor) -> Tensor:
        return self(states) + term


class _PackedLinear:
    def __init__(self, modules: Sequence[nn.Module]) -> None:
        layers: list[Any] = list(modules)
        weight = torch.cat([layer.weight.detach() for layer in layers])
        self._weight: Any = torch.ops.mkldnn._reorder_linear_weight(weight)
        self._bias = None if layers[0].bias is None else torch.cat([layer.bias.detach() for layer in layers])

    def __call__(self, states: Tensor) -> Tensor:
        return self._unary(states, "none")

    def swish(self, states: Tensor) -> Tensor:
        return self._unary(states, "swish")

    def times(self, states: Tensor, factor: Tensor) -> Tensor:
        return self._binary(states, factor, "mul")

    def plus(self, states: Tensor, term: Tensor) -> Tensor:
        return self._binary(states, term, "add")

    def _unary(self, states: Tensor, name: str) -> Tensor:
        output: Tensor = torch.ops.mkldnn._linear_pointwise(states, self._weight, self._bias, name, [], "")
        return output

    def _binary(self, states: Tensor, other: Tensor, name: str) -> Tensor:
        output: Tensor = torch.ops.mkldnn._linear_pointwise.binary(states, other, self._weight, self._bias, name)
        return output
