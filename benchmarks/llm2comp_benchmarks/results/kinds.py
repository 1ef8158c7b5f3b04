"""Kinds of tasks, and the order of kinds and tasks in tables."""

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
    """Kind of the task: the one in the file, else derived from the main metric."""
    kind = scores.details.get("type")
    if isinstance(kind, str):
        return plain_kind(kind)
    metric = scores.main_metric
    return _OF_METRIC.get(metric) or (
        "reranking" if metric.startswith("map") else "pair classification" if metric.endswith("ap") else "other"
    )


def plain_kind(name: str) -> str:
    """Name in tables of a kind of mteb (`PairClassification`) or of a suite (`pair-classification`)."""
    return "STS" if name.upper() == "STS" else re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.replace("-", " ")).lower()


def ordered_tasks(scores: Iterable[dict[str, TaskScores]]) -> dict[str, str]:
    """Kind by task name, for every task of any of the runs.

    Kinds are in the order of the paper; tasks of a kind are in the order of the runs.
    """
    kinds = {name: kind_of(task) for run in scores for name, task in run.items()}
    return dict(sorted(kinds.items(), key=lambda item: _KINDS.index(item[1]) if item[1] in _KINDS else len(_KINDS)))


def task_title(task: str) -> str:
    """Title of the task for tables; its name if it has none."""
    titles: dict[str, str] = json.loads(
        (files("llm2comp_benchmarks.results") / "task_names.json").read_text(encoding="utf-8")
    )
    return titles.get(task, task)
