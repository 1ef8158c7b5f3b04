"""A language model as transformers runs it, for text generation with its cache, on the weights of another one."""

from copy import deepcopy

from accelerate import init_empty_weights
from transformers import AutoModelForCausalLM, PreTrainedModel

from llm2comp.errors import BackboneError, one_line

__all__ = ["share_weights"]


def share_weights(model: PreTrainedModel) -> PreTrainedModel:
    """A second model of the same class that shares all weights with this one, without its adapter.

    It has attention of its own, the one that transformers chooses for it: packed attention keeps no cache. No weight is
    copied, so it takes no memory.

    Args:
        model: A language model, with or without adapter layers.

    Raises:
        BackboneError: If transformers cannot make the model from its configuration.
    """
    weights = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in model.state_dict(keep_vars=True).items()
        if ".lora_" not in name
    }
    config = deepcopy(model.config)
    config._attn_implementation = None
    try:
        with init_empty_weights(include_buffers=False):
            shared = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
        shared.load_state_dict(weights, assign=True)
    except Exception as error:  # whatever classes of other libraries raise
        raise BackboneError(
            f"{type(model).__name__} cannot generate text on shared weights: {one_line(error)}"
        ) from error
    assert isinstance(shared, PreTrainedModel)
    shared.tie_weights()
    shared.to(model.device)  # type: ignore[arg-type]  # only buffers move, such as the frequencies of rotary positions
    shared.requires_grad_(False)
    shared.eval()
    return shared
