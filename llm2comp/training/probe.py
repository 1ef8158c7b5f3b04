"""Time of a stage's updates, measured on a few small ones with the stage's own trainer; nothing of them is kept."""

import json
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llm2comp.model import LLM2Comp
from llm2comp.training.batches import share_of_rows
from llm2comp.training.compression import train_compression
from llm2comp.training.contrastive import train_contrastive
from llm2comp.training.metrics import read_metrics
from llm2comp.training.settings import CompressionSettings, ContrastiveSettings, StageSettings
from llm2comp.training.sources import training_documents
from llm2comp.training.splits import passages

__all__ = ["UPDATES", "BriefRun", "quiet", "rate_of", "seconds_per_token", "small", "write_texts"]

UPDATES = 8
"""Most updates that are measured, the first included, which is not timed."""
_ENOUGH_SECONDS = 4.0
_TOKENS = 1000
_FEWEST_ROWS = 2
_FILED = 4
_Settings = TypeVar("_Settings", bound=StageSettings)


class BriefRun(TrainerCallback):
    """Ends a run after a few updates: as soon as those after the first have taken some seconds."""

    def __init__(self) -> None:
        self._timed_since: float | None = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ends the run if it has been timed for long enough."""
        now = time.perf_counter()
        if self._timed_since is None:
            self._timed_since = now
        elif now - self._timed_since >= _ENOUGH_SECONDS:
            control.should_training_stop = True


def rate_of(folder: Path) -> float:
    """Tokens per second of a brief run, without its first update."""
    rates = [entry["tokens_per_second"] for entry in read_metrics(folder) if "tokens_per_second" in entry]
    timed = rates[1:] or rates
    return float(len(timed) / sum(1 / rate for rate in timed))


def small(settings: _Settings, rows: int) -> _Settings:
    """Settings of a few updates of a few rows, each of which reports its rate."""
    changes: dict[str, Any] = {"batch_size": rows, "accumulation": 1, "report_to": (), "stop_diverged": False}
    changes |= {"steps": UPDATES, "warmup_steps": 0, "decay_steps": None}
    changes |= {"log_steps": 1, "save_steps": 10**6, "eval_steps": 10**6}
    if isinstance(settings, ContrastiveSettings):
        changes |= {"micro_batch": settings.micro_batch and min(rows, int(settings.micro_batch)), "heldout_rows": 0}
    elif isinstance(settings, CompressionSettings):
        changes |= {"heldout": None}
        if not share_of_rows(UPDATES * rows, settings.question_share):
            changes |= {"questions": ()}
    return replace(settings, **changes)


def seconds_per_token(
    model: LLM2Comp,
    settings: CompressionSettings | ContrastiveSettings,
    tokens_per_row: float,
    rows: Mapping[str, Dataset],
    train: Callable[..., object] | None,
) -> float:
    """Seconds of a stage's updates by tokens of text; the model is changed by a few updates.

    Args:
        model: The model that the stage starts from.
        settings: Its settings, in which nothing is left to the memory.
        tokens_per_row: Mean tokens of a row.
        rows: Rows by data set, for stages 2 and 3.
        train: As `train_compression`, for a stage with another objective; None: that of the settings.
    """
    at_once = max(_FEWEST_ROWS, round(_TOKENS / tokens_per_row))
    with TemporaryDirectory(prefix="llm2comp-check-") as name:
        folder = Path(name)
        if isinstance(settings, CompressionSettings):
            texts = _beginning(settings, _FILED * at_once)
            chosen: Any = replace(settings, corpora=(write_texts(folder / "texts.jsonl", texts),))
            count = len(texts)
        else:
            largest = max(rows.values(), key=len)
            distinct = _distinct(largest, _FILED * at_once, settings.seed)
            chosen, count = _with_rows(settings, folder, distinct), len(distinct)
        chosen = small(chosen, max(1, min(at_once, count, settings.batch_size)))
        default = train_contrastive if isinstance(settings, ContrastiveSettings) else train_compression
        with quiet():
            (train or default)(model, chosen, folder / "run", callbacks=[BriefRun()])
        return 1 / rate_of(folder / "run")


def _beginning(settings: CompressionSettings, count: int) -> list[str]:
    """The first texts of stage 1."""
    documents = (document for source in settings.corpora for document in training_documents(source))
    return [text for _, text in islice(passages(documents, settings.min_characters), count)]


def _distinct(rows: Dataset, count: int, seed: int) -> list[list[str]]:
    """Texts of some rows, none of which is in two: a batch holds no text twice."""
    seen: set[str] = set()
    chosen = []
    for place in random.Random(seed).sample(range(len(rows)), min(len(rows), 10 * count)):
        texts = list(rows[place].values())
        if seen.isdisjoint(texts):
            chosen.append(texts)
            seen.update(texts)
        if len(chosen) == count:
            break
    return chosen


def _with_rows(settings: ContrastiveSettings, folder: Path, rows: Sequence[Sequence[str]]) -> ContrastiveSettings:
    """Settings whose data are these rows alone."""
    if settings.corpora:
        return replace(settings, corpora=(write_texts(folder / "texts.jsonl", [row[0] for row in rows]),))
    path = folder / "pairs.jsonl"
    lines = ({"query": query, "positive": positive, "negative": more} for query, positive, *more in rows)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return replace(settings, pairs=(str(path),), mixture={})


def write_texts(path: Path, texts: Sequence[str]) -> str:
    """Writes a corpus; returns its path."""
    path.write_text(
        "".join(json.dumps({"id": str(row), "text": text}) + "\n" for row, text in enumerate(texts)), encoding="utf-8"
    )
    return str(path)


@contextmanager
def quiet(name: str = "llm2comp.training", level: int = logging.WARNING) -> Iterator[None]:
    """Without the reports below a level, which are those of updates that are not kept."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
