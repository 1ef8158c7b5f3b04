"""A SentenceTransformer that asks its encoder where it is and what it has, instead of walking over all weights."""

from typing import Self

import torch
from sentence_transformers import SentenceTransformer

from llm2comp.encoder import MemoryEncoder

__all__ = ["EncoderModel"]


class EncoderModel(SentenceTransformer):
    """A SentenceTransformer whose first module is a MemoryEncoder."""

    @property
    def encoder(self) -> MemoryEncoder:
        """The module that computes memory states."""
        encoder = self[0]
        assert isinstance(encoder, MemoryEncoder)
        return encoder

    @property
    def memory_tokens(self) -> int:
        """k, the memory tokens of a text."""
        return self.encoder.memory_tokens

    @property
    def device(self) -> torch.device:
        """Where the model is; SentenceTransformer, which asks dozens of times for each text, would walk all modules."""
        return self.encoder.memory.device

    def eval(self) -> Self:
        """Leaves training mode; at once if no module is in it, because SentenceTransformer asks before every text."""
        return super().eval() if any(module.training for module in self.modules()) else self

    def _resolve_inference_device(self, device: int | str | torch.device | None) -> torch.device:
        """SentenceTransformer's choice, without a look at every weight where the model stays where it is."""
        if device is None and not self._placement_is_delegated:
            return self.device
        return super()._resolve_inference_device(device)
