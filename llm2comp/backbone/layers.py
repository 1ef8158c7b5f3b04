"""The first layers of a language model as a model of their own, which shares its modules with the whole one.

Final norm, embeddings and head are the whole model's. An adapter or a change of a shared weight is therefore seen by
both, and the layers that only the whole model has are no part of the shorter model's weights.
"""

from copy import copy, deepcopy
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from llm2comp.errors import BackboneError, SettingsError

__all__ = ["check_layers", "first_layers"]


def check_layers(model: PreTrainedModel, count: int) -> None:
    """Checks that a model has at least this many layers.

    Raises:
        SettingsError: If it has fewer, or the number is below 1.
        BackboneError: If the model does not keep its layers in one list.
    """
    total = len(_layer_list(model)[1])
    if not 1 <= count <= total:
        raise SettingsError(f"layers is {count}; {type(model).__name__} has {total}: give 1 to {total}")


def first_layers(model: PreTrainedModel, count: int) -> PreTrainedModel:
    """The model with its first `count` layers only, followed by the final norm.

    All modules are shared with the given model, except those that contain the list of layers. The configurations are
    copies, of which that of the model names `count` layers. The weights of the given model's later layers are frozen.

    Raises:
        SettingsError, BackboneError: As `check_layers`.
    """
    check_layers(model, count)
    path, layers = _layer_list(model)
    configs: dict[int, Any] = {}  # deepcopy's memory: parts of the configuration that modules share stay shared
    shorter = top = _shallow_copy(model, configs)
    for name in path[:-1]:
        inner = _shallow_copy(getattr(top, name), configs)
        top._modules[name] = inner
        top = inner
    top._modules[path[-1]] = layers[:count]
    _shorten(shorter.config, len(layers), count)
    for layer in layers[count:]:
        layer.requires_grad_(False)
    assert isinstance(shorter, PreTrainedModel)
    return shorter


def _layer_list(model: PreTrainedModel) -> tuple[list[str], nn.ModuleList]:
    """Names from the model to its list of layers, and the list."""
    total = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", None)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == total:
            return name.split("."), module
    raise BackboneError(f"{type(model).__name__} does not keep its layers in one list: leave `layers` out")


def _shallow_copy(module: Any, configs: dict[int, Any]) -> Any:
    """The module with the same parameters and submodules, whose submodules can be replaced."""
    twin = copy(module)
    twin._modules = dict(module._modules)
    for name in {"config", "generation_config"} & vars(module).keys():
        setattr(twin, name, deepcopy(vars(module)[name], configs))
    return twin


def _shorten(config: Any, total: int, count: int) -> None:
    """Sets the number of layers, and cuts settings that have one entry per layer."""
    text = config.get_text_config(decoder=True)
    for name, value in list(vars(text).items()):
        is_per_layer = isinstance(value, list) and len(value) == total and ("layer" in name or "block" in name)
        if is_per_layer:
            setattr(text, name, value[:count])
    text.num_hidden_layers = count
