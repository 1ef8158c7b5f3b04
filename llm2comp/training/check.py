"""What a run will take, without training it: mistakes that only the data show, time and memory of each stage.

Each stage runs a few updates of a few rows with its own trainer, on the untrained model. Time grows with the tokens of
an update, so theirs is scaled by the tokens that the data show.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

import numpy as np
from datasets import Dataset

from llm2comp.errors import LLM2CompError, SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.training.arguments import in_bfloat16, rows_at_once
from llm2comp.training.batches import Rows, enough_rows
from llm2comp.training.check_data import check_data, count_questions, count_texts, shortened
from llm2comp.training.compression import batch_memory as compression_memory
from llm2comp.training.contrastive import batch_memory as contrastive_memory
from llm2comp.training.contrastive import length_limits
from llm2comp.training.contrastive_data import read_data, sample_texts
from llm2comp.training.late_interaction import check_late_interaction
from llm2comp.training.loop import train_in_float32
from llm2comp.training.memory import BatchMemory, fit
from llm2comp.training.pretrain import pretrain, training_texts, update_memory
from llm2comp.training.probe import UPDATES, BriefRun, quiet, rate_of, seconds_per_token, small, write_texts
from llm2comp.training.question_rows import QuestionRows
from llm2comp.training.recipe import check_trainable, first_model
from llm2comp.training.recipe_file import STAGES, Recipe
from llm2comp.training.settings import CompressionSettings, ContrastiveSettings, PretrainSettings, StageSettings
from llm2comp.training.splits import Splits, question_count

__all__ = ["StageEstimate", "estimate_recipe", "estimate_stage", "with_pairs"]

_MOST_TEXTS = 20_000
_TOKENIZED_TEXTS = 256
_PRETRAIN_ROWS = 4
_FEWEST_TEXTS = 50
_MADE_UP = 40
_Settings = TypeVar("_Settings", bound=StageSettings)


@dataclass(frozen=True)
class StageEstimate:
    """What a stage will take on this machine."""

    name: str
    """Name of the stage."""
    updates: int
    """Number of updates."""
    batch_size: int
    """Rows of an update."""
    rows: int
    """Rows of data."""
    more_rows: bool
    """Whether there are more, which were not counted."""
    tokens: float
    """Tokens of an update, without memory tokens."""
    seconds: float
    """Of an update."""
    memory: float
    """Bytes that an update takes besides the model."""
    available: float
    """Bytes that an update may take."""
    notes: tuple[str, ...] = ()
    """What is decided by the memory, and what the estimate does not know."""

    @property
    def total_seconds(self) -> float:
        """Time of all updates, without held-out losses and checkpoints."""
        return self.updates * self.seconds


class _Data(NamedTuple):
    """What a stage trains on."""

    rows: int
    more_rows: bool
    tokens_per_row: float
    memory: BatchMemory
    sets: Mapping[str, Dataset]
    notes: tuple[str, ...] = ()
    tokens_of_pass: float = 0.0
    """Of a row, memory tokens included; of pairs and sentences."""


def estimate_recipe(recipe: Recipe) -> Iterator[StageEstimate]:
    """What each stage of a recipe will take, in their order.

    Raises:
        SettingsError: All mistakes of all stages that can be found without training; those in the settings and in the
            data before a model is loaded.
        LLM2CompError: The backbone cannot be loaded.
    """
    stages = {name: stage for name in STAGES if (stage := getattr(recipe, name)) is not None}
    check_trainable({**({"pretrain": recipe.pretrain} if recipe.pretrain else {}), **stages})
    with quiet():
        check_data(stages, recipe.model)
    problems: list[str] = []
    with TemporaryDirectory(prefix="llm2comp-check-") as folder:
        backbone: str | Path | None = recipe.model.backbone
        if recipe.pretrain is not None:
            estimate, backbone = _pretrained(recipe.pretrain, Path(folder))
            yield estimate
        assert backbone is not None
        model = None
        for name, settings in stages.items():
            model = model or first_model(recipe.model, backbone, settings.precision)
            settings, notes = with_pairs(settings, model, Path(folder, name))
            try:
                yield estimate_stage(name, model, settings, notes=notes)
            except LLM2CompError as error:
                problems += [f"{name}: {each}" for each in getattr(error, "problems", None) or (str(error),)]
    if problems:
        raise SettingsError(*problems)


def estimate_stage(
    name: str,
    model: LLM2Comp,
    settings: CompressionSettings | ContrastiveSettings,
    *,
    notes: tuple[str, ...] = (),
    train: Callable[..., object] | None = None,
) -> StageEstimate:
    """What a stage will take; the model is changed by a few updates.

    Args:
        name: Name of the stage.
        model: The model that it starts from.
        settings: Its settings.
        notes: Taken over into the estimate.
        train: As `train_compression`, for a stage with another objective.

    Raises:
        LLM2CompError: The data cannot be read, or do not fill a batch.
    """
    train_in_float32(model)
    with quiet():
        data = _contrastive(model, settings) if isinstance(settings, ContrastiveSettings) else _texts(model, settings)
    available, chosen = data.memory.available, fit(settings, data.memory)
    whole = data.memory.whole_tokens(settings, chosen)
    tokens = data.tokens_per_row * settings.batch_size
    timed = chosen
    if isinstance(chosen, ContrastiveSettings) and data.tokens_of_pass * rows_at_once(chosen) <= whole:
        timed = replace(chosen, micro_batch=None)  # as most of its batches then go
    per_token = seconds_per_token(model, timed, data.tokens_per_row, data.sets, train)
    return StageEstimate(
        name=name,
        updates=settings.steps,
        batch_size=settings.batch_size,
        rows=data.rows,
        more_rows=data.more_rows,
        tokens=tokens,
        seconds=per_token * tokens,
        memory=data.memory.needed(chosen, whole),
        available=available,
        notes=(*notes, *data.notes, *_decisions(settings, chosen)),
    )


def _texts(model: LLM2Comp, settings: CompressionSettings) -> _Data:
    """All texts are counted by their characters, all questions by lines; the first ones are tokenized."""
    asked = question_count(settings)
    most = min(settings.steps * settings.batch_size - asked, _MOST_TEXTS)
    rows = count_texts(settings, max(most, settings.batch_size))
    texts = Splits(model.encoder, settings.corpora, settings, limit=max(settings.batch_size, _TOKENIZED_TEXTS))
    enough_rows(len(texts), settings.batch_size, settings.corpora)
    sets: list[Rows] = [texts]
    tokens, more = _mean_tokens([texts.split(row) for row in range(len(texts))]), rows >= most
    notes: tuple[str, ...] = ()
    if asked:
        sets.append(questions := QuestionRows(model.encoder, settings, limit=min(asked, _TOKENIZED_TEXTS)))
        tokens += settings.question_share * (_mean_tokens(map(questions.__getitem__, range(len(questions)))) - tokens)
        most = min(asked, _MOST_TEXTS)
        rows, more = rows + (lines := count_questions(settings, most)), more or lines == most
        notes = (_describe_questions(lines, asked, more=lines == most),)
    memory = compression_memory(model.encoder, settings, sets, bfloat16=in_bfloat16(settings))
    return _Data(rows, more, tokens, memory, {}, notes)


def _mean_tokens(rows: Iterable[Mapping[str, Any]]) -> float:
    return float(np.mean([len(row["context"]) + len(row["continuation"]) for row in rows]))


def _describe_questions(lines: int, asked: int, *, more: bool) -> str:
    if more:
        return f"{asked:,} rows are questions; there are at least {lines:,}"
    return f"{asked:,} rows are questions: {asked / lines:.2g} passes over {lines:,}"


def _contrastive(model: LLM2Comp, settings: ContrastiveSettings) -> _Data:
    """Sentences are read up to a number; pairs are all read, and the lengths of some are taken."""
    check_late_interaction(settings, model.memory_tokens)
    brief = shortened(settings)
    data = read_data(brief, model.prompts.get("query") or "")
    sizes = {name: len(rows) for name, rows in data.training.items()}
    total = sum(sizes.values())
    model.encoder.task_limits = length_limits(model.memory_tokens, settings)
    try:
        samples = sample_texts(model, data, seed=settings.seed)
        memory = contrastive_memory(model, settings, data, bfloat16=in_bfloat16(settings))
        memory.measure()  # within the limits
    finally:
        model.encoder.task_limits = {}

    def mean(memory_tokens: int) -> float:
        """Tokens of a row, so many of each text not counted."""
        means = (float((sample.lengths - memory_tokens).sum(axis=1).mean()) for sample in samples)
        return sum(size * mean for size, mean in zip(sizes.values(), means, strict=True)) / total

    more = bool(settings.corpora) and total >= brief.steps * brief.batch_size
    return _Data(total, more, mean(model.memory_tokens), memory, data.training, tokens_of_pass=mean(0))


def _decisions(before: StageSettings, chosen: StageSettings) -> Iterator[str]:
    for field in ("micro_batch", "gradient_checkpointing"):
        if getattr(before, field, None) == "auto" and (value := getattr(chosen, field)):
            yield f"{field} {str(value).lower()}, for the memory"


def _pretrained(settings: PretrainSettings, folder: Path) -> tuple[StageEstimate, Path]:
    """What stage 0 will take, and a backbone of its shape that is hardly trained."""
    rows = min(settings.batch_size, _PRETRAIN_ROWS)
    needed = max(50_000, 8 * UPDATES * rows * settings.sequence_length)
    texts = _beginning(training_texts(settings.corpora), needed)
    corpus, heldout = (write_texts(folder / f"{name}.jsonl", texts) for name in ("corpus", "heldout"))
    reduced = replace(small(settings, rows), corpora=(corpus,), heldout=heldout, tokenizer_share=1.0)
    with quiet():
        backbone = pretrain(reduced, folder / "pretrain", callbacks=[BriefRun()])
    tokens = settings.batch_size * settings.sequence_length
    memory, available = update_memory(settings, backbone)
    return StageEstimate(
        name="pretrain",
        updates=settings.steps,
        batch_size=settings.batch_size,
        rows=len(texts),
        more_rows=True,
        tokens=tokens,
        seconds=tokens / rate_of(folder / "pretrain"),
        memory=memory,
        available=available,
        notes=("training the tokenizer and tokenizing the texts come first",),
    ), backbone


def _beginning(texts: Iterator[str], characters: int) -> list[str]:
    """The first texts, until they have so many characters."""
    taken: list[str] = []
    total = 0
    for text in texts:
        taken.append(text[:20_000])
        total += len(taken[-1])
        if total >= characters and len(taken) >= _FEWEST_TEXTS:
            break
    return taken


def with_pairs(
    settings: CompressionSettings | ContrastiveSettings, model: LLM2Comp, folder: Path
) -> tuple[CompressionSettings | ContrastiveSettings, tuple[str, ...]]:
    """Settings with made-up pairs of the longest texts instead of pairs that are still to be derived."""
    if not isinstance(settings, ContrastiveSettings) or all(Path(path).exists() for path in settings.pairs):
        return settings, ()
    folder.mkdir()
    count = max(settings.batch_size, _MADE_UP) + settings.heldout_rows
    limits = [
        limit or model.encoder.max_seq_length for limit in (settings.max_query_tokens, settings.max_passage_tokens)
    ]
    queries, passages = ([f"{row} " + "word " * limit for row in range(count)] for limit in limits)
    with (folder / "made-up.jsonl").open("w", encoding="utf-8") as file:
        for query, passage in islice(zip(queries, passages, strict=True), count):
            file.write(json.dumps({"query": query, "positive": passage}) + "\n")
    note = "the pairs are still to be derived: at most, with the longest texts allowed"
    return replace(settings, pairs=(str(folder / "made-up.jsonl"),), mixture={}), (note,)
