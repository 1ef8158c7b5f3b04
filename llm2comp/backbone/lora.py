"""LoRA adapters of a language model: added, loaded from a folder, and read as weights."""

from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.backbone.loading import quiet
from llm2comp.backbone.lora_layer import speed_up_adapter
from llm2comp.errors import BackboneError, one_line

__all__ = ["add_lora", "load_lora", "lora_weights", "weights_without_lora"]

_PAPER_LAYERS = ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_OTHER_NAMES = ("out_proj", "dense", "fc1", "fc2", "gate_up_proj")
"""Names that Phi, OPT and others have for layers of the paper's list."""


def add_lora(model: PreTrainedModel, settings: AdapterSettings) -> PeftModel:
    """The model wrapped with a new LoRA adapter in float32.

    Raises:
        BackboneError: If the model has no layers with the names of the settings.
    """
    layers = _linear_layers(model)
    targets = list(settings.targets) if settings.targets else _default_targets(layers)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets,
        fan_in_fan_out=Conv1D in layers.values(),
        task_type="CAUSAL_LM",
    )
    try:
        return _wrap(model, config)
    except ValueError as error:
        raise BackboneError(
            f"no adapter on {targets}: {one_line(error)}; the model's linear layers are {', '.join(sorted(layers))}"
        ) from error


def load_lora(model: PreTrainedModel, folder: Path) -> PeftModel:
    """The model wrapped with the LoRA adapter saved in a folder. Only safetensors are read.

    Raises:
        BackboneError: If the folder holds no LoRA adapter, or one of another language model.
    """
    name = type(model).__name__
    try:
        config = PeftConfig.from_pretrained(str(folder))
        weights = load_file(folder / "adapter_model.safetensors")
        wrapped = _wrap(model, _without_origin(config))
    except Exception as error:  # JSON, safetensors and PEFT each raise kinds of their own
        raise BackboneError(
            f"cannot load the adapter in {folder} onto the backbone {name}: {one_line(error)}; copy the model "
            "folder again"
        ) from error
    expected = {key: weight.shape for key, weight in lora_weights(wrapped).items()}
    shapes = {key: weight.shape for key, weight in weights.items()}
    differing = sorted(key for key in expected.keys() | shapes.keys() if expected.get(key) != shapes.get(key))
    if differing:
        raise BackboneError(
            f"the adapter in {folder} was made for another backbone than this {name}: they differ in "
            f"{len(differing)} of {len(expected)} weights, "
            f"first in {differing[0]}; give the backbone it was trained on"
        )
    set_peft_model_state_dict(wrapped, weights)
    return wrapped


def weights_without_lora(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights of a language model by its own names, without the adapter in its layers."""
    state = model.state_dict()
    return {name.replace(".base_layer.", "."): tensor for name, tensor in state.items() if ".lora_" not in name}


def lora_weights(model: PeftModel) -> dict[str, Tensor]:
    """The adapter's weights by PEFT's names."""
    weights: dict[str, Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return weights


def _linear_layers(model: PreTrainedModel) -> dict[str, type[nn.Module]]:
    """Classes of the linear layers by the last part of their names."""
    modules = model.named_modules()
    return {name.rpartition(".")[2]: type(layer) for name, layer in modules if isinstance(layer, (nn.Linear, Conv1D))}


def _default_targets(layers: dict[str, Any]) -> list[str] | str:
    """The paper's layers where the model has them, else every linear layer."""
    if not {"q_proj", "v_proj"} <= layers.keys():
        return "all-linear"
    return [name for name in (*_PAPER_LAYERS, *_OTHER_NAMES) if name in layers]


def _without_origin(config: PeftConfig) -> LoraConfig:
    """The saved configuration, ready for training, without the places it names on another machine.

    Raises:
        TypeError: If it is no LoRA configuration.
    """
    if not isinstance(config, LoraConfig):
        raise TypeError(f"it is of kind {config.peft_type}, and this package reads LoRA")
    config.inference_mode = False
    config.init_lora_weights = True
    config.megatron_config = None
    config.base_model_name_or_path = None
    return config


def _wrap(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    with quiet():
        wrapped = get_peft_model(model, config)
    speed_up_adapter(wrapped)
    wrapped.eval()
    assert isinstance(wrapped, PeftModel)
    return wrapped
