"""One trainer for the stages whose loss is computed text by text: pretraining, compression and MNTP.

It takes the loss as a module. Losses are means over tokens or over texts, batches of one update may hold different
numbers of tokens, and yet every reported loss is the mean over all of them: batches are weighted accordingly.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from llm2comp.training.arguments import trainer_arguments
from llm2comp.training.loop import StageMixin
from llm2comp.training.settings import CompressionSettings, PretrainSettings, StageSettings

__all__ = ["Batch", "TextLoss", "TokenTrainer", "concatenate", "token_arguments"]

Batch = dict[str, Any]
"""Ids of a batch's texts under `ids`, and the loss's columns by name."""


class TextLoss(nn.Module):
    """Loss of a batch of texts, in nats.

    It is a module because mixed precision and distributed data parallelism act on what a module's `forward` calls.
    """

    columns: tuple[str, ...]
    """Fields of a row that `forward` takes, in its order, each as a list over the texts of the batch."""

    def terms(self, batch: Batch) -> int:
        """Number of terms that the loss of a batch is a mean over: tokens or texts."""
        raise NotImplementedError

    def tokens(self, batch: Batch) -> int:
        """Number of tokens of a batch, for the reported tokens per second."""
        raise NotImplementedError

    def collate(self, rows: list[dict[str, Any]]) -> Batch:
        """A batch of rows that have an `id` and the columns."""
        return {"ids": [row["id"] for row in rows], **{name: [row[name] for row in rows] for name in self.columns}}


def token_arguments(settings: CompressionSettings | PretrainSettings, output: Path, **extra: Any) -> TrainingArguments:
    """Arguments of a `TokenTrainer`; `extra` goes to `TrainingArguments` unchanged.

    Raises:
        SettingsError: As `trainer_arguments`.
    """
    evaluation = "steps" if settings.heldout else "no"
    arguments: TrainingArguments = trainer_arguments(
        settings, output, eval_strategy=evaluation, remove_unused_columns=False, **extra
    )
    return arguments


class TokenTrainer(StageMixin, Trainer):
    """Trains what a `TextLoss` contains.

    Args:
        stage: The stage's settings.
        loss: The loss; its parameters are those trained.
        measure: Called with this trainer before the first update, on the main process, if there are held-out rows;
            what it returns is reported.
        **arguments: To the transformers `Trainer`: `args`, `train_dataset`, `eval_dataset`.
    """

    def __init__(
        self,
        stage: StageSettings,
        loss: TextLoss,
        *,
        measure: "Callable[[TokenTrainer], dict[str, float]] | None" = None,
        **arguments: Any,
    ) -> None:
        super().__init__(stage, model=loss, data_collator=loss.collate, **arguments)
        self._loss, self._measure = loss, measure

    def begin(self) -> None:
        """Reports what is measured on the held-out rows before the first update."""
        if self._measure is not None and self.eval_dataset is not None and self.is_world_process_zero():
            self.log(self._measure(self))

    def tokens_of(self, inputs: Batch) -> int:
        """Number of tokens of a batch."""
        return self._loss.tokens(inputs)

    def heldout_loss(self) -> float:
        """Loss of the held-out rows at the present weights, in nats."""
        batches = [self._prepare_inputs(batch) for batch in self.get_eval_dataloader()]
        with torch.no_grad(), self.compute_loss_context_manager():
            total = sum(float(self.compute_loss(self._loss, batch)) * self._loss.terms(batch) for batch in batches)
        return total / sum(map(self._loss.terms, batches))

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Batches of an update, weighted by their terms, so that their mean is the loss of one large batch."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        sizes = list(map(self._loss.terms, batches))
        total = float(self.accelerator.reduce(torch.tensor(sum(sizes), device=device)))
        mean = total / (max(1, len(batches)) * self.args.world_size)
        for batch, size in zip(batches, sizes, strict=True):
            batch["weight"] = size / mean
        return batches, items

    def compute_loss(
        self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Loss of a batch times its weight, a scalar."""
        loss = model(*(inputs[name] for name in self._loss.columns)) * inputs.get("weight", 1.0)
        return (loss, {"loss": loss}) if return_outputs else loss

    def prediction_step(self, model: nn.Module, inputs: Batch, *_: Any, **__: Any) -> tuple[Tensor, None, None]:
        """Loss of a held-out batch, weighted so that the mean over batches is the mean over all terms."""
        weight = self._loss.terms(inputs) / (len(inputs["ids"]) * self._terms_per_text)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, {**self._prepare_inputs(inputs), "weight": weight})
        return loss.detach(), None, None

    @cached_property
    def _terms_per_text(self) -> float:
        """Mean number of terms of a held-out text."""
        batches = list(self.get_eval_dataloader())
        return sum(map(self._loss.terms, batches)) / sum(len(batch["ids"]) for batch in batches)


def concatenate(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Numbers of all rows end to end, (numbers,), int64."""
    return torch.tensor([number for row in rows for number in row], device=device)
