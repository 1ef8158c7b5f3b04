"""What a run will take, without training it: mistakes that only the data show, time and memory of each stage.

Each stage runs a few updates of a few rows with its own trainer, on the untrained model: the time of an update grows
with its rows.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llm2comp.errors import LLM2CompError, SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.training.batches import enough_rows
from llm2comp.training.compression import batch_memory as compression_memory
from llm2comp.training.compression import train_compression
from llm2comp.training.contrastive import batch_memory as contrastive_memory
from llm2comp.training.contrastive import train_contrastive
from llm2comp.training.contrastive_data import read_data
from llm2comp.training.loop import train_in_float32
from llm2comp.training.memory import BatchMemory, fit
from llm2comp.training.pretrain import pretrain, training_texts
from llm2comp.training.recipe import check_trainable, first_model
from llm2comp.training.recipe_file import STAGES, Recipe
from llm2comp.training.settings import CompressionSettings, ContrastiveSettings, PretrainSettings, StageSettings
from llm2comp.training.splits import read_splits

__all__ = ["StageEstimate", "estimate_recipe", "estimate_stage"]

_UPDATES, _UNTIMED = 4, 1
_ROWS = {"compression": 4, "mntp": 4}
_MOST_ROWS = 16
_COUNTED_ROWS = 5000
_logger = logging.getLogger(__name__)
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


class _Measured(Exception):
    """Ends a run that was only to be measured."""


class _Clock(TrainerCallback):
    """Ends a run after a few updates, and knows their mean time."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._times.append(time.perf_counter())
        if len(self._times) == _UPDATES:
            raise _Measured

    @property
    def seconds(self) -> float:
        """Mean time of an update after the first."""
        timed = self._times[_UNTIMED - 1 :]
        return (timed[-1] - timed[0]) / (len(timed) - 1)


def estimate_recipe(recipe: Recipe) -> Iterator[StageEstimate]:
    """What each stage of a recipe will take, in their order.

    Raises:
        SettingsError: All mistakes of all stages that can be found without training.
        LLM2CompError: The backbone cannot be loaded.
    """
    stages = {name: stage for name in STAGES if (stage := getattr(recipe, name)) is not None}
    check_trainable({**({"pretrain": recipe.pretrain} if recipe.pretrain else {}), **stages})
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
            settings, notes = _without_derived(settings, model, Path(folder, name))
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
    steps = max(1, min(settings.steps, _COUNTED_ROWS // settings.batch_size))
    train_in_float32(model)
    bfloat16 = settings.precision == "bfloat16"
    if isinstance(settings, ContrastiveSettings):
        data = read_data(_shortened(settings, steps), model.prompts.get("query") or "")
        rows, more = sum(map(len, data.training.values())), bool(settings.corpora)
        memory = contrastive_memory(model, settings, data, bfloat16=bfloat16)
    else:
        texts, _ = read_splits(model.encoder, _shortened(settings, steps))
        rows, more = len(texts), True
        enough_rows(rows, settings.batch_size, settings.corpora)
        memory = compression_memory(model.encoder, settings, texts, bfloat16=bfloat16)
    more = more and rows >= steps * settings.batch_size
    chosen, needed = _decided(settings, memory)
    small = min(settings.batch_size, _ROWS.get(name, _MOST_ROWS))
    seconds = _measure(model, _small(chosen, small), train) * settings.batch_size / small
    return StageEstimate(
        name=name,
        updates=settings.steps,
        batch_size=settings.batch_size,
        rows=rows,
        more_rows=more,
        seconds=seconds,
        memory=needed,
        available=memory.available,
        notes=(*notes, *_decisions(settings, chosen)),
    )


def _decided(settings: _Settings, memory: BatchMemory) -> tuple[_Settings, float]:
    """Settings in which nothing is left to the memory, and the bytes of an update."""
    chosen = fit(settings, memory)
    return chosen, memory.needed(chosen)


def _decisions(before: StageSettings, chosen: StageSettings) -> Iterator[str]:
    for field in ("micro_batch", "gradient_checkpointing"):
        if getattr(before, field, None) == "auto" and (value := getattr(chosen, field)):
            yield f"{field} {str(value).lower()}, for the memory"


def _shortened(settings: _Settings, steps: int) -> _Settings:
    return replace(settings, steps=steps, warmup_steps=0, decay_steps=None)


def _small(settings: _Settings, rows: int) -> _Settings:
    """Settings of a few updates of a few rows, of which nothing is kept."""
    changes: dict[str, Any] = {"batch_size": rows, "accumulation": 1, "report_to": (), "stop_diverged": False}
    changes |= {"log_steps": 10**6, "save_steps": 10**6, "eval_steps": 10**6}
    if isinstance(settings, ContrastiveSettings):
        changes |= {"micro_batch": settings.micro_batch and min(rows, int(settings.micro_batch))}
    return replace(_shortened(settings, _UPDATES), **changes)


def _measure(model: LLM2Comp, settings: Any, train: Callable[..., object] | None) -> float:
    """Seconds of an update."""
    clock = _Clock()
    run = train or (train_contrastive if isinstance(settings, ContrastiveSettings) else train_compression)
    with TemporaryDirectory(prefix="llm2comp-check-") as folder, _quiet(), suppress(_Measured):
        run(model, settings, Path(folder), callbacks=[clock])
    return clock.seconds


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the reports of training, which are those of updates that are not kept."""
    logger = logging.getLogger("llm2comp.training")
    before, logger.disabled = logger.level, False
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _pretrained(settings: PretrainSettings, folder: Path) -> tuple[StageEstimate, Path]:
    """What stage 0 will take, and a backbone of its shape that is hardly trained."""
    small = min(settings.batch_size, _ROWS["compression"])
    needed = max(50_000, 8 * _UPDATES * small * settings.sequence_length)
    texts = _beginning(training_texts(settings.corpora), needed)
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"id": str(row), "text": text}) + "\n" for row, text in enumerate(texts)))
    heldout = folder / "heldout.jsonl"
    heldout.write_text(corpus.read_text())
    reduced = replace(
        _small(settings, small), corpora=(str(corpus),), heldout=str(heldout), tokenizer_share=1.0, eval_steps=10**6
    )
    started = time.perf_counter()
    clock = _Timer()
    with _quiet():
        backbone = pretrain(reduced, folder / "pretrain", callbacks=[clock])
    _logger.debug("pretrain: measured in %.1f s", time.perf_counter() - started)
    return StageEstimate(
        name="pretrain",
        updates=settings.steps,
        batch_size=settings.batch_size,
        rows=len(texts),
        more_rows=True,
        seconds=clock.seconds * settings.batch_size / small,
        memory=0.0,
        available=0.0,
        notes=("memory not estimated; tokenizing the texts comes first",),
    ), backbone


class _Timer(_Clock):
    """A clock that lets the run end by itself."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._times.append(time.perf_counter())


def _beginning(texts: Iterator[str], characters: int) -> list[str]:
    """The first texts, until they have so many characters."""
    taken: list[str] = []
    total = 0
    for text in texts:
        taken.append(text[:20_000])
        total += len(taken[-1])
        if total >= characters and len(taken) >= 50:
            break
    return taken


def _without_derived(
    settings: CompressionSettings | ContrastiveSettings, model: LLM2Comp, folder: Path
) -> tuple[CompressionSettings | ContrastiveSettings, tuple[str, ...]]:
    """Settings with made-up pairs of the longest texts instead of pairs that are still to be derived."""
    if not isinstance(settings, ContrastiveSettings) or all(Path(path).exists() for path in settings.pairs):
        return settings, ()
    folder.mkdir()
    count = max(settings.batch_size, _MOST_ROWS) * 2 + settings.heldout_rows
    limits = [
        limit or model.encoder.max_seq_length for limit in (settings.max_query_tokens, settings.max_passage_tokens)
    ]
    queries, passages = ([f"{row} " + "word " * limit for row in range(count)] for limit in limits)
    with (folder / "made-up.jsonl").open("w", encoding="utf-8") as file:
        for query, passage in islice(zip(queries, passages, strict=True), count):
            file.write(json.dumps({"query": query, "positive": passage}) + "\n")
    note = "the pairs are still to be derived: at most, with the longest texts allowed"
    return replace(settings, pairs=(str(folder / "made-up.jsonl"),), mixture={}), (note,)
