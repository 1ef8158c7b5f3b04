"""Gradient checkpoints: activations of an encoder and its frozen reader are computed again in the backward pass."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from transformers import PreTrainedModel

__all__ = ["checkpoint_layers"]


def checkpoint_layers(
    encoder: PreTrainedModel,
    frozen: Iterable[PreTrainedModel],
    contexts: Callable[[], tuple[AbstractContextManager[None], AbstractContextManager[None]]],
) -> None:
    """Has each layer keep its input only; afterwards the frozen models are in training mode, which this needs.

    Args:
        encoder: The language model that encodes.
        frozen: Those that read and teach, without dropout, so that training mode changes nothing else of them.
        contexts: Context managers of a layer's forward pass, and of its repetition.
    """
    models = list(frozen)
    for model in (encoder, *models):
        enable = (
            getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        )  # its older name
        enable({"use_reentrant": False, "context_fn": contexts})
        model.disable_input_require_grads()  # only reentrant checkpoints need it
    for model in models:
        model.train()  # transformers checkpoints in training mode only
