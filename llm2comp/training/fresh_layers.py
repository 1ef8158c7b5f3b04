"""A second start for small backbones: an encoder that keeps the token embeddings and begins with layers that average.

The layers of a small language model are a poor start for memory tokens: their output is nearly the same for every text,
and hundreds of updates go by before what a text says shows in it. Layers that begin as an average over all tokens hand
the token embeddings on from the first update. For models of billions of parameters nothing of the kind was measured;
they keep their layers.
"""

import torch
from transformers import PreTrainedModel

from llm2comp.errors import SettingsError

__all__ = ["restart_layers"]

_SPREAD = 0.02
"""Standard deviation of fresh weights: queries and keys are then so small that attention is nearly even."""
_QUIET = 0.3
"""Scale of the fresh output projections that do not average: the residual stream passes nearly unchanged."""


def restart_layers(language_model: PreTrainedModel, *, seed: int = 0) -> None:
    """Draws all layers anew; attention of the first and the last begins as a plain average over the tokens.

    Args:
        language_model: A Llama, changed in place; its token embeddings and its output layer stay.
        seed: Of the random weights.

    Raises:
        SettingsError: The model is no Llama, or its heads share keys and values.
    """
    config = language_model.config
    if config.model_type != "llama":
        raise SettingsError(
            f"restart_layers needs a backbone of type llama, such as stage 0 makes, not {config.model_type}; leave it "
            "out"
        )
    if (
        config.num_key_value_heads != config.num_attention_heads
        or config.head_dim * config.num_attention_heads != config.hidden_size
    ):
        raise SettingsError(
            "restart_layers needs as many key and value heads as attention heads, hidden_size / heads wide; leave it "
            "out"
        )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for number, layer in enumerate(language_model.model.layers):
            for name, parameter in layer.named_parameters():
                if parameter.ndim == 2:
                    parameter.copy_(_SPREAD * torch.randn(parameter.shape, generator=generator))
                else:
                    parameter.fill_(0.0 if name.endswith("bias") else 1.0)  # biases; scales of the norms
            layer.mlp.down_proj.weight.mul_(_QUIET)
            if number in (0, config.num_hidden_layers - 1):
                for projection in (layer.self_attn.v_proj, layer.self_attn.o_proj):
                    projection.weight.copy_(torch.eye(config.hidden_size))
            else:
                layer.self_attn.o_proj.weight.mul_(_QUIET)
        language_model.model.norm.weight.fill_(1.0)
