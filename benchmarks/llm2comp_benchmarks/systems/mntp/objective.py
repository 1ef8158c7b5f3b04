"""LLM2Vec's pretext, masked next token prediction (MNTP): the masked token at place i is predicted from the state at place i-1.

Attention is bidirectional. Of each text a share of the tokens is masked; as in the published configuration of the Llama
models the mask token is "_" and of the tokens chosen 80 % are masked, 10 % replaced by a random one and 10 % left
(BERT's treatment); its Mistral masks 80 % of the tokens, all by the mask token. The loss is the mean over the tokens
chosen. Source: BehnamGhader et al., "LLM2Vec: Large Language Models Are Secretly Powerful Text Encoders", COLM 2024
(arXiv 2404.05961), section 2, and its published training configurations.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer

from llm2comp.encoder import MemoryEncoder
from llm2comp.errors import BackboneError, SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.training.batches import RunRows, enough_rows
from llm2comp.training.compression import Splits
from llm2comp.training.fresh_layers import restart_layers
from llm2comp.training.loop import StageMixin, stop_checkpointing, train_in_float32, trainer_arguments
from llm2comp.training.objectives import cross_entropy
from llm2comp.training.settings import CompressionSettings

__all__ = ["Masked", "MaskedTexts", "MntpSettings", "mask", "mask_token_of", "mntp_like", "mntp_loss", "train_masked"]

_HELDOUT_TEXTS = 128
_HELDOUT_SEED = 0
_MASKED, _REPLACED = 0.8, 0.1
_Rows = Sequence[Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class MntpSettings(CompressionSettings):
    """Stage 1's settings, so that both pretexts read the same texts in the same order, and how tokens are masked."""

    objective: Literal["reconstruction"] = "reconstruction"
    """Fixed: a row is a whole text, as in reconstruction."""
    mask_share: float = 0.2
    """Chance of each token to be chosen."""
    treatment: Literal["bert", "mask"] = "bert"
    """What becomes of a chosen token: 80 % masked, 10 % replaced, 10 % left; or always masked."""
    mask_token: str = "_"
    """Where the tokenizer has no mask token of its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mask_share <= 1:
            raise SettingsError(f"mask_share is {self.mask_share}; give a share above 0, at most 1")


def mntp_like(stage: CompressionSettings, **changes: Any) -> MntpSettings:
    """MNTP with the budget of a compression stage: its texts, updates, learning rates and all else that both have."""
    shared = {
        field.name: getattr(stage, field.name) for field in fields(CompressionSettings) if field.name != "objective"
    }
    return MntpSettings(**{**shared, **changes})


class Masked(NamedTuple):
    """A text as the encoder sees it."""

    shown: list[int]
    """Token ids, beginning token first."""
    places: list[int]
    """Places of the tokens chosen, each at least 1."""
    targets: list[int]
    """What stood there."""


def mask(
    tokens: Sequence[int], settings: MntpSettings, *, mask_token: int, vocabulary: int, chance: np.random.Generator
) -> Masked:
    """Chooses tokens, never the first, and treats them; where chance chooses none, one is chosen.

    Args:
        tokens: At least two, beginning token first.
        settings: The share and the treatment.
        mask_token: Id of the mask token.
        vocabulary: Number of ids that a replacement is drawn from.
        chance: Source of the choice.
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
    """Id of the tokenizer's own mask token, else of the one that the settings name.

    Raises:
        BackboneError: If the vocabulary has neither.
    """
    tokenizer = encoder.tokenizer
    own = tokenizer.mask_token_id
    found = own if isinstance(own, int) else tokenizer.convert_tokens_to_ids(settings.mask_token)
    if not isinstance(found, int) or found == tokenizer.unk_token_id or found >= encoder.backbone.vocabulary_size:
        raise BackboneError(f"the tokenizer has no token {settings.mask_token!r} to mask with; give another mask_token")
    return found


class _Texts(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, row: int) -> dict[str, Any]: ...


class MaskedTexts(Dataset[dict[str, Any]]):
    """Texts, masked as the seed and the place in the run say: anew at each visit, alike in a resumed run."""

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
    """Cross-entropy of the tokens chosen, in nats, mean over those of the batch.

    Args:
        encoder: Its language model's own output layer is used, and trained where all weights are.
        shown: Token ids of each text.
        places: Places of the tokens chosen in each text; that at i is predicted from the state at i-1.
        targets: What stood there.
        chunk_rows: Rows whose logits exist at one time; see `llm2comp.training.objectives`.
    """
    backbone, device = encoder.backbone, encoder.memory.device
    lengths = [len(tokens) for tokens in shown]
    states = backbone.encode(backbone.embed(_flat(shown, device)), lengths)
    starts = np.cumsum([0, *lengths[:-1]])
    rows = _flat(
        [[int(start) + place - 1 for place in chosen] for start, chosen in zip(starts, places, strict=True)], device
    )
    expected = _flat(targets, device)
    weights = torch.full(expected.shape, 1.0 / len(expected), device=device)
    head = backbone.language_model.get_output_embeddings()
    return cross_entropy(
        states[rows], expected, weights, backbone.head, parameters=head.parameters(), chunk_rows=chunk_rows
    )


def train_masked(model: LLM2Comp, settings: MntpSettings, output: Path) -> LLM2Comp:
    """Trains the adapter, or all weights; an interrupted run goes on from its last checkpoint.

    Args:
        model: Changed in place.
        settings: See `MntpSettings`.
        output: Folder of checkpoints and `metrics.jsonl`.

    Returns:
        The model given.

    Raises:
        SettingsError: If the corpora hold no text that is long enough, or max_tokens is more than the model's maximum.
        BackboneError: If there is no mask token.
        TrainingError: If the loss is not finite.
    """
    encoder = model.encoder
    if settings.max_tokens > encoder.max_seq_length:
        raise SettingsError(f"max_tokens {settings.max_tokens} exceeds the model's max_length {encoder.max_seq_length}")
    if settings.restart_layers:
        if encoder.backbone.has_adapter:
            raise SettingsError(
                "restart_layers needs a model without an adapter (adapter: null): an adapter is trained on the layers "
                "as they are"
            )
        restart_layers(encoder.backbone.language_model, seed=settings.seed)
    arguments = trainer_arguments(
        settings, output, eval_strategy="steps" if settings.heldout else "no", remove_unused_columns=False
    )
    train_in_float32(model)
    encoder.backbone.check_head()
    wanted = settings.steps * settings.batch_size
    texts = Splits(encoder, settings.corpora, settings, limit=wanted)
    enough_rows(len(texts), settings.batch_size, settings.corpora)
    heldout = Splits(encoder, (settings.heldout,), settings, limit=_HELDOUT_TEXTS) if settings.heldout else None
    if settings.gradient_checkpointing:
        encoder.backbone.enable_checkpointing()
    trainer = _MntpTrainer(
        settings,
        encoder,
        args=arguments,
        train_dataset=MaskedTexts(
            RunRows(texts, wanted=wanted, seed=settings.seed), encoder, settings, seed=settings.seed
        ),
        eval_dataset=MaskedTexts(heldout, encoder, settings, seed=_HELDOUT_SEED) if heldout else None,
    )
    try:
        trainer.run()
    finally:
        if settings.gradient_checkpointing:
            stop_checkpointing(encoder.backbone.language_model)
        model.eval()
    model.changed("mntp")
    return model


def _flat(rows: _Rows, device: torch.device) -> Tensor:
    return torch.tensor([entry for row in rows for entry in row], device=device)


def _together(texts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"ids": [text["id"] for text in texts], **{name: [text[name] for text in texts] for name in Masked._fields}}


def _chosen(batch: dict[str, Any]) -> int:
    return sum(map(len, batch["places"]))


class _Mntp(nn.Module):
    """The loss as a module: the trainer's mixed precision covers what a module's forward calls."""

    def __init__(self, encoder: MemoryEncoder, settings: MntpSettings) -> None:
        super().__init__()
        self.encoder = encoder
        self._settings = settings

    def forward(self, shown: _Rows, places: _Rows, targets: _Rows) -> Tensor:
        return mntp_loss(self.encoder, shown, places, targets, chunk_rows=self._settings.chunk_rows)


class _MntpTrainer(StageMixin, Trainer):
    def __init__(self, stage: MntpSettings, encoder: MemoryEncoder, **arguments: Any) -> None:
        super().__init__(stage, model=_Mntp(encoder, stage), data_collator=_together, **arguments)

    def begin(self) -> None:
        """Reports the held-out loss before the first update."""
        if self.eval_dataset is None or not self.is_world_process_zero():
            return
        batches = list(self.get_eval_dataloader())
        with torch.no_grad(), self.compute_loss_context_manager():
            total = sum(
                float(self._trained(*(batch[name] for name in Masked._fields))) * _chosen(batch) for batch in batches
            )
        self.log({"untrained_loss": total / sum(map(_chosen, batches))})

    def tokens_of(self, inputs: dict[str, Any]) -> int:
        return sum(map(len, inputs["shown"]))

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The batches of an update, each weighted by its tokens chosen, so that their mean is that of one large batch."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        total = float(self.accelerator.reduce(torch.tensor(float(sum(map(_chosen, batches))), device=device)))
        mean = total / (max(1, len(batches)) * self.args.world_size)
        for batch in batches:
            batch["weight"] = _chosen(batch) / mean
        return batches, items

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss = model(*(inputs[name] for name in Masked._fields)) * inputs.get("weight", 1.0)
        return (loss, {"loss": loss}) if return_outputs else loss

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any
    ) -> tuple[Tensor, None, None]:
        """A batch's loss with the weight that makes the mean over batches that over tokens."""
        weight = _chosen(inputs) / (len(inputs["places"]) * self._heldout_chosen)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, {**inputs, "weight": weight}).detach(), None, None

    @cached_property
    def _heldout_chosen(self) -> float:
        """Tokens chosen of a held-out text on average."""
        batches = list(self.get_eval_dataloader())
        return sum(map(_chosen, batches)) / sum(len(batch["places"]) for batch in batches)
