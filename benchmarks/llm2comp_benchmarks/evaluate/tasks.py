"""Evaluation of a model on one task of any kind, and on the sets of a data folder."""

import logging
from pathlib import Path

from llm2comp.errors import CorpusError
from llm2comp.protocols import Encoder
from llm2comp_benchmarks.evaluate.suites import Task, read_suite
from llm2comp_benchmarks.results.record import TaskResult, check_task_names
from llm2comp_benchmarks.tasks.classification import ClassificationTask, evaluate_classification
from llm2comp_benchmarks.tasks.clustering import ClusteringTask, evaluate_clustering
from llm2comp_benchmarks.tasks.encoding import Searcher, check_kinds
from llm2comp_benchmarks.tasks.pair_classification import PairTask, evaluate_pairs
from llm2comp_benchmarks.tasks.reranking import evaluate_reranking
from llm2comp_benchmarks.tasks.retrieval import RetrievalTask, evaluate_run, search_task
from llm2comp_benchmarks.tasks.sts import StsTask, evaluate_sts

__all__ = ["Task", "evaluate", "evaluate_local", "read_local"]

_logger = logging.getLogger(__name__)
_LOCAL = ("sts", "retrieval")  # kinds that `read_local` takes from the suite local


def evaluate(model: Encoder | Searcher, task: Task, *, batch_size: int = 32) -> TaskResult:
    """The scores of a model on a task; retrieval by exact search, 1,000 documents per query.

    Raises:
        SettingsError: The task needs vectors, and the model only ranks documents.
    """
    if isinstance(task, RetrievalTask):
        run, seconds = search_task(task, model, batch_size=batch_size)
        return evaluate_run(task, run, seconds=seconds)
    if isinstance(model, Searcher):
        check_kinds(model, [task.name])
        raise AssertionError("a system without vectors passed the check")
    if isinstance(task, StsTask):
        return evaluate_sts(task, model, batch_size=batch_size)
    if isinstance(task, ClassificationTask):
        return evaluate_classification(task, model, batch_size=batch_size)
    if isinstance(task, ClusteringTask):
        return evaluate_clustering(task, model, batch_size=batch_size)
    if isinstance(task, PairTask):
        return evaluate_pairs(task, model, batch_size=batch_size)
    return evaluate_reranking(task, model, batch_size=batch_size)


def read_local(data: str | Path) -> list[Task]:
    """The retrieval and similarity tasks of the suite `local` in a data folder; absent ones are logged.

    Raises:
        CorpusError: None of them is there, or one is malformed.
    """
    root = Path(data)
    entries = [entry for entry in read_suite("local").tasks if entry.path and entry.kind in _LOCAL]
    there = [entry for entry in entries if (root / str(entry.path)).exists()]
    absent = ", ".join(str(entry.path) for entry in entries if entry not in there)
    if not there:
        raise CorpusError(f"{root}: holds none of {absent}; give the folder that holds them")
    if absent:
        _logger.warning("%s: not there and left out: %s", root, absent)
    return [entry.read(root) for entry in there]


def evaluate_local(model: Encoder, data: str | Path, *, batch_size: int = 32) -> dict[str, dict[str, float]]:
    """Scores of a model by task and metric, on the sets of a data folder; see `read_local`."""
    tasks = read_local(data)
    check_task_names([task.name for task in tasks])
    return {task.name: evaluate(model, task, batch_size=batch_size).metrics for task in tasks}
