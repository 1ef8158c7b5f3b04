"""Clustering: agreement of k-means clusters of the vectors with the classes of the texts."""

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llm2comp.errors import CorpusError
from llm2comp.protocols import Encoder
from llm2comp_benchmarks.results.record import Samples, TaskResult
from llm2comp_benchmarks.tasks.encoding import document_vectors
from llm2comp_benchmarks.tasks.tsv import LabelledTexts, read_labelled_texts, task_name

__all__ = ["ClusteringTask", "evaluate_clustering", "read_clustering"]

_SEED = 42  # of mteb's tasks
_BATCH = 512  # texts in a step of k-means


@dataclass(frozen=True)
class ClusteringTask:
    """A clustering test set.

    Attributes:
        name: Key of its results.
        texts: Texts and classes; two classes or more.
        details: Source and counts, reported with the metrics.
        experiments: Number of draws that are clustered.
        texts_per_experiment: Texts in a draw, with replacement.
    """

    name: str
    texts: LabelledTexts
    details: dict[str, Any]
    experiments: int = 10
    texts_per_experiment: int = 16_384


def read_clustering(path: str | Path) -> ClusteringTask:
    """The task in a tab-separated file with the columns text and label, named as by `read_sts`.

    Raises:
        CorpusError: The file cannot be read, is malformed or empty, or has one class only.
    """
    texts = read_labelled_texts(path)
    classes = len(set(texts.labels))
    if classes < 2:
        raise CorpusError(f"{path}: every text is labelled {texts.labels[0]!r}, expected two classes or more")
    name, split = task_name(path)
    return ClusteringTask(
        name, texts, {"source": str(path), "split": split, "classes": classes, "texts": len(texts.texts)}
    )


def evaluate_clustering(task: ClusteringTask, model: Encoder, *, batch_size: int = 32) -> TaskResult:
    """V-measure of mini-batch k-means with as many clusters as classes, the mean over the experiments.

    The procedure of mteb's AbsTaskClustering, as in its current tasks (older ones use AbsTaskClusteringLegacy, on sets
    that come in parts). As in nearly all of them, every text is encoded and can be drawn. Vectors are not
    normalized.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.metrics import v_measure_score

    start = time.perf_counter()
    labels = np.asarray(task.texts.labels)
    vectors = document_vectors(model, task.texts.texts, batch_size, cosine=False)
    generator = random.Random(_SEED)
    values = []
    for _ in range(task.experiments):
        drawn = generator.choices(range(len(labels)), k=task.texts_per_experiment)
        kmeans = MiniBatchKMeans(
            len(set(task.texts.labels)), init="k-means++", n_init=1, batch_size=_BATCH, random_state=_SEED
        )
        values.append(float(v_measure_score(labels[drawn], kmeans.fit_predict(vectors[drawn]))))
    details = task.details | {"experiments": task.experiments, "texts_per_experiment": task.texts_per_experiment}
    samples = Samples("v_measure", "mean", "split", values)
    return TaskResult(
        task.name, {"v_measure": float(np.mean(values))}, details, time.perf_counter() - start, samples=samples
    )
