"""A SentenceTransformer that asks its encoder where it is and what it has, instead of walking over all weights."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense

from llm2comp.encoder import MemoryEncoder
from llm2comp.model_arguments import check_texts

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
    def whitening(self) -> Dense | None:
        """The module that maps embeddings, if the model has one: `llm2comp train whitening`."""
        return next((module for module in self if isinstance(module, Dense)), None)

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

    def encode_memory(
        self,
        texts: str | Sequence[str],
        *,
        prompt_name: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool = False,
    ) -> np.ndarray:
        """Memory states before pooling, float32: (k, dim) of one text, (texts, k, dim) of many.

        Args:
            texts: One text or several.
            prompt_name: `query` puts the query instruction before each.
            batch_size: Texts that are tokenised together.
            show_progress_bar: Whether to show progress on stderr.
        """
        checked = check_texts(texts)
        if not checked and isinstance(checked, list):
            return np.zeros((0, self.memory_tokens, self.encoder.get_embedding_dimension()), dtype=np.float32)
        options: dict[str, Any] = {"batch_size": batch_size, "show_progress_bar": show_progress_bar}
        texts = [checked] if isinstance(checked, str) else checked
        states = self.encode(texts, prompt_name=prompt_name, output_value="token_embeddings", **options)
        stacked: np.ndarray = torch.stack(list(states)).cpu().numpy()
        return stacked[0] if isinstance(checked, str) else stacked
