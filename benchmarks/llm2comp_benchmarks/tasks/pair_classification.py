"""Pair classification: similarity of texts that belong together and of texts that do not."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llm2comp.errors import CorpusError
from llm2comp.protocols import Encoder
from llm2comp_benchmarks.results.record import Samples, TaskResult
from llm2comp_benchmarks.tasks.sts import SentencePairs, encode_pairs
from llm2comp_benchmarks.tasks.tsv import read_rows, task_name

__all__ = ["PairTask", "evaluate_pairs", "read_pair_classification"]


@dataclass(frozen=True)
class PairTask:
    """A pair classification set.

    Attributes:
        name: Key of its results.
        pairs: Pairs of texts; the score of a pair that belongs together is 1, else 0.
        details: Source and counts, reported with the metrics.
    """

    name: str
    pairs: SentencePairs
    details: dict[str, Any]


def read_pair_classification(path: str | Path) -> PairTask:
    """The task in a tab-separated file with columns sentence1, sentence2 and label, named as by `read_sts`.

    Raises:
        CorpusError: The file cannot be read, is malformed, has a label that is not 0 or 1, or does not have both.
    """
    pairs = SentencePairs([], [], [])
    for place, (first, second, label) in read_rows(path, ("sentence1", "sentence2", "label")):
        if label not in ("0", "1"):
            raise CorpusError(f"{place}: the label is {label!r:.40}, expected 1 for a pair that belongs together or 0")
        pairs.first.append(first)
        pairs.second.append(second)
        pairs.scores.append(float(label))
    positives = int(sum(pairs.scores))
    if not 0 < positives < len(pairs.scores):
        raise CorpusError(
            f"{path}: {positives} of {len(pairs.scores)} pairs are labelled 1, expected some of both labels"
        )
    name, split = task_name(path)
    return PairTask(
        name, pairs, {"source": str(path), "split": split, "pairs": len(pairs.scores), "positives": positives}
    )


def evaluate_pairs(task: PairTask, model: Encoder, *, batch_size: int = 32) -> TaskResult:
    """Average precision of ranking the pairs by cosine (`cosine_ap`), and the best of four rankings (`max_ap`).

    The procedure of mteb's AbsTaskPairClassification, whose four rankings are by cosine, dot product, Euclidean and
    Manhattan distance; mteb ranks models by `max_ap`. Both texts are encoded as documents, without instruction.
    """
    from sklearn.metrics import average_precision_score
    from sklearn.metrics import pairwise as distances

    start = time.perf_counter()
    first, second = encode_pairs(model, task.pairs, batch_size, cosine=False)
    cosines = 1 - distances.paired_cosine_distances(first, second)  # exactly 1 for equal vectors: such pairs are tied
    rankings = {
        "cosine": cosines,
        "dot": np.einsum("nd,nd->n", first, second),
        "euclidean": -distances.paired_euclidean_distances(first, second),
        "manhattan": -distances.paired_manhattan_distances(first, second),
    }
    precision = {name: float(average_precision_score(task.pairs.scores, scores)) for name, scores in rankings.items()}
    metrics = {"cosine_ap": precision["cosine"], "max_ap": max(precision.values())}
    samples = Samples("cosine_ap", "average_precision", "pair", cosines.tolist(), truth=task.pairs.scores)
    return TaskResult(task.name, metrics, task.details, time.perf_counter() - start, samples=samples)
