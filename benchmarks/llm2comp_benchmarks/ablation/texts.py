"""Texts that a task has a model encode, for estimates of its time."""

from collections.abc import Iterator

from llm2comp_benchmarks.evaluate.tasks import Task
from llm2comp_benchmarks.tasks.classification import ClassificationTask
from llm2comp_benchmarks.tasks.clustering import ClusteringTask
from llm2comp_benchmarks.tasks.pair_classification import PairTask
from llm2comp_benchmarks.tasks.retrieval import RetrievalTask
from llm2comp_benchmarks.tasks.sts import StsTask

__all__ = ["texts_of"]


def texts_of(task: Task) -> list[str]:
    """All texts that the evaluation of a task encodes, each once."""
    return list(dict.fromkeys(_texts(task)))


def _texts(task: Task) -> Iterator[str]:
    if isinstance(task, RetrievalTask):
        yield from (document.content for document in task.documents())
        yield from task.queries.values()
    elif isinstance(task, StsTask | PairTask):
        yield from (*task.pairs.first, *task.pairs.second)
    elif isinstance(task, ClassificationTask):
        drawn = task.experiments * task.samples_per_label * len(set(task.train.labels))
        yield from (*task.test.texts, *task.train.texts[:drawn])
    elif isinstance(task, ClusteringTask):
        yield from task.texts.texts
    else:
        for candidates in task.queries.values():
            yield from (candidates.query, *candidates.positive, *candidates.negative)
