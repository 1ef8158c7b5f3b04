"""What engines run: the plain export of a model as one graph, from token ids to vectors, on padded batches.

The graph is that of sentence-transformers' own modules. Texts are sorted by length, longest first, so that a batch has
little padding and none of the long ones comes last.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["Batch", "Batches", "PlainEncoder", "query_prompt"]

_TOKENS = 1024  # of a batch for each thread, padding included: more leave the cache, measured with OpenVINO


class PlainEncoder(nn.Module):
    """A plain export as a module that can be traced: (batch, tokens) ids and mask to (batch, dim) vectors."""

    def __init__(self, folder: Path, attention: str | None = None) -> None:
        """Loads the export.

        Args:
            folder: The plain export.
            attention: `eager` for attention as products and a softmax, `sdpa` for one operation; None: as exported.
        """
        super().__init__()
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        transformer: Any = model[0]
        self.backbone: Any = transformer.auto_model.eval()
        if attention is not None:
            self.backbone.set_attn_implementation(attention)
        self.pooling: Any = nn.ModuleList(list(model)[1:])

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Vectors of a padded batch.

        What is added to the attention's scores has four dimensions, (batch, 1, 1, tokens): transformers takes it as it
        is, while the code that makes it of a mask of two dimensions cannot be traced.
        """
        added = (1.0 - attention_mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
        states = self.backbone(input_ids=input_ids, attention_mask=added, use_cache=False).last_hidden_state
        features = {"input_ids": input_ids, "attention_mask": attention_mask, "token_embeddings": states}
        for module in self.pooling:
            features = module(features)
        vectors: Tensor = features["sentence_embedding"]
        return vectors

    @staticmethod
    def example() -> tuple[Tensor, Tensor]:
        """Inputs to trace with: two rows, one of them padded."""
        return torch.tensor([[1, 2, 3, 4], [1, 2, 3, 3]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


class Batch(NamedTuple):
    """Rows of a padded batch.

    Attributes:
        rows: Position of each text.
        input_ids: Token ids, (batch, tokens).
        attention_mask: 1 for tokens and 0 for padding, (batch, tokens).
    """

    rows: list[int]
    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]


class Batches:
    """Padded batches of texts, as the tokenizer of a plain export splits them.

    Attributes:
        tokens: Tokens of a batch, padding included; a longer text has a batch to itself.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        from transformers import AutoTokenizer

        self.tokens = _TOKENS * threads
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def __call__(self, texts: list[str]) -> Iterator[Batch]:
        """Batches of texts sorted by length, longest first."""
        ids = self._tokenizer(texts, truncation=True)["input_ids"]
        order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        while order:
            longest = len(ids[order[0]])
            size = max(1, self.tokens // longest)
            rows, order = order[:size], order[size:]
            mask = np.zeros((len(rows), longest), np.int64)
            padded = np.zeros_like(mask)
            for place, row in enumerate(rows):
                padded[place, : len(ids[row])] = ids[row]
                mask[place, : len(ids[row])] = 1
            yield Batch(rows, padded, mask)


def query_prompt(folder: Path) -> str:
    """The instruction that a plain export puts before queries; empty if it has none."""
    settings = json.loads((folder / "config_sentence_transformers.json").read_text(encoding="utf-8"))
    return settings["prompts"].get("query") or ""
