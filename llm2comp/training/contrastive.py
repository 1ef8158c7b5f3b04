"""Stages 2 and 3: contrastive learning on the mean of the memory tokens, by sentence-transformers' trainer and losses.

Source: Zhang et al., AAAI 2026, section 3.3 (SimCSE, then query/positive/hard-negative triples of the E5 mixture).
"""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.util import cos_sim, dot_score
from torch import Tensor
from transformers import TrainerCallback, set_seed

from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.backbone.head import freeze_head
from llm2comp.errors import SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.training.arguments import rows_at_once, trainer_arguments
from llm2comp.training.batches import RunBatches
from llm2comp.training.contrastive_data import ContrastiveData, read_data, sample_texts
from llm2comp.training.late_interaction import LateInteractionLoss, check_late_interaction
from llm2comp.training.loop import StageMixin, train_in_float32, training_mode
from llm2comp.training.memory import BatchMemory, fit, most_tokens, step_memory
from llm2comp.training.run_rows import check_rows
from llm2comp.training.settings import ContrastiveSettings

__all__ = ["batch_memory", "contrastive_loss", "length_limits", "train_contrastive"]


def train_contrastive(
    model: LLM2Comp,
    settings: ContrastiveSettings,
    output: Path,
    *,
    fresh_adapter: AdapterSettings | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> LLM2Comp:
    """Trains on sentences (stage 2) or pairs (stage 3); an interrupted run resumes from its last checkpoint.

    Args:
        model: Changed in place.
        settings: See `ContrastiveSettings`.
        output: Folder of checkpoints and `metrics.jsonl`.
        fresh_adapter: Settings of the new adapter where `settings.adapter` is `merge`.
        callbacks: Callbacks of the transformers trainer, to observe the model during training.

    Returns:
        The same model.

    Raises:
        CorpusError: If the data cannot be read.
        SettingsError: If there are fewer rows than a batch, or the settings do not fit the model.
        TrainingError: If the loss is not finite.
    """
    check_late_interaction(settings, model.memory_tokens)
    data = read_data(settings, model.prompts.get("query") or "")
    check_rows(output, data.row_sets, settings.steps)
    limits = length_limits(model.memory_tokens, settings)
    backbone = model.encoder.backbone
    if settings.embedding_learning_rate is not None and backbone.has_adapter:
        raise SettingsError(
            "embedding_learning_rate needs a model without an adapter (adapter: null, --rank 0): an adapter leaves "
            "the embeddings as they are"
        )
    arguments = _arguments(settings, output, data, model)
    if settings.adapter == "merge" and backbone.has_adapter:
        backbone.merge_adapter()
        backbone.language_model.requires_grad_(False)
        set_seed(settings.seed)
        backbone.add_adapter(fresh_adapter or AdapterSettings())
    if not backbone.has_adapter:
        freeze_head(backbone.language_model)
    model.encoder.memory.requires_grad_(not settings.freeze_memory)
    train_in_float32(model)
    backbone.set_attention_dropout(settings.attention_dropout)
    model.encoder.task_limits = limits
    whole = 0.0
    if "auto" in (settings.micro_batch, settings.gradient_checkpointing):
        asked, memory = settings, batch_memory(model, settings, data, bfloat16=arguments.bf16)
        settings = fit(asked, memory)
        whole = memory.whole_tokens(asked, settings)
    try:
        with training_mode(model, settings):
            _trainer(model, settings, arguments, data, whole, callbacks).run()
    finally:
        model.encoder.task_limits = {}
        model.encoder.memory.requires_grad_()
        backbone.set_attention_dropout(0.0)
    model.changed("unsupervised" if settings.corpora else "supervised")
    return model


def length_limits(memory_tokens: int, settings: ContrastiveSettings) -> dict[str, int]:
    """Longest query and document in training, in tokens, memory tokens included.

    Raises:
        SettingsError: If a limit leaves no room for a text.
    """
    limits = {"query": settings.max_query_tokens, "document": settings.max_passage_tokens}
    least = memory_tokens + 2
    for name, limit in limits.items():
        if limit is not None and limit < least:
            raise SettingsError(
                f"a {name} of at most {limit} tokens has no room for {memory_tokens} memory tokens; give "
                f"{least} or more"
            )
    return {task: limit for task, limit in limits.items() if limit is not None}


def contrastive_loss(columns: Sequence[Tensor], *, temperature: float, similarity: str = "cosine") -> Tensor:
    """Cross-entropy of each query against the positives and negatives of the whole batch, in one direction.

    Args:
        columns: Embeddings of queries, of their positives, and of any number of hard-negative columns, each (batch,
            dim).
        temperature: Divisor of the similarities.
        similarity: `cosine` or `dot`; the published loss takes raw dot products, the paper's sim is cosine.

    Returns:
        A scalar in nats.
    """
    loss = MultipleNegativesRankingLoss(None, **_similarity(temperature, similarity))  # type: ignore[arg-type]
    return loss.compute_loss_from_embeddings(list(columns), None)  # type: ignore[arg-type]


def _similarity(temperature: float, similarity: str) -> dict[str, Any]:
    return {"scale": 1 / temperature, "similarity_fct": cos_sim if similarity == "cosine" else dot_score}


def _arguments(settings: ContrastiveSettings, output: Path, data: ContrastiveData, model: LLM2Comp) -> Any:
    negatives = [f"negative_{number}" for number in range(1, settings.max_negatives + 1)]
    rate = settings.embedding_learning_rate
    return trainer_arguments(
        settings,
        output,
        SentenceTransformerTrainingArguments,
        learning_rate_mapping={_embedding_name(model): rate} if rate else {},
        eval_strategy="steps" if data.heldout else "no",
        batch_sampler="no_duplicates",
        dataloader_drop_last=True,
        per_device_eval_batch_size=max(1, settings.heldout_rows),
        prompts=data.prompts or None,
        router_mapping={"anchor": "query", "positive": "document", **dict.fromkeys(negatives, "document")},
    )


def batch_memory(
    model: LLM2Comp, settings: ContrastiveSettings, data: ContrastiveData, *, bfloat16: bool
) -> BatchMemory:
    """What the memory of a stage's updates depends on; measured by the lengths of some rows and a pass over a text."""
    samples = sample_texts(model, data, seed=settings.seed)
    backbone = model.encoder.backbone
    padded = backbone.attention == "padded"
    most = max(most_tokens(sample.lengths, rows_at_once(settings), padded=padded) for sample in samples)
    longest = max(samples, key=lambda sample: int(sample.lengths.max()))
    tokens = int(longest.lengths.max())  # memory tokens included

    def forward(copies: int) -> Tensor:
        features = model.encoder.preprocess([longest.longest] * copies, task=longest.task)
        states: Tensor = model({name: value.to(model.device) for name, value in features.items()})["sentence_embedding"]
        return states

    measure = cache(lambda: step_memory(model, backbone.language_model, forward, tokens, bfloat16=bfloat16))
    return BatchMemory(backbone, measure, most, tokens)


def _embedding_name(model: LLM2Comp) -> str:
    """Regular expression for the name of the token embeddings in the trained model."""
    embeddings = model.encoder.backbone.language_model.get_input_embeddings().weight
    return re.escape(next(name for name, parameter in model.named_parameters() if parameter is embeddings)) + "$"


def _trainer(
    model: LLM2Comp,
    settings: ContrastiveSettings,
    arguments: Any,
    data: ContrastiveData,
    whole: float,
    callbacks: Sequence[TrainerCallback],
) -> "_ContrastiveTrainer":
    loss = _loss(model, settings, settings.micro_batch, gather_across_devices=arguments.world_size > 1)
    if whole:
        loss = _FittingLoss(model, _loss(model, settings), loss, whole)
    sets = {"train_dataset": data.training, "eval_dataset": data.heldout}
    return _ContrastiveTrainer(settings, model=model, args=arguments, loss=loss, callbacks=list(callbacks), **sets)


def _loss(
    model: Any, settings: ContrastiveSettings, micro_batch: Any = None, *, gather_across_devices: bool = False
) -> torch.nn.Module:
    """The loss of a stage: in micro-batches, if their size is given, or in one pass."""
    rows = micro_batch if isinstance(micro_batch, int) else None
    shared = _similarity(settings.temperature, settings.similarity)
    if settings.maxsim_weight or settings.diversity_weight:
        return LateInteractionLoss(
            model,
            settings,
            shared["similarity_fct"],
            micro_batch=rows,
            gather_across_devices=gather_across_devices,
        )
    shared["gather_across_devices"] = gather_across_devices
    if rows is None:
        return MultipleNegativesRankingLoss(model, **shared)
    return CachedMultipleNegativesRankingLoss(model, mini_batch_size=rows, **shared)


class _FittingLoss(torch.nn.Module):
    """The loss of a batch in one pass where its tokens fit into memory, else in micro-batches."""

    def __init__(self, model: LLM2Comp, whole: torch.nn.Module, in_parts: torch.nn.Module, most_tokens: float) -> None:
        super().__init__()
        self.whole, self.in_parts, self._most_tokens = whole, in_parts, most_tokens
        self._padded = model.encoder.backbone.attention == "padded"
        self._memory_tokens = model.memory_tokens

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Loss of columns of tokenized texts, a scalar in nats."""
        columns = list(sentence_features)
        masks: list[Tensor] = [column["attention_mask"] for column in columns]
        texts = sum(map(len, masks))
        longest = max(mask.shape[1] for mask in masks)
        tokens = texts * longest if self._padded else sum(int(mask.sum()) for mask in masks)
        tokens += texts * self._memory_tokens
        loss: Tensor = (self.whole if tokens <= self._most_tokens else self.in_parts)(columns, labels)
        return loss


class _ContrastiveTrainer(StageMixin, SentenceTransformerTrainer):
    def __init__(self, stage: ContrastiveSettings, **arguments: Any) -> None:
        super().__init__(stage, **arguments)
        # Every device scores all held-out rows, so nothing is gathered.
        self._heldout_loss = _loss(self.model, stage)
        self._decode = arguments["model"].encoder.tokenizer.decode

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Does nothing: `LLM2Comp.save` writes the model card."""

    def get_batch_sampler(self, dataset: Dataset, batch_size: int, *args: Any, **kwargs: Any) -> Any:
        """Batches of all devices together, so that no text occurs twice among the candidates of a query."""
        return super().get_batch_sampler(dataset, batch_size * self.args.world_size, *args, **kwargs)

    def get_multi_dataset_batch_sampler(
        self, dataset: Any, batch_samplers: list[Any], generator: Any = None, seed: int | None = 0
    ) -> RunBatches:
        """Batches of the whole run."""
        devices = self.args.world_size
        length = self.stage.steps * self.stage.accumulation * devices
        return RunBatches(dataset, batch_samplers, devices=devices, length=length, generator=generator, seed=seed)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Loss of a training batch or, in eval mode, of held-out rows."""
        if self.model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        features, labels = self.collect_features(inputs)
        loss = self._heldout_loss(features, labels)
        return (loss, {}) if return_outputs else loss

    def texts_of(self, inputs: dict[str, Any]) -> list[str]:
        """Name of the batch's data set, where sets have instructions, and the beginnings of its first queries."""
        tokens, mask = inputs["anchor_input_ids"], inputs["anchor_attention_mask"]
        queries = [self._decode(row[used.bool()][1:13]) for row, used in zip(tokens[:8], mask[:8], strict=True)]
        return [*([inputs["dataset_name"]] if "dataset_name" in inputs else []), *queries]
