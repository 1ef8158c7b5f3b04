"""LLM2Vec's first stage, masked next token prediction (MNTP): the state at i-1 predicts the masked token at i.

Attention is bidirectional. Of each text a share of the tokens is selected; as in the published configuration of the
Llama models the mask token is "_", and of the selected tokens 80 % are masked, 10 % replaced by a random token and 10 %
kept (BERT's treatment); the published Mistral selects 80 % of the tokens and masks them all. The loss is the mean over
the selected tokens.
Source: BehnamGhader et al., "LLM2Vec: Large Language Models Are Secretly Powerful Text Encoders", COLM 2024
(arXiv 2404.05961), section 2, and its published training configurations.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import TrainerCallback

from llm2comp.encoder import MemoryEncoder
from llm2comp.errors import BackboneError, SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.training.arguments import rows_at_once
from llm2comp.training.batches import RunRows
from llm2comp.training.fresh_layers import restart_encoder
from llm2comp.training.loop import train_in_float32, training_mode
from llm2comp.training.memory import BatchMemory, fit, step_memory
from llm2comp.training.objectives import cross_entropy
from llm2comp.training.run_rows import check_rows
from llm2comp.training.settings import CompressionSettings
from llm2comp.training.splits import read_splits
from llm2comp.training.token_trainer import Batch, TextLoss, TokenTrainer, concatenate, token_arguments

__all__ = ["Masked", "MaskedTexts", "MntpSettings", "mask", "mask_token_of", "mntp_like", "mntp_loss", "train_masked"]

_HELDOUT_SEED = 0
_MEASURED_TEXTS = 256
_MASKED, _REPLACED = 0.8, 0.1
_Rows = Sequence[Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class MntpSettings(CompressionSettings):
    """Settings of stage 1, so that both objectives read the same texts in the same order, and of the masking."""

    objective: Literal["reconstruction"] = "reconstruction"
    """Fixed: rows are whole texts, as in reconstruction."""
    mask_share: float = 0.2
    """Probability that a token is selected."""
    treatment: Literal["bert", "mask"] = "bert"
    """What happens to selected tokens: bert masks 80 %, replaces 10 % and keeps 10 %; mask masks all of them."""
    mask_token: str = "_"
    """Token used as the mask if the tokenizer has no mask token."""

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if not 0 < self.mask_share <= 1:
            yield f"mask_share is {self.mask_share}; give a share above 0, at most 1"
        if self.context_parts > 1:
            yield f"context_parts is {self.context_parts}; it is of compression, MNTP reads whole texts"


def mntp_like(stage: CompressionSettings, **changes: Any) -> MntpSettings:
    """MNTP settings with the texts, updates, learning rates and all other shared fields of a compression stage."""
    shared = {
        field.name: getattr(stage, field.name) for field in fields(CompressionSettings) if field.name != "objective"
    }
    return MntpSettings(**{**shared, **changes})


class Masked(NamedTuple):
    """A text with masked tokens."""

    shown: list[int]
    """Token ids that the encoder reads, beginning token first."""
    places: list[int]
    """Positions of the selected tokens, each at least 1."""
    targets: list[int]
    """Original token ids at these positions."""


def mask(
    tokens: Sequence[int], settings: MntpSettings, *, mask_token: int, vocabulary: int, chance: np.random.Generator
) -> Masked:
    """The text with tokens selected and treated; never the first, and at least one.

    Args:
        tokens: At least two token ids, beginning token first.
        settings: Share and treatment.
        mask_token: Id of the mask token.
        vocabulary: Number of ids that a replacement is drawn from.
        chance: Source of randomness.
    """
    shown = np.array(tokens)
    places = 1 + np.flatnonzero(chance.random(len(shown) - 1) < settings.mask_share)
    if not len(places):
        places = chance.integers(1, len(shown), 1)
    targets = shown[places]
    fate = chance.random(len(places)) if settings.treatment == "bert" else np.zeros(len(places))
    replaced = (fate >= _MASKED) & (fate < _MASKED + _REPLACED)
    shown[places[fate < _MASKED]] = mask_token
    shown[places[replaced]] = chance.integers(0, vocabulary, int(replaced.sum()))
    return Masked(shown.tolist(), places.tolist(), targets.tolist())


def mask_token_of(encoder: MemoryEncoder, settings: MntpSettings) -> int:
    """Id of the tokenizer's mask token, or else of the token named by the settings.

    Raises:
        BackboneError: If the vocabulary has neither.
    """
    tokenizer = encoder.tokenizer
    token = tokenizer.mask_token_id
    if not isinstance(token, int):
        token = tokenizer.convert_tokens_to_ids(settings.mask_token)
    if not isinstance(token, int) or token == tokenizer.unk_token_id or token >= encoder.backbone.vocabulary_size:
        raise BackboneError(f"the tokenizer has no token {settings.mask_token!r} to mask with; give another mask_token")
    return token


class _Texts(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, row: int) -> dict[str, Any]: ...


class MaskedTexts(Dataset[dict[str, Any]]):
    """Texts with masks drawn by the seed and the place in the run: new ones at each visit, the same after resuming."""

    def __init__(self, texts: _Texts, encoder: MemoryEncoder, settings: MntpSettings, *, seed: int) -> None:
        self._texts, self._settings, self._seed = texts, settings, seed
        self._mask_token = mask_token_of(encoder, settings)
        self._vocabulary = min(len(encoder.tokenizer), encoder.backbone.vocabulary_size)

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, place: int) -> dict[str, Any]:
        row = self._texts[place]
        chance = np.random.default_rng([self._seed, place])
        masked = mask(
            row["context"], self._settings, mask_token=self._mask_token, vocabulary=self._vocabulary, chance=chance
        )
        return {"id": row["id"], **masked._asdict()}


def mntp_loss(
    encoder: MemoryEncoder, shown: _Rows, places: _Rows, targets: _Rows, *, chunk_rows: int | None = None
) -> Tensor:
    """Cross-entropy of the selected tokens in nats, a mean over those of the batch.

    Args:
        encoder: The output layer is that of its language model, which is trained if all weights are.
        shown: Token ids of each text.
        places: Positions of the selected tokens in each text; the token at i is predicted from the state at i-1.
        targets: Original token ids at these positions.
        chunk_rows: Number of rows whose logits are in memory at a time; see `llm2comp.training.objectives`.
    """
    backbone, device = encoder.backbone, encoder.memory.device
    lengths = [len(tokens) for tokens in shown]
    states = backbone.encode(backbone.embed(concatenate(shown, device)), lengths)
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    before = [[start + place - 1 for place in selected] for start, selected in zip(starts, places, strict=True)]
    rows = concatenate(before, device)
    expected = concatenate(targets, device)
    weights = torch.full(expected.shape, 1.0 / len(expected), device=device)
    head = backbone.language_model.get_output_embeddings()
    return cross_entropy(
        states[rows], expected, weights, backbone.head, parameters=head.parameters(), chunk_rows=chunk_rows
    )


def train_masked(
    model: LLM2Comp, settings: MntpSettings, output: Path, *, callbacks: Sequence[TrainerCallback] = ()
) -> LLM2Comp:
    """Trains the adapter, or all weights; an interrupted run resumes from its last checkpoint.

    Args:
        model: Changed in place.
        settings: See `MntpSettings`.
        output: Folder of checkpoints and `metrics.jsonl`.
        callbacks: Callbacks of the transformers trainer, to observe the model during training.

    Returns:
        The same model.

    Raises:
        SettingsError: If the corpora contain no text that is long enough, or max_tokens exceeds the model's maximum.
        BackboneError: If there is no mask token.
        TrainingError: If the loss is not finite.
    """
    encoder = model.encoder
    if settings.max_tokens > encoder.max_seq_length:
        raise SettingsError(f"max_tokens {settings.max_tokens} exceeds the model's max_length {encoder.max_seq_length}")
    arguments = token_arguments(settings, output)
    if settings.restart_layers:
        restart_encoder(encoder.backbone, seed=settings.seed)
    train_in_float32(model)
    encoder.backbone.check_head()
    texts, heldout = read_splits(encoder, settings)
    check_rows(output, {"texts": texts.row_set}, settings.steps)
    rows = RunRows(texts, length=settings.steps * settings.batch_size, seed=settings.seed)
    masked = MaskedTexts(texts, encoder, settings, seed=settings.seed)
    settings = fit(settings, batch_memory(encoder, settings, masked, bfloat16=arguments.bf16))
    with training_mode(model, settings):
        TokenTrainer(
            settings,
            _MntpLoss(encoder, settings),
            args=arguments,
            train_dataset=MaskedTexts(rows, encoder, settings, seed=settings.seed),
            eval_dataset=MaskedTexts(heldout, encoder, settings, seed=_HELDOUT_SEED) if heldout else None,
            measure=lambda trainer: {"untrained_loss": trainer.heldout_loss()},
            callbacks=list(callbacks),
        ).run()
    model.changed("mntp")
    return model


def batch_memory(encoder: MemoryEncoder, settings: MntpSettings, texts: MaskedTexts, *, bfloat16: bool) -> BatchMemory:
    """What the memory of an update depends on; measured on the longest of some texts."""
    rows = (texts[row] for row in range(min(len(texts), _MEASURED_TEXTS)))
    longest = max(rows, key=lambda row: len(row["shown"]))
    loss = _MntpLoss(encoder, settings)

    def forward(copies: int) -> Tensor:
        result: Tensor = loss(*([longest[name]] * copies for name in loss.columns))
        return result

    tokens = len(longest["shown"])
    measure = cache(lambda: step_memory(loss, encoder.backbone.language_model, forward, tokens, bfloat16=bfloat16))
    return BatchMemory(encoder.backbone, measure, rows_at_once(settings) * tokens)


class _MntpLoss(TextLoss):
    columns = Masked._fields

    def __init__(self, encoder: MemoryEncoder, settings: MntpSettings) -> None:
        super().__init__()
        self.encoder = encoder
        self._settings = settings

    def forward(self, shown: _Rows, places: _Rows, targets: _Rows) -> Tensor:
        return mntp_loss(self.encoder, shown, places, targets, chunk_rows=self._settings.chunk_rows)

    def terms(self, batch: Batch) -> int:
        return sum(map(len, batch["places"]))

    def tokens(self, batch: Batch) -> int:
        return sum(map(len, batch["shown"]))
