"""Whether the modules and weights of a model are those that something was prepared from."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from llm2comp.backbone.forward import decoder
from llm2comp.backbone.last_layer import LAST_LAYER_HOOKS

__all__ = ["WeightState", "is_hooked"]

_SAMPLED_NUMBERS = 4
"""Numbers of a weight that are compared to find changes."""


class WeightState:
    """Modules and weights of a model's decoder at one time.

    Attributes:
        modules: All modules, the decoder first.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.modules = list(decoder(model).modules())
        self._state = _state(self.modules)
        self._samples = [_sample(weight) for module in self.modules for weight in module.parameters(recurse=False)]
        self._numbers = [sample.tobytes() for sample in self._samples]

    def is_current(self, model: PreTrainedModel) -> bool:
        """Whether the model's modules and weights are still those.

        PyTorch does not count changes by a fused optimizer or through `Tensor.data`; so some numbers are compared too.
        """
        return (
            decoder(model) is self.modules[0]
            and _state(self.modules) == self._state
            and [sample.tobytes() for sample in self._samples] == self._numbers
        )

    def is_hooked(self) -> bool:
        """Whether others have set hooks or replaced a module's `forward`, which prepared passes may not call."""
        return is_hooked(self.modules)


def is_hooked(modules: Sequence[nn.Module]) -> bool:
    """Whether others have set hooks on modules, or replaced the `forward` of one."""
    return any("forward" in module.__dict__ for module in modules) or any(
        hook not in LAST_LAYER_HOOKS
        for module in modules
        if module._forward_hooks or module._forward_pre_hooks
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    )


def _state(modules: Sequence[nn.Module]) -> list[Any]:
    """Values that differ once modules or weights are replaced or changed, as far as PyTorch counts changes."""
    state: list[Any] = []
    for module in modules:
        if isinstance(module, BaseTunerLayer):  # an adapter, which may be switched off or scaled
            state += (module._disable_adapters, list(module.active_adapters), dict(getattr(module, "scaling", {})))
        state += map(id, module._modules.values())
        for weight in module._parameters.values():
            if weight is not None:
                state += (id(weight), weight.data_ptr(), 0 if weight.is_inference() else weight._version)
    return state


def _sample(weight: Tensor) -> NDArray[np.int8]:
    """The bytes of some numbers of a weight; a view, which shows changes."""
    numbers = weight.detach().flatten()[:: max(1, weight.numel() // _SAMPLED_NUMBERS)]
    view: NDArray[np.int8] = numbers[:, None].view(torch.int8).numpy()
    return view
