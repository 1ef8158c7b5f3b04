"""What is wrong with the data of stages, found before any model is loaded."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

from llm2comp.errors import LLM2CompError, SettingsError
from llm2comp.training.batches import enough_rows
from llm2comp.training.contrastive import length_limits
from llm2comp.training.contrastive_data import read_data
from llm2comp.training.question_rows import read_question_files
from llm2comp.training.settings import CompressionSettings, ContrastiveSettings, ModelSettings
from llm2comp.training.sources import training_documents
from llm2comp.training.splits import no_text_message, passages

__all__ = ["COUNTED_ROWS", "check_data", "count_questions", "count_texts", "shortened"]

COUNTED_ROWS = 5000
"""Rows after which the data of a stage are not read on."""

_Stage = CompressionSettings | ContrastiveSettings
_AnyStage = TypeVar("_AnyStage", CompressionSettings, ContrastiveSettings)


def check_data(stages: Mapping[str, _Stage], model: ModelSettings) -> None:
    """Reads the beginning of each stage's texts and questions, and all its pairs if they are there.

    Raises:
        SettingsError: All stages whose data cannot be read, are too few for a batch, or do not fit the model.
    """
    problems = [f"{name}: {problem}" for name, stage in stages.items() for problem in _problems(stage, model)]
    if problems:
        raise SettingsError(*problems)


def _problems(settings: _Stage, model: ModelSettings) -> Iterator[str]:
    try:
        if isinstance(settings, CompressionSettings):
            count_texts(settings, settings.batch_size)
            count_questions(settings, COUNTED_ROWS)
            return
        length_limits(model.memory_tokens, settings)
        if settings.corpora:
            read_data(shortened(settings, 1), model.query_instruction)
        elif all(Path(path).exists() for path in settings.pairs):
            read_data(settings, model.query_instruction)
    except LLM2CompError as error:
        yield from getattr(error, "problems", None) or (str(error),)


def shortened(settings: _AnyStage, steps: int | None = None) -> _AnyStage:
    """Settings of so many updates, or of as many as have `COUNTED_ROWS` rows."""
    steps = steps or max(1, min(settings.steps, COUNTED_ROWS // settings.batch_size))
    return replace(settings, steps=steps, warmup_steps=0, decay_steps=None)


def count_texts(settings: CompressionSettings, most: int) -> int:
    """Number of texts of stage 1 that have enough characters, at most `most`; tokens are not counted.

    Raises:
        CorpusError: A corpus cannot be read.
        SettingsError: No text is long enough, of the held-out ones neither, or the texts do not fill a batch.
    """
    rows = _long_enough(settings.corpora, settings, most)
    enough_rows(rows, settings.batch_size, settings.corpora)
    if settings.heldout is not None:
        _long_enough((settings.heldout,), settings, 1)
    return rows


def count_questions(settings: CompressionSettings, most: int) -> int:
    """Number of questions of stage 1, at most `most`; tokens are not counted.

    Raises:
        CorpusError: A file cannot be read.
        SettingsError: A row lacks a field, or the files are empty.
    """
    count = sum(1 for _ in islice(read_question_files(settings.questions), most))
    if settings.questions and not count:
        raise SettingsError(f"{', '.join(settings.questions)}: no question to train on: the files are empty")
    return count


def _long_enough(corpora: Sequence[str], settings: CompressionSettings, most: int) -> int:
    counts: Counter[str] = Counter()
    documents = (document for source in corpora for document in training_documents(source))
    if rows := sum(1 for _ in islice(passages(documents, settings.min_characters, counts), most)):
        return rows
    raise SettingsError(no_text_message(corpora, settings, counts))
