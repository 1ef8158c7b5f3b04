"""Stage 1: a text's memory tokens learn to replace it as the frozen backbone's context for its continuation, or itself.

The frozen backbone is the reader of the memory tokens and, with the objective distillation, the teacher. With s tokens
of context (beginning token included), k memory tokens and L tokens of continuation, the reader's input is
[BOS, M_1 … M_k, c_1 … c_L]. The objectives:

- distillation compares the reader's rows k … k+L with the teacher's rows s-1 … s+L-1 on [context, continuation];
- continuation scores c_1 … c_L at rows k … k+L-1;
- reconstruction gives the reader the text itself after the memory tokens and scores t_1 … t_(s-1) at rows k … k+s-2.

With `context_parts` a context is cut into p parts, each with k memory tokens of its own, so that the reader learns to
read several documents; everywhere above, k is then p x k. (Not in the paper.)

Source: Zhang et al., "Learning to Compress", AAAI 2026, section 3.2, and the row numbers of the published code.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import TrainerCallback

from llm2comp.encoder import MemoryEncoder
from llm2comp.errors import SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.training.arguments import rows_at_once
from llm2comp.training.batches import MixedRows, Rows, RunRows
from llm2comp.training.fresh_layers import restart_encoder
from llm2comp.training.loop import train_in_float32, training_mode
from llm2comp.training.memory import BatchMemory, fit, step_memory
from llm2comp.training.objectives import cross_entropy, distillation
from llm2comp.training.question_rows import QuestionRows
from llm2comp.training.run_rows import check_rows
from llm2comp.training.settings import CompressionSettings, Objective
from llm2comp.training.splits import question_count, read_splits
from llm2comp.training.token_trainer import Batch, TextLoss, TokenTrainer, concatenate, token_arguments

__all__ = ["ContextGain", "batch_memory", "compression_loss", "context_gain", "train_compression"]

_Tokens = Sequence[Sequence[int]]
_MEASURED_ROWS = 256


def train_compression(
    model: LLM2Comp, settings: CompressionSettings, output: Path, *, callbacks: Sequence[TrainerCallback] = ()
) -> LLM2Comp:
    """Trains the adapter (or all weights) and the memory tokens; an interrupted run resumes from its last checkpoint.

    Args:
        model: Changed in place.
        settings: See `CompressionSettings`.
        output: Folder of checkpoints and `metrics.jsonl`.
        callbacks: Callbacks of the transformers trainer, to observe the model during training.

    Returns:
        The same model.

    Raises:
        SettingsError: If the corpora contain no text that is long enough, or a text with its memory tokens would be
            longer than the model's maximum.
        TrainingError: If the loss is not finite.
    """
    encoder = model.encoder
    if settings.max_tokens + model.memory_tokens > encoder.max_seq_length:
        raise SettingsError(
            f"max_tokens {settings.max_tokens} and {model.memory_tokens} memory tokens exceed the model's max_length "
            f"{encoder.max_seq_length}"
        )
    positions, longest = encoder.backbone.max_positions, _longest_input(settings, model.memory_tokens)
    if positions is not None and longest > positions:
        raise SettingsError(
            f"with context_parts {settings.context_parts} of {model.memory_tokens} memory tokens each the language "
            f"model would read up to {longest} tokens, its longest input is {positions}; lower context_parts or "
            "max_tokens"
        )
    arguments = token_arguments(settings, output)
    if not encoder.backbone.has_adapter:
        encoder.backbone.keep_frozen_copy()
    if settings.restart_layers:
        restart_encoder(encoder.backbone, seed=settings.seed)
    train_in_float32(model)
    encoder.backbone.check_head()
    texts, heldout = read_splits(encoder, settings)
    count, asked = settings.steps * settings.batch_size, question_count(settings)
    questions = QuestionRows(encoder, settings, limit=asked) if settings.questions else None
    rows: RunRows | MixedRows = RunRows(texts, length=count - asked, seed=settings.seed)
    sets = {"texts": texts.row_set}
    if questions is not None:
        turns = RunRows(questions, length=asked, seed=settings.seed)
        rows, sets["questions"] = MixedRows(rows, turns, share=settings.question_share), questions.row_set
    check_rows(output, sets, settings.steps)
    measured: list[Rows] = [texts] if questions is None else [texts, questions]
    settings = fit(settings, batch_memory(encoder, settings, measured, bfloat16=arguments.bf16))
    with training_mode(model, settings):
        TokenTrainer(
            settings,
            _CompressionLoss(encoder, settings),
            args=arguments,
            train_dataset=rows,
            eval_dataset=heldout,
            callbacks=list(callbacks),
            measure=lambda trainer: _measure_gain(encoder, trainer.eval_dataset),
        ).run()
    model.changed(f"compression:{settings.objective}")
    return model


def batch_memory(
    encoder: MemoryEncoder, settings: CompressionSettings, sets: Sequence[Rows], *, bfloat16: bool
) -> BatchMemory:
    """What the memory of this stage's updates depends on; measured on the longest of some rows of each data set."""
    rows = [data[row] for data in sets for row in range(min(len(data), _MEASURED_ROWS))]
    longest = max(rows, key=lambda row: len(row["context"]) + len(row["continuation"]))
    tokens = len(longest["context"]) + len(longest["continuation"])
    loss = _CompressionLoss(encoder, settings)

    def forward(copies: int) -> Tensor:
        result: Tensor = loss([longest["context"]] * copies, [longest["continuation"]] * copies)
        return result

    measure = cache(lambda: step_memory(loss, encoder.backbone.language_model, forward, tokens, bfloat16=bfloat16))
    return BatchMemory(encoder.backbone, measure, rows_at_once(settings) * tokens)


def compression_loss(
    encoder: MemoryEncoder,
    contexts: _Tokens,
    continuations: _Tokens,
    objective: Objective,
    *,
    chunk_rows: int | None = None,
    context_parts: int = 1,
) -> Tensor:
    """Loss of a batch in nats.

    Args:
        encoder: The encoder being trained; its frozen backbone is teacher and reader.
        contexts: Token ids of each context, beginning token first.
        continuations: Token ids of each continuation; ignored by reconstruction.
        objective: Distillation is a mean over a text's rows, then over texts; the others are means over all tokens.
        chunk_rows: Number of rows whose logits are in memory at a time; see `llm2comp.training.objectives`.
        context_parts: Most parts that a context is cut into, each with memory tokens of its own.

    Returns:
        A scalar.
    """
    backbone, device = encoder.backbone, encoder.memory.device
    memory = _memories(encoder, [_parts(context, context_parts) for context in contexts])
    following = [context[1:] for context in contexts] if objective == "reconstruction" else continuations
    states = _read_after_memory(encoder, contexts[0][0], memory, following)
    sizes = [len(tokens) for tokens in following]
    before = list(map(len, memory))
    lengths = [1 + k + size for k, size in zip(before, sizes, strict=True)]
    if objective == "distillation":
        student = _rows(states, [(k, k + size + 1) for k, size in zip(before, sizes, strict=True)], lengths)
        teacher = _teacher_rows(encoder, contexts, continuations)
        counts = torch.tensor(sizes, device=device) + 1  # rows of each text
        weights = torch.repeat_interleave(1.0 / (counts * len(contexts)), counts)
        return distillation(student, teacher, weights, backbone.head, chunk_rows=chunk_rows)
    rows = _rows(states, [(k, k + size) for k, size in zip(before, sizes, strict=True)], lengths)
    targets = concatenate(following, device)
    weights = torch.full(targets.shape, 1.0 / len(targets), device=device)
    return cross_entropy(rows, targets, weights, backbone.head, chunk_rows=chunk_rows)


class ContextGain(NamedTuple):
    """What a context is worth to the frozen backbone, in nats per token of continuation; stage 1 cannot teach more."""

    loss_with: float
    loss_without: float
    gain: float
    """loss_without - loss_with."""


@torch.no_grad()
def context_gain(encoder: MemoryEncoder, splits: Iterable[dict[str, Any]]) -> ContextGain:
    """The frozen backbone's loss on continuations, after the whole context and after the beginning token alone."""
    backbone, device = encoder.backbone, encoder.memory.device
    totals, tokens = [0.0, 0.0], 0
    for split in splits:
        context, continuation = split["context"], split["continuation"]
        targets = torch.tensor(continuation, device=device)
        weights = torch.ones_like(targets, dtype=torch.float32)
        for place, before in enumerate((context, context[:1])):
            text = torch.tensor([*before, *continuation], device=device)
            states = backbone.read(backbone.embed_frozen(text), [len(text)])
            totals[place] += float(cross_entropy(states[len(before) - 1 : -1], targets, weights, backbone.head))
        tokens += len(continuation)
    with_context, without = (total / tokens for total in totals)
    return ContextGain(with_context, without, without - with_context)


def _measure_gain(encoder: MemoryEncoder, heldout: Any) -> dict[str, float]:
    gain = context_gain(encoder, map(heldout.split, range(len(heldout))))
    return {f"context_{name}": value for name, value in gain._asdict().items()}


def _parts(context: Sequence[int], most: int) -> list[list[int]]:
    """A context in 1 to `most` parts of nearly equal length, each with the beginning token in front.

    Their number follows from the context's length. Cuts are drawn uniformly, so every number is as frequent.
    """
    beginning, *tokens = context
    count = _count_parts(len(context), most)
    ends = [len(tokens) * part // count for part in range(count + 1)]
    return [[beginning, *tokens[begin:end]] for begin, end in pairwise(ends)]


def _count_parts(length: int, most: int) -> int:
    """Number of parts of a context of so many tokens."""
    return 1 + length % most


def _longest_input(settings: CompressionSettings, memory_tokens: int) -> int:
    """Most tokens that the reader gets of a text: a beginning, the memory tokens of its parts, and what follows."""
    most, longest = settings.context_parts, settings.max_tokens
    if settings.objective == "reconstruction":
        return most * memory_tokens + longest
    contexts = range(settings.margin, longest - settings.margin + 1)
    return 1 + max(_count_parts(length, most) * memory_tokens + longest - length for length in contexts)


def _memories(encoder: MemoryEncoder, texts: Sequence[Sequence[Sequence[int]]]) -> list[Tensor]:
    """Memory tokens of each text, those of its parts in order, (parts x k, hidden)."""
    parts = [part for text in texts for part in text]
    memory = encoder.memory_states(concatenate(parts, encoder.memory.device), list(map(len, parts)))
    return [states.flatten(0, 1) for states in memory.split(list(map(len, texts)))]


def _read_after_memory(encoder: MemoryEncoder, beginning: int, memory: Sequence[Tensor], following: _Tokens) -> Tensor:
    """States of the frozen backbone on [BOS, memory, tokens] of each text, end to end."""
    backbone, device = encoder.backbone, encoder.memory.device
    first = backbone.embed_frozen(torch.tensor([beginning], device=device))
    after = backbone.embed_frozen(concatenate(following, device)).split([len(tokens) for tokens in following])
    parts = [
        part for states, tokens in zip(memory, after, strict=True) for part in (first, states.to(first.dtype), tokens)
    ]
    lengths = [1 + len(states) + len(tokens) for states, tokens in zip(memory, after, strict=True)]
    return backbone.read(torch.cat(parts), lengths)


@torch.no_grad()
def _teacher_rows(encoder: MemoryEncoder, contexts: _Tokens, continuations: _Tokens) -> Tensor:
    """States of the frozen backbone on whole texts, from the last token of the context to the end of the text."""
    backbone = encoder.backbone
    texts = [[*context, *more] for context, more in zip(contexts, continuations, strict=True)]
    lengths = [len(text) for text in texts]
    states = backbone.read(backbone.embed_frozen(concatenate(texts, encoder.memory.device)), lengths)
    spans = [(len(context) - 1, length) for context, length in zip(contexts, lengths, strict=True)]
    return _rows(states, spans, lengths)


def _rows(states: Tensor, spans: Sequence[tuple[int, int]], lengths: Sequence[int]) -> Tensor:
    """Rows [first, last) of each text in packed states, end to end."""
    texts = states.split(list(lengths))
    return torch.cat([text[first:last] for text, (first, last) in zip(texts, spans, strict=True)])


class _CompressionLoss(TextLoss):
    columns = ("context", "continuation")

    def __init__(self, encoder: MemoryEncoder, settings: CompressionSettings) -> None:
        super().__init__()
        self.encoder = encoder
        self._settings = settings

    def forward(self, contexts: _Tokens, continuations: _Tokens) -> Tensor:
        settings = self._settings
        return compression_loss(
            self.encoder,
            contexts,
            continuations,
            settings.objective,
            chunk_rows=settings.chunk_rows,
            context_parts=settings.context_parts,
        )

    def terms(self, batch: Batch) -> int:
        if self._settings.objective == "distillation":
            return len(batch["ids"])
        if self._settings.objective == "reconstruction":
            return sum(len(tokens) - 1 for tokens in batch["context"])
        return sum(map(len, batch["continuation"]))

    def tokens(self, batch: Batch) -> int:
        return sum(map(len, batch["context"])) + sum(map(len, batch["continuation"]))
