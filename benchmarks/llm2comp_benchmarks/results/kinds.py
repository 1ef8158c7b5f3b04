"""Which kind a task is of, and in which order kinds and tasks stand in tables."""

import json
import re
from collections.abc import Iterable
from importlib.resources import files

from llm2comp_benchmarks.results.read import TaskScores

__all__ = ["kind_of", "ordered_tasks", "plain_kind", "task_title"]

_KINDS = ("clustering", "retrieval", "STS", "classification", "pair classification", "reranking")  # the paper's order
_OF_METRIC = {
    "v_measure": "clustering",
    "ndcg_at_10": "retrieval",
    "cosine_spearman": "STS",
    "accuracy": "classification",
}


def kind_of(scores: TaskScores) -> str:
    """The task's kind: what the file says, else what its main metric tells."""
    told = scores.details.get("type")
    if isinstance(told, str):
        return plain_kind(told)
    metric = scores.main_metric
    return _OF_METRIC.get(metric) or (
        "reranking" if metric.startswith("map") else "pair classification" if metric.endswith("ap") else "other"
    )


def plain_kind(name: str) -> str:
    """What tables call a kind that mteb (`PairClassification`) or a suite (`pair-classification`) names."""
    return "STS" if name.upper() == "STS" else re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.replace("-", " ")).lower()


def ordered_tasks(scores: Iterable[dict[str, TaskScores]]) -> dict[str, str]:
    """Kind of every task that one of the runs has, by name; kinds in the paper's order, within a kind as the runs have them."""
    kinds = {name: kind_of(task) for run in scores for name, task in run.items()}
    return dict(sorted(kinds.items(), key=lambda item: _KINDS.index(item[1]) if item[1] in _KINDS else len(_KINDS)))


def task_title(task: str) -> str:
    """What people call the task; its name where nothing else is known."""
    titles: dict[str, str] = json.loads(
        (files("llm2comp_benchmarks.results") / "task_names.json").read_text(encoding="utf-8")
    )
    return titles.get(task, task)
