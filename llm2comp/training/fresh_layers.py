"""Fresh layers for small backbones: the encoder keeps the token embeddings; its new layers begin as averages.

The trained layers of a small language model are a poor start for memory tokens: the memory states are nearly the same
for every text, and it takes hundreds of updates until they depend on what a text says. Layers that begin as an average
over all tokens pass the token embeddings on from the first update. This was measured on small models only; models of
billions of parameters keep their layers.
"""

import torch
from transformers import PreTrainedModel

from llm2comp.backbone.backbone import Backbone
from llm2comp.errors import SettingsError

__all__ = ["restart_encoder", "restart_layers"]

_SPREAD = 0.02
"""Standard deviation of new weights: queries and keys are so small that attention is nearly uniform."""
_QUIET = 0.3
"""Factor of new output projections that do not average: the residual stream passes nearly unchanged."""


def restart_encoder(backbone: Backbone, *, seed: int = 0) -> None:
    """Replaces the layers of a backbone whose weights are all trained; see `restart_layers`.

    Raises:
        SettingsError: If the backbone has an adapter, or layers of another kind.
    """
    if backbone.has_adapter:
        raise SettingsError(
            "restart_layers needs a model without an adapter (adapter: null, --rank 0): an adapter is trained on the "
            "layers as they are"
        )
    restart_layers(backbone.language_model, seed=seed)


def restart_layers(language_model: PreTrainedModel, *, seed: int = 0) -> None:
    """Initializes all layers again; attention of the first and the last layer begins as an average over the tokens.

    Args:
        language_model: A Llama, changed in place; its token embeddings and its output layer stay.
        seed: Seed of the random weights.

    Raises:
        SettingsError: If the model is not a Llama, or its heads share keys and values.
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
                    parameter.fill_(0.0 if name.endswith("bias") else 1.0)  # biases, or scales of norms
            layer.mlp.down_proj.weight.mul_(_QUIET)
            if number in (0, config.num_hidden_layers - 1):
                for projection in (layer.self_attn.v_proj, layer.self_attn.o_proj):
                    projection.weight.copy_(torch.eye(config.hidden_size))
            else:
                layer.self_attn.o_proj.weight.mul_(_QUIET)
        language_model.model.norm.weight.fill_(1.0)
