"""Stages 2 and 3: contrastive learning on the mean of the memory tokens, by sentence-transformers' own trainer and losses.

Source: Zhang et al., AAAI 2026, section 3.3 (SimCSE, then query/positive/hard-negative triples of the E5 mixture).
"""

import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss, MultipleNegativesRankingLoss
from sentence_transformers.util import cos_sim, dot_score
from torch import Tensor

from llm2comp.adapter import AdapterSettings
from llm2comp.corpus import read_corpus
from llm2comp.errors import SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.python_docs import is_held_out
from llm2comp.training.loop import StageMixin, last_checkpoint, train_in_float32, trainer_arguments
from llm2comp.training.sentences import split_sentences
from llm2comp.training.settings import ContrastiveSettings
from llm2comp.training.triples import dataset_name, read_triples

__all__ = ["contrastive_loss", "train_contrastive"]

_SENTENCE_WORDS = (5, 60)


def train_contrastive(model: LLM2Comp, settings: ContrastiveSettings, output: Path, *, fresh_adapter: AdapterSettings | None = None) -> LLM2Comp:
    """Trains on sentences (stage 2) or pairs (stage 3); an interrupted run goes on from its last checkpoint.

    Args:
        model: Changed in place.
        settings: See `ContrastiveSettings`.
        output: Folder of checkpoints and `metrics.jsonl`.
        fresh_adapter: The new adapter of `adapter: merge`.

    Returns:
        The model given.

    Raises:
        CorpusError, SettingsError: If the data cannot be read or holds fewer rows than a batch.
        TrainingError: If the loss is not finite.
    """
    training, heldout, prompts = _sentences(settings) if settings.corpora else _pairs(settings)
    backbone = model.encoder.backbone
    if settings.adapter == "merge" and backbone.has_adapter:
        backbone.merge_adapter()
        backbone.language_model.requires_grad_(False)
        backbone.add_adapter(fresh_adapter or AdapterSettings())
    model.encoder.memory.requires_grad_(not settings.freeze_memory)
    train_in_float32(model)
    backbone.set_attention_dropout(settings.attention_dropout)
    if settings.gradient_checkpointing:
        backbone.enable_checkpointing()
    limits = {"query": settings.max_query_tokens, "document": settings.max_passage_tokens}
    model.encoder.task_limits = {task: limit for task, limit in limits.items() if limit is not None}
    try:
        _train(model, settings, output, training, heldout, prompts)
    finally:
        model.encoder.task_limits = {}
        backbone.set_attention_dropout(0.0)
    model.eval()
    model.changed("unsupervised" if settings.corpora else "supervised")
    return model


def contrastive_loss(columns: Sequence[Tensor], *, temperature: float, similarity: str = "cosine") -> Tensor:
    """Cross-entropy of each query against the positives and negatives of the whole batch, one direction.

    Args:
        columns: Embeddings of queries, of their positives, and of any number of hard-negative columns, each (batch, dim).
        temperature: Divides the similarities.
        similarity: `cosine` or `dot`; the published loss lines take raw dot products, the paper's sim is cosine.
    """
    loss = MultipleNegativesRankingLoss(None, **_similarity(temperature, similarity))  # type: ignore[arg-type]
    return loss.compute_loss_from_embeddings(list(columns), None)  # type: ignore[arg-type]


def _similarity(temperature: float, similarity: str) -> dict[str, Any]:
    return {"scale": 1 / temperature, "similarity_fct": cos_sim if similarity == "cosine" else dot_score}


def _train(
    model: LLM2Comp, settings: ContrastiveSettings, output: Path, training: DatasetDict, heldout: DatasetDict | None, prompts: dict[str, dict[str, str]]
) -> None:
    shared = {**_similarity(settings.temperature, settings.similarity), "gather_across_devices": int(os.environ.get("WORLD_SIZE", "1")) > 1}
    if settings.micro_batch is None:
        loss: torch.nn.Module = MultipleNegativesRankingLoss(model, **shared)
    else:
        loss = CachedMultipleNegativesRankingLoss(model, mini_batch_size=settings.micro_batch, **shared)
    arguments = trainer_arguments(
        settings,
        output,
        SentenceTransformerTrainingArguments,
        eval_strategy="steps" if heldout else "no",
        batch_sampler="no_duplicates",
        multi_dataset_batch_sampler="proportional",
        dataloader_drop_last=True,
        per_device_eval_batch_size=max(1, settings.heldout_rows),
        prompts=prompts or None,
        router_mapping={"anchor": "query", "positive": "document", **{f"negative_{n}": "document" for n in range(1, settings.max_negatives + 1)}},
    )
    model.model_card_data.generate_widget_examples = False
    trainer = _ContrastiveTrainer(settings, model=model, args=arguments, train_dataset=training, eval_dataset=heldout, loss=loss)
    checkpoint = last_checkpoint(output)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


_Data = tuple[DatasetDict, DatasetDict | None, dict[str, dict[str, str]]]


def _pairs(settings: ContrastiveSettings) -> _Data:
    """Training and held-out rows of each data set by name, and the instruction of its queries."""
    training, heldout, prompts = {}, {}, {}
    named = [found for source in settings.pairs for found in read_triples(source, max_negatives=settings.max_negatives)]
    files = sorted({dataset_name(found.path) for found in named})
    if unknown := sorted(set(settings.mixture) - set(files)):
        raise SettingsError(f"mixture names {', '.join(unknown)}, but pairs hold {', '.join(files)}")
    for found in named:
        share = settings.mixture.get(dataset_name(found.path), 1.0)
        if not share:
            continue
        rows = found.load()
        kept = settings.heldout_rows if len(rows) >= 10 * settings.heldout_rows else 0
        training[found.name] = _times(rows.select(range(kept, len(rows))), share, settings.seed)
        if kept:
            heldout[found.name] = rows.select(range(kept))
        if found.instruction:
            prompts[found.name] = {"anchor": found.instruction}
    _enough(sum(map(len, training.values())), settings)
    return DatasetDict(training), DatasetDict(heldout) or None, prompts


def _times(rows: Dataset, share: float, seed: int) -> Dataset:
    whole, part = divmod(share, 1.0)
    indices = list(range(len(rows))) * int(whole)
    indices += random.Random(seed).sample(range(len(rows)), int(part * len(rows)))
    return rows.select(indices)


def _sentences(settings: ContrastiveSettings) -> _Data:
    wanted = settings.steps * settings.batch_size + settings.heldout_rows
    found = []
    for sentence in _distinct_sentences(settings.corpora):
        found.append(sentence)
        if len(found) == wanted:
            break
    _enough(len(found) - settings.heldout_rows, settings)
    rows = Dataset.from_dict({"anchor": found, "positive": found})
    kept = settings.heldout_rows
    return DatasetDict(sentences=rows.select(range(kept, len(rows)))), DatasetDict(sentences=rows.select(range(kept))) if kept else None, {}


def _distinct_sentences(corpora: Sequence[str]) -> Iterator[str]:
    seen: set[int] = set()
    for source in corpora:
        for document in read_corpus(source):
            if source.startswith("python-docs:") and is_held_out(document.text):
                continue
            for sentence in split_sentences(document.text):
                least, most = _SENTENCE_WORDS
                if least <= len(sentence.split()) <= most and hash(sentence) not in seen:
                    seen.add(hash(sentence))
                    yield sentence


def _enough(rows: int, settings: ContrastiveSettings) -> None:
    if rows < settings.batch_size:
        sources = ", ".join(settings.corpora or settings.pairs)
        raise SettingsError(f"{sources}: {rows} rows for training, fewer than one batch of {settings.batch_size}; lower batch_size or add data")


class _ContrastiveTrainer(StageMixin, SentenceTransformerTrainer):
    def texts_of(self, inputs: dict[str, Any]) -> list[str]:
        """The batch's data set and the beginning of its queries."""
        tokens, mask = inputs["anchor_input_ids"], inputs["anchor_attention_mask"]
        decode = self.model.encoder.tokenizer.decode
        queries = [decode(row[seen.bool()][1:13]) for row, seen in zip(tokens[:8], mask[:8], strict=True)]
        return [str(inputs.get("dataset_name", "")), *queries]
