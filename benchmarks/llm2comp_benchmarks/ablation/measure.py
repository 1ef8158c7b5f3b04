"""Measuring the models of an ablation: one result file per model, to which missing tasks are added."""

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llm2comp import LLM2Comp, load
from llm2comp.atomic import write_output
from llm2comp_benchmarks.ablation.lineages import Lineage, Stage
from llm2comp_benchmarks.evaluate.tasks import Task, evaluate
from llm2comp_benchmarks.results.read import read_record
from llm2comp_benchmarks.results.record import TaskResult, result_record
from llm2comp_benchmarks.systems.mntp.encoder import load_text_mean

__all__ = ["Measurer"]

_logger = logging.getLogger(__name__)


@dataclass
class Measurer:
    """Measures models on the same tasks and texts.

    Attributes:
        results: Folder of the result files.
        tasks: What every model is measured on.
        settings: Of all results, beside the model: name of the ablation, budgets.
        texts: Their embeddings are described (effective dimension, similarity of memory tokens).
        end_only: Names of the tasks that only models at the end of a stage are measured on.
    """

    results: Path
    tasks: list[Task]
    settings: dict[str, Any]
    texts: list[str] = field(default_factory=list)
    end_only: tuple[str, ...] = ()

    def measure(self, lineage: Lineage, stage: Stage) -> None:
        """Measures what the result file of this model lacks."""
        pooling = stage.pooling or {"mode": "mean"}
        name = "-".join(
            [
                lineage.name,
                stage.name,
                *([str(stage.samples)] if stage.samples else []),
                *(["cluster"] if stage.pooling else []),
            ]
        )
        path = self.results / f"{name}.json"
        before: dict[str, Any] = read_record(path) if path.is_file() else {}
        skipped = () if stage.finished else self.end_only
        missing = [task for task in self.tasks if task.name not in (*before, *skipped)]
        if not missing and (not self.texts or "analysis" in before):
            return
        model = _load(lineage, stage)
        done = [evaluate(model, task, batch_size=64) for task in missing]
        analysis = before.get("analysis") or _describe(model, self.texts)
        ablation = {
            **asdict(lineage),
            "stage": stage.name,
            "supervised_samples": stage.samples,
            "pooling": pooling["mode"],
            **self.settings,
        }
        record = _joined(before, done, {"model": name, "fingerprint": model.fingerprint, "ablation": ablation})
        write_output(path, [json.dumps({**record, "analysis": analysis}, indent=1), "\n"])
        _logger.info("%s: %s", name, "  ".join(f"{one.task} {next(iter(one.metrics.values())):.3f}" for one in done))


def _load(lineage: Lineage, stage: Stage) -> LLM2Comp:
    if lineage.pretext == "mntp":
        return load_text_mean(stage.folder)
    model = load(stage.folder)
    if stage.pooling is None:
        return model
    return LLM2Comp(
        model.encoder, pooling=stage.pooling, query_instruction=model.prompts["query"] or "", normalize=model.normalize
    )


def _joined(before: dict[str, Any], done: list[TaskResult], settings: dict[str, Any]) -> dict[str, Any]:
    """The record of the new results and of those in the file.

    Samples are left out: an ablation's intervals are over seeds.
    """
    record = result_record(done, settings)
    old_tasks = before.get("settings", {}).get("tasks", {})
    record["settings"]["tasks"] = {**old_tasks, **record["settings"]["tasks"]}
    record["seconds"] = {**before.get("seconds", {}), **record["seconds"]}
    del record["samples"]
    return {**{task: before[task] for task in old_tasks}, **record}


def _describe(model: LLM2Comp, texts: list[str]) -> dict[str, Any]:
    if not texts:
        return {}
    from llm2comp.analysis import describe_embeddings

    return describe_embeddings(model, texts)
