"""Measuring the models of an ablation: one result file per model, to which missing tasks are added."""

import logging
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llm2comp import LLM2Comp, load
from llm2comp.backbone.backbone import Backbone
from llm2comp.errors import SettingsError
from llm2comp.protocols import Encoder
from llm2comp_benchmarks.ablation.lineages import Lineage, Stage
from llm2comp_benchmarks.evaluate.tasks import Task, evaluate
from llm2comp_benchmarks.results.read import read_record
from llm2comp_benchmarks.results.record import TaskResult, result_record, write_record
from llm2comp_benchmarks.systems.mntp.encoder import load_text_mean
from llm2comp_benchmarks.systems.poolings import POOLINGS

__all__ = ["READ_TEXTS", "Measurer", "Reader"]

READ_TEXTS = 128
"""Texts whose second half the language model continues from the memory tokens of the first."""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reader:
    """The language model that all models were trained from, which reads memory tokens.

    Attributes:
        backbone: Its folder, Hub id or GGUF file.
        max_tokens: Longest text that is read, in tokens.
    """

    backbone: str | Path
    max_tokens: int


@dataclass
class Measurer:
    """Measures models on the same tasks and texts.

    Attributes:
        results: Folder of the result files.
        tasks: What every model is measured on.
        settings: Of all results, beside the model: name of the ablation, budgets.
        texts: Their embeddings are described (effective dimension, similarity of memory tokens).
        end_only: Names of the tasks that only models at the end of a stage are measured on.
        final_only: Names of the tasks that only models at the end of all stages are measured on.
        reader: What reads the memory tokens of models at the end of a stage; None: nothing.
        max_length: Tokens that a language model without training reads of a text.
    """

    results: Path
    tasks: list[Task]
    settings: dict[str, Any]
    texts: list[str] = field(default_factory=list)
    end_only: tuple[str, ...] = ()
    final_only: tuple[str, ...] = ()
    reader: Reader | None = None
    max_length: int = 512

    def path(self, lineage: Lineage, stage: Stage) -> Path:
        """The result file of a model."""
        parts = [lineage.name, stage.name, str(stage.samples or ""), "cluster" if stage.pooling else ""]
        return self.results / f"{'-'.join(filter(None, parts))}.json"

    def missing(self, lineage: Lineage, stage: Stage) -> list[Task]:
        """Tasks that the result file of a model lacks, or has without the samples that paired tests need."""
        before = _read(self.path(lineage, stage))
        samples = before.get("samples", {})
        return [task for task in self.tasks_of(stage) if not (task.name in before and samples.get(task.name))]

    def tasks_of(self, stage: Stage) -> list[Task]:
        """The tasks that models at the end of a stage, or within it, are measured on."""
        skipped = () if stage.finished else self.end_only
        final = stage.finished and stage.name == "supervised"
        return [task for task in self.tasks if task.name not in (*skipped, *(() if final else self.final_only))]

    def is_settled(self, lineage: Lineage, stages: Iterable[Stage], folder: Path) -> bool:
        """Whether a lineage needs no training: its models are measured and not here, so that there is nothing to check.

        Args:
            lineage: The lineage.
            stages: All its models.
            folder: Their folder; if it exists, its settings are to be compared.

        Raises:
            SettingsError: A result file is of other budgets than this plan's.
        """
        stages = list(stages)
        for path in (self.path(lineage, stage) for stage in stages):
            budgets = _read(path).get("settings", {}).get("ablation", {}).get("samples")
            if budgets is not None and budgets != self.settings.get("samples", budgets):
                raise SettingsError(
                    f"{path} was measured with other budgets ({_samples(budgets)}) than this plan's "
                    f"({_samples(self.settings['samples'])}); give another folder for results"
                )
        if folder.is_dir():
            return False
        return not any(self.missing(lineage, stage) or self.lacks_analysis(lineage, stage) for stage in stages)

    def lacks_analysis(self, lineage: Lineage, stage: Stage) -> bool:
        """Whether the embeddings of a model are still to be described; only those at the end of a stage are."""
        described = bool(self.texts) and stage.finished and stage.pooling is None
        before = _read(self.path(lineage, stage))
        lacks_share = self._is_read(lineage) and "context_share" not in before.get("analysis", {})
        return described and ("analysis" not in before or lacks_share)

    def measure(self, lineage: Lineage, stage: Stage, training: dict[str, Any] | None = None) -> None:
        """Measures what the result file of this model lacks; each task is written as soon as it is measured.

        `training` is the time of its last stage, for the result file.
        """
        missing, describe = self.missing(lineage, stage), self.lacks_analysis(lineage, stage)
        if not missing and not describe:
            return
        path = self.path(lineage, stage)
        model = self._load(lineage, stage)
        settings = {
            "model": path.stem,
            "fingerprint": getattr(model, "fingerprint", None),
            "ablation": self._place(lineage, stage),
            **({"training": training} if training else {}),
        }
        done: list[TaskResult] = []
        for place, task in enumerate(missing, 1):
            done.append(evaluate(model, task, batch_size=64))
            left = [each.name for each in missing[place:]]
            write_record(path, _joined(_read(path), done[-1:], settings | ({"missing": left} if left else {})))
        if describe:
            record = _joined(_read(path), [], settings)
            write_record(path, {**record, "analysis": self._describe(lineage, model)})
        _logger.info(
            "%s: %s", path.stem, "  ".join(f"{one.task} {next(iter(one.metrics.values())):.3f}" for one in done)
        )

    def _place(self, lineage: Lineage, stage: Stage) -> dict[str, Any]:
        """Where a model belongs in the ablation."""
        return {
            **asdict(lineage),
            "stage": stage.name,
            "supervised_samples": stage.samples,
            "pooling": (stage.pooling or {"mode": "mean"})["mode"],
            **self.settings,
        }

    def _load(self, lineage: Lineage, stage: Stage) -> Encoder | LLM2Comp:
        if stage.name == "untrained":
            from llm2comp_benchmarks.systems.pooled_backbone import PooledBackbone

            pooled: Encoder = PooledBackbone(lineage.pretext, str(stage.folder), max_length=self.max_length)
            return pooled
        if lineage.pretext == "mntp":
            return load_text_mean(stage.folder)
        model = load(stage.folder)
        return model if stage.pooling is None else model.variant(pooling=stage.pooling)

    def _is_read(self, lineage: Lineage) -> bool:
        """Whether the memory tokens of a lineage's models are read."""
        return self.reader is not None and bool(lineage.memory_tokens) and lineage.pretext not in POOLINGS

    def _describe(self, lineage: Lineage, model: Any) -> dict[str, Any]:
        from llm2comp.analysis import describe_embeddings

        begun = time.perf_counter()
        figures = describe_embeddings(model, self.texts)
        if self._is_read(lineage):
            figures |= self._reading(model)
        return {**figures, "seconds": round(time.perf_counter() - begun, 3)}

    def _reading(self, model: LLM2Comp) -> dict[str, Any]:
        """What the memory tokens keep of the context's worth, by the language model that all models began as."""
        from llm2comp.analysis.reading import read_held_out, split_texts

        assert self.reader is not None
        encoder = model.encoder
        reader = Backbone.load(self.reader.backbone, dtype=encoder.backbone.dtype, attention=encoder.backbone.attention)
        encoder.backbone.read_with(reader)
        splits = split_texts(encoder, self.texts, limit=READ_TEXTS, max_tokens=self.reader.max_tokens, seed=0)
        if len(splits) < 2:
            return {"context_share": None}
        reading = read_held_out(encoder, splits)
        share = reading.nll_share
        return {
            "context_share": share and share.value,
            "context_share_interval": share and [share.low, share.high],
            "context_gain": reading.nll["nothing"] - reading.nll["whole text"],
            "read_texts": reading.texts,
        }


def _read(path: Path) -> dict[str, Any]:
    """The record in a result file; empty if there is none yet."""
    return read_record(path) if path.is_file() else {}


def _samples(budgets: dict[str, int]) -> str:
    return ", ".join(f"{stage} {samples:,}" for stage, samples in budgets.items())


def _joined(before: dict[str, Any], done: list[TaskResult], settings: dict[str, Any]) -> dict[str, Any]:
    """The record of new results and of those in the file."""
    record = result_record(done, settings)
    old_tasks = before.get("settings", {}).get("tasks", {})
    new_tasks = record["settings"]["tasks"]
    record["settings"]["tasks"] = {**old_tasks, **new_tasks}
    for entry in ("seconds", "samples"):
        record[entry] = {**before.get(entry, {}), **record[entry]}
    analysis = {"analysis": before["analysis"]} if "analysis" in before else {}
    return {**{task: before[task] for task in old_tasks if task not in new_tasks}, **record, **analysis}
