"""Stage 1: the k memory tokens of a text learn to stand for it when the frozen backbone continues (or repeats) it.

Rows, with s the tokens of the context (beginning token included), k memory tokens and L tokens of continuation:
the reader is given [BOS, M_1 … M_k, c_1 … c_L]. Distillation compares its rows k … k+L with the teacher's rows
s-1 … s+L-1 on [context, continuation]; continuation scores c_1 … c_L at rows k … k+L-1; reconstruction gives the reader
the text itself after the memory tokens and scores t_1 … t_(s-1) at rows k … k+s-2.
Source: Zhang et al., "Learning to Compress", AAAI 2026, section 3.2, and the published code's bookkeeping.
"""

import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer

from llm2comp.corpus.documents import Document
from llm2comp.encoder import MemoryEncoder
from llm2comp.errors import SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.training.batches import RunRows, enough_rows
from llm2comp.training.fresh_layers import restart_layers
from llm2comp.training.loop import StageMixin, stop_checkpointing, train_in_float32, trainer_arguments
from llm2comp.training.objectives import cross_entropy, distillation
from llm2comp.training.settings import CompressionSettings, Objective
from llm2comp.training.sources import training_documents

__all__ = ["ContextGain", "Splits", "compression_loss", "context_gain", "passages", "train_compression"]

_HELDOUT_TEXTS = 128
_TEXTS_PER_BLOCK = 256
_logger = logging.getLogger(__name__)
_Tokens = Sequence[Sequence[int]]


def train_compression(model: LLM2Comp, settings: CompressionSettings, output: Path) -> LLM2Comp:
    """Trains the adapter (or all weights) and the memory tokens; an interrupted run goes on from its last checkpoint.

    Args:
        model: Changed in place.
        settings: See `CompressionSettings`.
        output: Folder of checkpoints and `metrics.jsonl`.

    Returns:
        The model given.

    Raises:
        SettingsError: If the corpora hold no text that is long enough, or a text with its memory tokens would be longer
            than the model's maximum.
        TrainingError: If the loss is not finite.
    """
    encoder = model.encoder
    if settings.max_tokens + model.memory_tokens > encoder.max_seq_length:
        raise SettingsError(
            f"max_tokens {settings.max_tokens} and {model.memory_tokens} memory tokens exceed the model's max_length "
            f"{encoder.max_seq_length}"
        )
    arguments = trainer_arguments(
        settings, output, eval_strategy="steps" if settings.heldout else "no", remove_unused_columns=False
    )
    if not encoder.backbone.has_adapter:
        encoder.backbone.keep_frozen_copy()
        if settings.restart_layers:
            restart_layers(encoder.backbone.language_model, seed=settings.seed)
    elif settings.restart_layers:
        raise SettingsError(
            "restart_layers needs a model without an adapter (adapter: null, --rank 0): an adapter is trained on the "
            "layers as they are"
        )
    train_in_float32(model)
    encoder.backbone.check_head()
    texts = Splits(encoder, settings.corpora, settings, limit=settings.steps * settings.batch_size)
    enough_rows(len(texts), settings.batch_size, settings.corpora)
    heldout = Splits(encoder, (settings.heldout,), settings, limit=_HELDOUT_TEXTS) if settings.heldout else None
    if settings.gradient_checkpointing:
        encoder.backbone.enable_checkpointing()
    trainer = _CompressionTrainer(
        settings,
        encoder,
        args=arguments,
        train_dataset=RunRows(texts, wanted=settings.steps * settings.batch_size, seed=settings.seed),
        eval_dataset=heldout,
    )
    try:
        trainer.run()
    finally:
        if settings.gradient_checkpointing:
            stop_checkpointing(encoder.backbone.language_model)
        model.eval()
    model.changed(f"compression:{settings.objective}")
    return model


def compression_loss(
    encoder: MemoryEncoder,
    contexts: _Tokens,
    continuations: _Tokens,
    objective: Objective,
    *,
    chunk_rows: int | None = None,
) -> Tensor:
    """Loss of a batch in nats.

    Args:
        encoder: Its backbone serves as teacher and reader too.
        contexts: Token ids of each context, beginning token first.
        continuations: Token ids of each continuation; not looked at by reconstruction.
        objective: distillation: mean over a text's rows, then over texts; the others: mean over the batch's tokens.
        chunk_rows: Rows whose logits exist at one time; see `objectives`.

    Returns:
        A scalar.
    """
    backbone, k, device = encoder.backbone, encoder.memory_tokens, encoder.memory.device
    lengths = [len(context) for context in contexts]
    memory = encoder.memory_states(_flat(contexts, device), lengths)
    told = [context[1:] for context in contexts] if objective == "reconstruction" else continuations
    following = [len(tokens) for tokens in told]
    states = _read_after_memory(encoder, contexts[0][0], memory, told)
    if objective == "distillation":
        student = _rows(states, [(k, k + length + 1) for length in following], [1 + k + length for length in following])
        whole = [length + more for length, more in zip(lengths, following, strict=True)]
        with torch.no_grad():
            texts = _flat([[*context, *more] for context, more in zip(contexts, continuations, strict=True)], device)
            taught = backbone.read(backbone.embed_frozen(texts), whole)
            teacher = _rows(taught, [(length - 1, size) for length, size in zip(lengths, whole, strict=True)], whole)
        sizes = torch.tensor(following, device=device) + 1
        weights = torch.repeat_interleave(1.0 / (sizes * len(contexts)), sizes)
        return distillation(student, teacher, weights, backbone.head, chunk_rows=chunk_rows)
    rows = _rows(states, [(k, k + length) for length in following], [1 + k + length for length in following])
    targets = _flat(told, device)
    return cross_entropy(
        rows,
        targets,
        torch.full(targets.shape, 1.0 / len(targets), device=device),
        backbone.head,
        chunk_rows=chunk_rows,
    )


class ContextGain(NamedTuple):
    """What a context is worth to the frozen backbone, in nats per token of the continuation: the most stage 1 can teach."""

    loss_with: float
    loss_without: float
    gain: float
    """loss_without - loss_with."""


@torch.no_grad()
def context_gain(encoder: MemoryEncoder, splits: Iterable[dict[str, Any]]) -> ContextGain:
    """Measures the frozen backbone's loss on continuations with the whole context before them and with none."""
    backbone, device = encoder.backbone, encoder.memory.device
    totals, tokens = [0.0, 0.0], 0
    for split in splits:
        context, continuation = split["context"], split["continuation"]
        targets = torch.tensor(continuation, device=device)
        for place, before in enumerate((context, context[:1])):
            states = backbone.read(
                backbone.embed_frozen(torch.tensor([*before, *continuation], device=device)),
                [len(before) + len(continuation)],
            )
            rows = states[len(before) - 1 : -1]
            totals[place] += float(
                cross_entropy(rows, targets, torch.ones_like(targets, dtype=torch.float32), backbone.head)
            )
        tokens += len(continuation)
    with_context, without = (total / tokens for total in totals)
    return ContextGain(with_context, without, without - with_context)


def _read_after_memory(encoder: MemoryEncoder, beginning: int, memory: Tensor, told: _Tokens) -> Tensor:
    """States of the frozen backbone on [BOS, memory, tokens] of each text, end to end."""
    backbone, device = encoder.backbone, memory.device
    first = backbone.embed_frozen(torch.tensor([beginning], device=device))
    after = backbone.embed_frozen(_flat(told, device)).split([len(tokens) for tokens in told])
    parts = [
        part for states, tokens in zip(memory, after, strict=True) for part in (first, states.to(first.dtype), tokens)
    ]
    return backbone.read(
        torch.cat(parts), [1 + len(states) + len(tokens) for states, tokens in zip(memory, after, strict=True)]
    )


def _rows(states: Tensor, wanted: Sequence[tuple[int, int]], lengths: Sequence[int]) -> Tensor:
    """The rows [first, last) of each text in packed states."""
    texts = states.split(list(lengths))
    return torch.cat([text[first:last] for text, (first, last) in zip(texts, wanted, strict=True)])


def _flat(rows: _Tokens, device: torch.device) -> Tensor:
    return torch.tensor([token for row in rows for token in row], device=device)


def passages(documents: Iterable[Document], min_characters: int) -> Iterator[tuple[str, str]]:
    """(id, text): paragraphs of each document, joined until they reach the length; a shorter rest is dropped."""
    for document in documents:
        paragraphs: list[str] = []
        for line in document.text.splitlines():
            paragraphs.append(line)
            if sum(map(len, paragraphs)) >= min_characters:
                yield document.id, "\n".join(paragraphs)
                paragraphs = []


class Splits(Dataset[dict[str, Any]]):
    """Texts cut in two at a place drawn from the seed and the text's number, so that a resumed run sees the same cuts."""

    def __init__(
        self, encoder: MemoryEncoder, corpora: Sequence[str], settings: CompressionSettings, *, limit: int
    ) -> None:
        self._settings = settings
        documents = (document for source in corpora for document in training_documents(source))
        found = list(islice(self._long_enough(encoder, documents), limit))
        if not found:
            raise SettingsError(
                f"no text of at least {settings.min_characters} characters and {2 * settings.margin + 1} tokens in "
                f"{', '.join(corpora)}"
            )
        self._ids, self._tokens = zip(*found, strict=True)
        _logger.info("%d texts, %d tokens", len(found), sum(map(len, self._tokens)))

    def _long_enough(self, encoder: MemoryEncoder, documents: Iterable[Document]) -> Iterator[tuple[str, np.ndarray]]:
        """(id, tokens as int32) of each text that can be split, cut to the longest first."""
        texts = passages(documents, self._settings.min_characters)
        while block := list(islice(texts, _TEXTS_PER_BLOCK)):
            for (identity, _), tokens in zip(block, encoder.token_ids([text for _, text in block]), strict=True):
                if len(tokens) >= 2 * self._settings.margin + 1:
                    yield identity, np.array(tokens[: self._settings.max_tokens], dtype=np.int32)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, row: int) -> dict[str, Any]:
        if self._settings.objective == "reconstruction":
            return {"id": self._ids[row], "context": self._tokens[row].tolist(), "continuation": []}
        return self.split(row)

    def split(self, row: int) -> dict[str, Any]:
        """Id, context and continuation of a text, whatever the objective; each part has at least `margin` tokens."""
        tokens, margin = self._tokens[row].tolist(), self._settings.margin
        cut = random.Random(f"{self._settings.seed}:{row}").randint(margin, len(tokens) - margin)
        return {"id": self._ids[row], "context": tokens[:cut], "continuation": tokens[cut:]}


def _together(splits: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "ids": [split["id"] for split in splits],
        "contexts": [split["context"] for split in splits],
        "continuations": [split["continuation"] for split in splits],
    }


class _Compression(nn.Module):
    """The loss as a module, so that distributed data parallelism can wrap it."""

    def __init__(self, encoder: MemoryEncoder, settings: CompressionSettings) -> None:
        super().__init__()
        self.encoder = encoder
        self._settings = settings

    def forward(self, contexts: _Tokens, continuations: _Tokens) -> Tensor:
        return compression_loss(
            self.encoder, contexts, continuations, self._settings.objective, chunk_rows=self._settings.chunk_rows
        )


class _CompressionTrainer(StageMixin, Trainer):
    def __init__(self, stage: CompressionSettings, encoder: MemoryEncoder, **arguments: Any) -> None:
        super().__init__(stage, model=_Compression(encoder, stage), data_collator=_together, **arguments)
        self._encoder, self._objective = encoder, stage.objective

    def begin(self) -> None:
        """Reports what a context is worth to the frozen backbone."""
        rows = self.eval_dataset
        if isinstance(rows, Splits) and self.is_world_process_zero():
            gain = context_gain(self._encoder, map(rows.split, range(len(rows))))
            self.log({f"context_{name}": value for name, value in gain._asdict().items()})

    def tokens_of(self, inputs: dict[str, Any]) -> int:
        return sum(map(len, inputs["contexts"])) + sum(map(len, inputs["continuations"]))

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The batches of an update, each with its weight: by tokens where the loss is a mean over tokens, so that their mean is that of one large batch."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._objective != "distillation":
            sizes = [_scored_tokens(batch, self._objective) for batch in batches]
            total = float(self.accelerator.reduce(torch.tensor(sum(sizes), device=device)))
            mean = total / (len(batches) * self.args.world_size)
            for batch, size in zip(batches, sizes, strict=True):
                batch["weight"] = size / mean
        return batches, items

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss = model(inputs["contexts"], inputs["continuations"]) * inputs.get("weight", 1.0)
        return (loss, {"loss": loss}) if return_outputs else loss

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any
    ) -> tuple[Tensor, None, None]:
        """A batch's loss with the weight that makes the mean over batches that over tokens."""
        weight = 1.0
        if self._objective != "distillation":
            weight = _scored_tokens(inputs, self._objective) / (len(inputs["contexts"]) * self._heldout_tokens)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, {**inputs, "weight": weight}).detach(), None, None

    @cached_property
    def _heldout_tokens(self) -> float:
        """Scored tokens of a held-out text on average."""
        batches = list(self.get_eval_dataloader())
        return sum(_scored_tokens(batch, self._objective) for batch in batches) / sum(
            len(batch["contexts"]) for batch in batches
        )


def _scored_tokens(batch: dict[str, Any], objective: Objective) -> int:
    return (
        sum(len(tokens) - 1 for tokens in batch["contexts"])
        if objective == "reconstruction"
        else sum(map(len, batch["continuations"]))
    )
