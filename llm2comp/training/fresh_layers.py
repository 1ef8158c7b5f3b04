"""A second start for small backbones: an encoder that keeps the token embeddings and begins with layers that average.

The layers of a small language model are a poor start for memory tokens: their output is nearly the same for every text, and
hundreds of updates go by before what a text says shows in it. Layers that begin as an average over all tokens hand the token
embeddings on from the first update. For models of billions of parameters nothing of the kind was measured; they keep their layers.
"""

import torch
from transformers import PreTrainedModel

from llm2comp.errors import SettingsError

__all__ = ["restart_layers"]

_QUIET = 0.3
"""Scale of the fresh output projections that do not average: the residual stream passes nearly unchanged."""


def restart_layers(language_model: PreTrainedModel, *, seed: int = 0) -> None:
    """Draws all layers anew; attention of the first and the last begins as a plain average over the tokens.

    Args:
        language_model: A causal language model of the Llama kind, changed in place; its embeddings stay.
        seed: Of the random weights.

    Raises:
        SettingsError: The model's layers are of another kind, or its heads share keys and values.
    """
    config = language_model.config
    layers = getattr(getattr(language_model, "model", None), "layers", None)
    if layers is None or not all(hasattr(layer.self_attn, "o_proj") and hasattr(layer.mlp, "down_proj") for layer in layers):
        raise SettingsError("restart_layers needs a backbone of the Llama kind, with self_attn.o_proj and mlp.down_proj in each layer; leave it out")
    square = (config.hidden_size, config.hidden_size)
    if any(layer.self_attn.v_proj.weight.shape != square or layer.self_attn.o_proj.weight.shape != square for layer in layers):
        raise SettingsError("restart_layers needs as many key and value heads as attention heads, hidden_size / heads wide; leave it out")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for number, layer in enumerate(layers):
            for parameter in layer.parameters():
                if parameter.ndim == 2:
                    drawn = torch.randn(parameter.shape, generator=generator) * config.initializer_range
                    parameter.copy_(drawn)
                else:
                    parameter.fill_(1.0)  # scales of the norms
            layer.mlp.down_proj.weight.mul_(_QUIET)
            if number in (0, len(layers) - 1):
                for projection in (layer.self_attn.v_proj, layer.self_attn.o_proj):
                    projection.weight.copy_(torch.eye(config.hidden_size))
            else:
                layer.self_attn.o_proj.weight.mul_(_QUIET)
        language_model.model.norm.weight.fill_(1.0)
