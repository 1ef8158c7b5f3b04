"""How long updates and evaluations take: from what has run, else measured here on a few small ones, or not known."""

import logging
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from llm2comp.model import LLM2Comp
from llm2comp.training.batches import HELDOUT_ROWS
from llm2comp.training.check import StageEstimate, estimate_stage, with_pairs
from llm2comp.training.probe import quiet
from llm2comp.training.recipe import starting_point
from llm2comp.training.recipe_file import Recipe
from llm2comp.training.settings import ContrastiveSettings, StageSettings
from llm2comp_benchmarks.ablation.lineages import Lineage, mark_of, stage_settings
from llm2comp_benchmarks.ablation.measure import READ_TEXTS
from llm2comp_benchmarks.ablation.pace import read_pace
from llm2comp_benchmarks.ablation.texts import texts_of
from llm2comp_benchmarks.evaluate.tasks import Task
from llm2comp_benchmarks.results.read import read_record
from llm2comp_benchmarks.systems.mntp.encoder import text_mean_of
from llm2comp_benchmarks.systems.mntp.objective import train_masked

__all__ = ["PROBED", "RAN", "UNKNOWN", "Rate", "Rates"]

RAN, PROBED, UNKNOWN = "measured", "probed", "unknown"
"""Whether a rate is that of updates or evaluations that have run, of a few small ones run for the forecast, or none."""
_ENCODED_TEXTS = 24
_CHARACTERS_PER_TOKEN = 4.5
_FORWARD = 1 / 3
"""Time of a pass without gradients, relative to one with them."""
_REPEATS = {"echo": 2, "metaeol": 8}
"""Times that a pooling's prompt has each text."""


class Rate(NamedTuple):
    """Seconds, and where they are from."""

    seconds: float
    source: str


@dataclass
class Rates:
    """Seconds of updates and of evaluations.

    Attributes:
        recipe: Of the ablation.
        backbone: The language model.
        output: Folder of the models.
        results: Folder of the result files.
        tasks: What models are measured on.
        texts: What their embeddings are described on.
        probe: Whether small updates and evaluations are run where none of the kind has run yet, which takes minutes.
            Otherwise the most alike that have run stand for them, and without any their time is unknown.
    """

    recipe: Recipe
    backbone: str | Path
    output: Path
    results: Path
    tasks: Sequence[Task]
    texts: Sequence[str]
    probe: bool = True
    _estimates: dict[tuple[str, str], StageEstimate] = field(default_factory=dict)
    _ratios: dict[tuple[str, str], float] = field(default_factory=dict)
    _models: dict[str, LLM2Comp] = field(default_factory=dict)

    def refresh(self) -> None:
        """Forgets what the result files said, and the models; what was measured here is kept."""
        self._models.clear()
        for name in ("_records", "_seconds", *(() if self.probe else ("_seconds_per_character",))):
            self.__dict__.pop(name, None)

    def update(self, lineage: Lineage, stage: str) -> Rate:
        """Seconds of an update of a stage: its own, those of the same stage with another seed, or probed here.

        What is probed is corrected by how far the probes of stages that ran since then were off.
        """
        settings, key = stage_settings(self.recipe, lineage)[stage], _key(lineage, stage)
        for folder in (self.output / lineage.name, *self._alike(lineage)):
            pace = read_pace(folder / stage, settings.steps, mark_of(lineage))
            seconds = pace.seconds
            if seconds is None and pace.tokens_per_second is not None and self.probe:
                seconds = self._estimate(lineage, stage, settings).tokens / pace.tokens_per_second
            if seconds is not None:
                if key in self._estimates:
                    self._ratios[key] = seconds / self._estimate(lineage, stage, settings).seconds
                return Rate(seconds, RAN)
        if not self.probe:
            return self._of_others(lineage, stage, settings)
        correction = median(self._ratios.values()) if self._ratios else 1.0
        return Rate(correction * self._estimate(lineage, stage, settings).seconds, PROBED)

    def heldout(self, lineage: Lineage, stage: str, updates: int) -> float:
        """Seconds of the held-out losses of so many updates."""
        settings = stage_settings(self.recipe, lineage)[stage]
        if isinstance(settings, ContrastiveSettings):
            rows = settings.heldout_rows
        else:
            rows = HELDOUT_ROWS if getattr(settings, "heldout", None) else 0
        of_row = self.update(lineage, stage).seconds / settings.batch_size
        return _FORWARD * of_row * rows * (updates // settings.eval_steps)

    def task(self, task: Task, pooling: str = "") -> Rate:
        """Seconds of the evaluation of a model on a task; `pooling` of a language model without training."""
        times = [seconds[task.name] for seconds in self._seconds if task.name in seconds]
        if times and pooling not in _REPEATS:
            return Rate(median(times), RAN)
        if not self.probe and not any(self._seconds):
            return Rate(0.0, UNKNOWN)  # before all texts of the tasks are read for their lengths
        return self._of_characters(self._characters[task.name] * _REPEATS.get(pooling, 1))

    def analysis(self) -> Rate:
        """Seconds of the description of a model's embeddings and of the reading of its memory tokens."""
        times = [float(record["analysis"]["seconds"]) for record in self._records if _has_seconds(record)]
        if times:
            return Rate(median(times), RAN)
        most = self.recipe.model.max_length * _CHARACTERS_PER_TOKEN
        lengths = [min(len(text), most) for text in self.texts]
        read = 4 * READ_TEXTS * sum(lengths) / max(1, len(lengths))
        return self._of_characters(sum(lengths) + read)

    def _of_others(self, lineage: Lineage, stage: str, settings: StageSettings) -> Rate:
        """That of the stage with the same pretext and other memory tokens; else with any pretext that has run."""
        for pretext in (lineage.pretext, "*"):
            folders = sorted(self.output.glob(f"{pretext}-k*-seed*/{stage}"))
            paces = [read_pace(folder, settings.steps, mark_of(lineage)).seconds for folder in folders]
            if times := [seconds for seconds in paces if seconds is not None]:
                return Rate(median(times), RAN)
        return Rate(0.0, UNKNOWN)

    def _alike(self, lineage: Lineage) -> Iterator[Path]:
        """Folders of lineages that differ in the seed alone."""
        for folder in sorted(self.output.glob(f"{lineage.pretext}-k{lineage.memory_tokens}-seed*")):
            if folder.name != lineage.name:
                yield folder

    @cached_property
    def _records(self) -> list[dict[str, Any]]:
        return [read_record(path) for path in sorted(self.results.glob("*.json"))] if self.results.is_dir() else []

    @cached_property
    def _seconds(self) -> list[dict[str, float]]:
        """Seconds by task of the trained models that have been measured."""
        return [
            record.get("seconds", {})
            for record in self._records
            if record.get("settings", {}).get("ablation", {}).get("stage") != "untrained"
        ]

    @cached_property
    def _characters(self) -> dict[str, float]:
        """Characters of each task's texts, as far as a model reads them."""
        most = self.recipe.model.max_length * _CHARACTERS_PER_TOKEN
        return {task.name: sum(min(len(text), most) for text in texts_of(task)) for task in self.tasks}

    def _of_characters(self, characters: float) -> Rate:
        """Seconds that the encoding of so many characters takes."""
        seconds = self._seconds_per_character
        if seconds is None:
            return Rate(0.0, UNKNOWN)
        return Rate(characters * seconds, PROBED if self.probe else RAN)

    @cached_property
    def _seconds_per_character(self) -> float | None:
        """Measured on some texts of all tasks, drawn by their length, because long texts take the time.

        Without probes that of the tasks that have been evaluated; None where none has.
        """
        if not self.probe:
            if not any(self._seconds):
                return None
            times = {name: [one[name] for one in self._seconds if name in one] for name in self._characters}
            known = {name: median(seconds) for name, seconds in times.items() if seconds}
            return sum(known.values()) / sum(self._characters[name] for name in known) if known else None
        texts = [text for task in self.tasks for text in texts_of(task)] or list(self.texts)
        most = self.recipe.model.max_length * _CHARACTERS_PER_TOKEN
        lengths = [min(len(text), most) + 1 for text in texts]
        chosen = random.Random(0).choices(texts, lengths, k=_ENCODED_TEXTS)
        model = self._model("memory")
        with quiet("llm2comp.model", logging.ERROR):  # texts are cut, as they are when they are measured
            model.encode_document(chosen[:2], show_progress_bar=False)  # the first pass compiles
            begun = time.perf_counter()
            model.encode_document(chosen, batch_size=64, show_progress_bar=False)
            seconds = time.perf_counter() - begun
        return seconds / sum(min(len(text), most) for text in chosen)

    def _estimate(self, lineage: Lineage, stage: str, settings: StageSettings) -> StageEstimate:
        """A few small updates of a stage, run once for all lineages with the same objective and k."""
        key = _key(lineage, stage)
        if key not in self._estimates:
            train = train_masked if key == ("mntp", "pretext") else None
            model = self._model("mntp" if lineage.pretext == "mntp" else "memory")
            with _filled(settings, model) as chosen:
                self._estimates[key] = estimate_stage(stage, model, chosen, train=train)
        estimate = self._estimates[key]
        return replace(estimate, seconds=estimate.seconds * self._more_memory(lineage, estimate))

    def _more_memory(self, lineage: Lineage, estimate: StageEstimate) -> float:
        """Time with a lineage's memory tokens, relative to that with the recipe's: each update has two texts a row."""
        ours, probed = (2 * k * estimate.batch_size for k in (lineage.memory_tokens, self.recipe.model.memory_tokens))
        return (estimate.tokens + ours) / (estimate.tokens + probed) if lineage.memory_tokens else 1.0

    def _model(self, kind: str) -> LLM2Comp:
        """An untrained model to run a few updates with; it is changed by them, which does not change their time."""
        if kind not in self._models:
            compression = self.recipe.compression
            assert compression is not None
            if kind == "mntp":
                self._models[kind] = text_mean_of(self.backbone, self.recipe.model, precision=compression.precision)
            else:
                self._models[kind] = starting_point(self.recipe.model, self.backbone, None, compression)()
        return self._models[kind]


def _key(lineage: Lineage, stage: str) -> tuple[str, str]:
    """Stages with the same key take the same time, but for the number of memory tokens."""
    if stage == "pretext":
        return lineage.pretext, stage
    return "mntp" if lineage.pretext == "mntp" else "memory", stage


def _has_seconds(record: dict[str, Any]) -> bool:
    analysis = record.get("analysis")
    return isinstance(analysis, dict) and "seconds" in analysis


@contextmanager
def _filled(settings: Any, model: LLM2Comp) -> Iterator[Any]:
    """The settings of a stage, with made-up pairs where its own are still to be derived."""
    with TemporaryDirectory(prefix="llm2comp-forecast-") as folder:
        yield with_pairs(settings, model, Path(folder) / "pairs")[0]
