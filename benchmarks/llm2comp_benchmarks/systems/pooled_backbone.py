"""A causal language model as a text encoder without training: each text in a prompt, hidden states pooled."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llm2comp.backbone.hardware import choose_device, inference_dtype
from llm2comp.backbone.loading import Source, find_source, load_language_model, load_tokenizer
from llm2comp.errors import BackboneError, LLM2CompError, SettingsError
from llm2comp_benchmarks.systems.poolings import POOLINGS, SLOT, Pooling

__all__ = ["PooledBackbone", "PromptedBackbone"]

_SEAM = 4  # tokens kept free for each place of the text: beside a prompt it may be cut into a few more than alone


class _Row(NamedTuple):
    """Token ids of one input of the language model; those from `start` to `stop` are pooled."""

    ids: list[int]
    start: int
    stop: int


class PromptedBackbone(InputModule):
    """Puts each text into every prompt, pools the last hidden states of the language model, averages over prompts.

    The language model runs causally; its last hidden states are taken after the final norm.

    Attributes:
        model: The language model.
        tokenizer: Its tokenizer.
        pooling: Prompts and pooled states.
        max_seq_length: Tokens of a text that are read; a longer text is cut to its beginning, a prompt never.

    Raises:
        SettingsError: The language model reads too few tokens for the prompts.
        BackboneError: The tokenizer does not return the offsets of tokens.
    """

    tokenizer: PreTrainedTokenizerBase

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pooling: Pooling, *, max_length: int = 512
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if not tokenizer.is_fast:
            raise BackboneError(
                f"the tokenizer {type(tokenizer).__name__} does not give the positions of tokens in a text; use a "
                "backbone with tokenizer.json"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.pooling = pooling
        opening = tokenizer("a")["input_ids"][:1]
        # a beginning of sequence, if the language model knows its texts with one
        self._opening: list[int] = opening if opening == [tokenizer.bos_token_id] else []
        self.max_seq_length = min(max_length, self._room())

    def _room(self) -> int:
        """Tokens of a text that fit into every prompt."""
        most = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if most is None:
            return 1 << 30
        rooms: list[int] = []
        for prompt in self.pooling.prompts:
            parts = prompt.split(SLOT)
            prompt_tokens = len(self._opening) + sum(
                len(ids) for ids in self.tokenizer(parts, add_special_tokens=False)["input_ids"]
            )
            places = len(parts) - 1
            rooms.append((most - prompt_tokens) // places - (_SEAM if len(prompt) > len(SLOT) else 0))
        if min(rooms) < 1:
            raise SettingsError(
                f"{type(self.model).__name__} reads {most} tokens at most, fewer than the prompts of this pooling "
                "take; give another backbone"
            )
        return min(rooms)

    def get_embedding_dimension(self) -> int:
        """Dimension of a vector: the width of what goes into the language model's head."""
        return int(self.model.get_output_embeddings().weight.shape[1])

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` and `pooling_weights`, all (prompts · texts, tokens), padded on the right.

        Where the tokens of the text are pooled, a text without tokens has no weights, and so the zero vector.
        """
        texts = self._cut([_unicode((prompt or "") + text) for text in inputs])
        if self.pooling.sentence:
            texts = [as_sentence(text) for text in texts]
        rows = [row for template in self.pooling.prompts for row in self._rows(template, texts)]
        width = max(1, *(len(row.ids) for row in rows))
        weights = torch.zeros(len(rows), width)
        for number, row in enumerate(rows):
            if row.stop > row.start:
                weights[number, row.start : row.stop] = self._weights(row.stop - row.start)
        return {
            "input_ids": torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in rows]),
            "attention_mask": torch.tensor([[1] * len(row.ids) + [0] * (width - len(row.ids)) for row in rows]),
            "pooling_weights": weights,
        }

    def _cut(self, texts: list[str]) -> list[str]:
        offsets = self._tokenize(texts)["offset_mapping"]
        limit = self.max_seq_length
        return [
            text[: spans[limit - 1][1]] if len(spans) > limit else text
            for text, spans in zip(texts, offsets, strict=True)
        ]

    def _tokenize(self, texts: list[str]) -> Any:
        return self.tokenizer(
            texts, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
        )

    def _rows(self, template: str, texts: list[str]) -> list[_Row]:
        parts = template.split(SLOT)
        encoded = self._tokenize([text.join(parts) for text in texts])
        return [
            self._row(ids, offsets, sum(map(len, parts[:-1])) + (len(parts) - 2) * len(text), len(text))
            for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ]

    def _row(self, ids: list[int], offsets: list[tuple[int, int]], begin: int, length: int) -> _Row:
        """The input, and the tokens of the last occurrence of the text, which begins at character `begin`."""
        before = len(self._opening)
        whole = [*self._opening, *ids] or [0]  # an empty row would be all mask, which some attention turns to NaN
        if self.pooling.taken == "last":
            return _Row(whole, len(whole) - 1, len(whole)) if ids else _Row(whole, 0, 0)
        pooled = [place for place, (start, stop) in enumerate(offsets) if start < begin + length and stop > begin]
        return _Row(whole, before + pooled[0], before + pooled[-1] + 1) if pooled else _Row(whole, 0, 0)

    def _weights(self, count: int) -> Tensor:
        weights = torch.arange(1.0, count + 1) if self.pooling.taken == "weighted" else torch.ones(count)
        return weights / weights.sum()

    def forward(self, features: dict[str, Tensor | Any], **_: Any) -> dict[str, Tensor | Any]:
        """Adds `sentence_embedding` (texts, hidden), float32."""
        states = self.model.base_model(
            input_ids=features["input_ids"], attention_mask=features["attention_mask"], use_cache=False
        ).last_hidden_state
        pooled = torch.einsum("rt,rth->rh", features["pooling_weights"], states.float())
        return {**features, "sentence_embedding": pooled.unflatten(0, (len(self.pooling.prompts), -1)).mean(0)}

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Raises an error: there is nothing to save beside the backbone.

        Raises:
            LLM2CompError: Always.
        """
        raise LLM2CompError("a pooled backbone holds nothing but the backbone; there is nothing to save")


class PooledBackbone(SentenceTransformer):
    """A language model with a pooling of `POOLINGS`, used like any model of sentence-transformers.

    Queries and documents are treated alike.

    Args:
        pooling: A key of `POOLINGS`.
        backbone: Folder or Hub id of a causal language model.
        max_length: Tokens of a text that are read.
        device: None: a GPU if there is one.
        dtype: float32, bfloat16, or auto, which is bfloat16 where the device multiplies it natively.

    Raises:
        BackboneError: It cannot be loaded.
        SettingsError: It reads too few tokens for the prompts.
    """

    def __init__(
        self, pooling: str, backbone: str, *, max_length: int = 512, device: str | None = None, dtype: str = "auto"
    ) -> None:
        chosen, source = choose_device(device), find_source(backbone)
        model = load_language_model(source, dtype=inference_dtype(dtype, chosen))
        if model._supports_sdpa:
            model.set_attn_implementation("sdpa")
        module = PromptedBackbone(model, load_tokenizer(source), POOLINGS[pooling], max_length=max_length)
        super().__init__(modules=[module], device=chosen, similarity_fn_name="cosine")
        self.eval()
        self.system = pooling
        self.source: Source = source

    @property
    def label(self) -> str:
        """Pooling and language model in one word; results are filed under it."""
        return f"{self.system}-{Path(self.source.name).resolve().name}"

    @property
    def revision(self) -> str | None:
        """The language model's commit on the Hub; None for a folder."""
        return self.source.revision

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the system in a result file."""
        pooling, source = POOLINGS[self.system], self.source
        return {
            "system": self.system,
            "parameters": {
                "prompts": pooling.prompts,
                "taken": pooling.taken,
                "dtype": str(self.dtype).removeprefix("torch."),
            },
            "backbone": {"name": source.name, "revision": source.revision},
        }


def as_sentence(text: str) -> str:
    """The text as the code of PromptEOL and MetaEOL quotes it: no double quotes inside, a full stop at the end.

    The full stop replaces a question mark.
    """
    if text and text[-1] not in ".?\"'":
        text += "."
    text = text.replace('"', "'")
    return text[:-1] + "." if text.endswith("?") else text


def _unicode(text: str) -> str:
    """The text, with U+FFFD for half a surrogate pair, which JSON may hold and tokenizers may not."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
