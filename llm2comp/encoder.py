"""MemoryEncoder: texts in, the hidden states of their k memory tokens out; the first module of an LLM2Comp model."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.modules import InputModule
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from llm2comp.backbone import Backbone
from llm2comp.errors import BackboneError, SettingsError
from llm2comp.model_folder import read_encoder, write_encoder

__all__ = ["MemoryEncoder"]

_TOKENS_PER_PASS = 16_384
"""Tokens of one forward pass when no gradient is needed: enough to fill a processor, little enough to bound memory."""


class MemoryEncoder(InputModule):
    """Tokenizes, truncates, appends the memory tokens to each text, runs the backbone both ways, and gathers the memory states.

    Attributes:
        backbone: The language model.
        memory: Input vectors of the memory tokens, a parameter of shape (k, hidden).
        max_seq_length: Longest input in tokens, the beginning-of-sequence token and the memory tokens included; longer
            texts keep their beginning.
    """

    def __init__(self, backbone: Backbone, tokenizer: PreTrainedTokenizerBase, memory: Tensor, *, max_length: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.memory = nn.Parameter(memory)
        self.max_seq_length = max_length
        self._bos = _beginning(tokenizer, backbone)
        self.task_limits: dict[str, int] = {}
        self._truncated = threading.local()

    @property
    def memory_tokens(self) -> int:
        """k, the memory tokens of a text."""
        return len(self.memory)

    @property
    def max_seq_length(self) -> int:
        """Longest input in tokens, memory tokens included."""
        return self._max_length

    @max_seq_length.setter
    def max_seq_length(self, tokens: int) -> None:
        least = len(self.memory) + 2
        limit = getattr(self.backbone.language_model.config, "max_position_embeddings", None)
        if tokens < least or (limit is not None and tokens > limit):
            raise SettingsError(f"a maximum length of {tokens} tokens: give between {least} ({len(self.memory)} memory tokens and a text) and {limit}")
        self._max_length = tokens

    def get_embedding_dimension(self) -> int:
        """Dimension of a memory state."""
        return self.backbone.hidden_size

    def token_ids(self, texts: Sequence[str], limit: int | None = None) -> list[list[int]]:
        """Token ids of each text, beginning-of-sequence token first, cut to leave room for the memory tokens.

        Special-token strings inside a text are text. A limit, in tokens with memory tokens, lowers `max_seq_length`.
        """
        room = min(limit or self._max_length, self._max_length) - self.memory_tokens - 1
        ids: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, return_attention_mask=False, verbose=False)[
            "input_ids"
        ]
        self._truncated.count = self.pop_truncated() + sum(len(row) > room for row in ids)
        return [[self._bos, *row[:room]] for row in ids]

    def pop_truncated(self) -> int:
        """Texts cut short in this thread since the last call."""
        count: int = getattr(self._truncated, "count", 0)
        self._truncated.count = 0
        return count

    def preprocess(self, inputs: Sequence[str], prompt: str | None = None, task: str | None = None, **_: Any) -> dict[str, Tensor]:
        """Token ids and attention mask of the texts with the prompt before each, (texts, tokens), padded on the right.

        In training, `task` (query or document) chooses a limit of `task_limits`.

        Raises:
            TypeError: Naming the position of an input that is not a string.
        """
        for position, text in enumerate(inputs):
            if not isinstance(text, str):
                raise TypeError(f"input {position} of this batch is {type(text).__name__} {str(text)[:40]!r}; texts must be strings")
        ids = self.token_ids([(prompt or "") + text for text in inputs], self.task_limits.get(task or ""))
        width = max(map(len, ids))
        return {
            "input_ids": torch.tensor([row + [self._bos] * (width - len(row)) for row in ids]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids]),
        }

    def forward(self, features: dict[str, Tensor | Any], **_: Any) -> dict[str, Tensor | Any]:
        """Adds `token_embeddings` (texts, k, hidden) and an `attention_mask` of ones (texts, k)."""
        mask: Tensor = features["attention_mask"]
        tokens: Tensor = features["input_ids"]
        lengths: list[int] = mask.sum(1).tolist()
        parts, order = [], []
        for rows in self._passes(lengths):
            chosen, seen = tokens[rows], mask[rows].bool()
            parts.append(self.memory_states(chosen[seen], [lengths[row] for row in rows]))
            order += rows
        states = torch.cat(parts)[torch.tensor(order, device=tokens.device).argsort()]
        return {**features, "token_embeddings": states, "attention_mask": torch.ones(states.shape[:2], dtype=torch.long, device=states.device)}

    def memory_states(self, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
        """Memory states of texts laid end to end.

        Args:
            tokens: Token ids of all texts, (tokens,), without memory tokens.
            lengths: Tokens of each text.

        Returns:
            (texts, k, hidden), after the backbone's final norm.
        """
        k, texts = self.memory_tokens, len(lengths)
        sizes = torch.tensor(lengths, device=tokens.device)
        ends = (sizes + k).cumsum(0)
        memory_places = ends[:, None] - torch.arange(k, 0, -1, device=tokens.device)  # (texts, k)
        text_places = torch.arange(len(tokens), device=tokens.device) + k * torch.repeat_interleave(torch.arange(texts, device=tokens.device), sizes)
        embedded = self.backbone.embed(tokens)
        packed = embedded.new_empty(len(tokens) + k * texts, embedded.shape[1])
        packed = packed.index_copy(0, text_places, embedded)
        packed = packed.index_copy(0, memory_places.flatten(), self.memory.to(embedded.dtype).repeat(texts, 1))
        return self.backbone.encode(packed, [length + k for length in lengths])[memory_places]

    def _passes(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Rows in order of length, in one pass while gradients are needed, else at most so many tokens at a time."""
        order = sorted(range(len(lengths)), key=lambda row: lengths[row])
        if torch.is_grad_enabled():
            yield order
            return
        rows: list[int] = []
        tokens = 0
        for row in order:
            size = lengths[row] + self.memory_tokens
            if rows and tokens + size > _TOKENS_PER_PASS:
                yield rows
                rows, tokens = [], 0
            rows.append(row)
            tokens += size
        yield rows

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Writes memory tokens, adapter, tokenizer and, where the backbone is included, its weights."""
        write_encoder(Path(output_path), self.backbone, self.tokenizer, self.memory, self.max_seq_length)

    @classmethod
    def load(cls, model_name_or_path: str, **kwargs: Any) -> "MemoryEncoder":
        """The encoder saved in a model folder; lets SentenceTransformer load such a folder."""
        parts = read_encoder(Path(model_name_or_path))
        return cls(parts.backbone, parts.tokenizer, parts.memory, max_length=parts.max_length)


def _beginning(tokenizer: PreTrainedTokenizerBase, backbone: Backbone) -> int:
    """The token every text begins with: the tokenizer's, else the model's, else the end-of-text token that stands in for it."""
    config = backbone.language_model.config
    for token in (tokenizer.bos_token_id, getattr(config, "bos_token_id", None), tokenizer.eos_token_id):
        if isinstance(token, int):
            return token
    raise BackboneError(f"the tokenizer of {type(backbone.language_model).__name__} names no token for a text to begin with (bos_token or eos_token)")
