"""Semantic textual similarity: correlation of cosines with similarity scores by people."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import CorpusError, LLM2CompError
from llm2comp.protocols import Encoder
from llm2comp_benchmarks.metrics import spearman
from llm2comp_benchmarks.results.record import Samples, TaskResult
from llm2comp_benchmarks.tasks.encoding import document_vectors
from llm2comp_benchmarks.tasks.tsv import read_rows, task_name

__all__ = ["SentencePairs", "StsTask", "encode_pairs", "evaluate_sts", "read_pairs", "read_sts"]


class SentencePairs(NamedTuple):
    """n sentence pairs and their similarity scores by people, on any scale."""

    first: list[str]
    second: list[str]
    scores: list[float]


@dataclass(frozen=True)
class StsTask:
    """A similarity test set.

    Attributes:
        name: Key of its results.
        pairs: Sentence pairs and their scores.
        details: Source and counts, reported with the metrics.
    """

    name: str
    pairs: SentencePairs
    details: dict[str, Any]


def read_pairs(path: str | Path) -> SentencePairs:
    """Pairs of a tab-separated file with columns sentence1, sentence2 and score; compressed or not, no quoting.

    Raises:
        CorpusError: The file cannot be read or has fewer than two pairs, a column is missing, or a line is malformed.
    """
    pairs = SentencePairs([], [], [])
    for place, (first, second, score) in read_rows(path, ("sentence1", "sentence2", "score")):
        pairs.first.append(first)
        pairs.second.append(second)
        pairs.scores.append(_number(score, place))
    if len(set(pairs.scores)) < 2:
        raise CorpusError(
            f"{path}: {len(pairs.scores)} pairs with {len(set(pairs.scores))} different scores; a rank correlation "
            "needs two or more"
        )
    return pairs


def _number(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise CorpusError(f"{place}: the score is {text!r}, expected a number")
    return value


def read_sts(path: str | Path) -> StsTask:
    """The task in a file of pairs, named after the file or, if that is called like a split, after its folder.

    The task in `stsb/test.tsv.gz` is called stsb.
    """
    pairs = read_pairs(path)
    name, split = task_name(path)
    return StsTask(name, pairs, {"source": str(path), "split": split, "pairs": len(pairs.scores)})


def evaluate_sts(task: StsTask, model: Encoder, *, batch_size: int = 32) -> TaskResult:
    """Spearman's correlation of cosines and scores, as `cosine_spearman`.

    Both sentences are encoded as documents, without instruction.
    """
    start = time.perf_counter()
    pairs = task.pairs
    first, second = encode_pairs(model, pairs, batch_size, cosine=True)
    cosines = np.einsum("nd,nd->n", first, second)
    if np.ptp(cosines) == 0:
        raise LLM2CompError(
            f"{task.name}: the model gives all {len(cosines)} pairs the same cosine, {cosines[0]:.4f}, so no rank "
            "correlation is defined"
        )
    metrics = {"cosine_spearman": spearman(cosines, np.asarray(pairs.scores))}
    samples = Samples("cosine_spearman", "spearman", "pair", cosines.tolist(), truth=pairs.scores)
    return TaskResult(task.name, metrics, task.details, time.perf_counter() - start, samples=samples)


def encode_pairs(model: Encoder, pairs: SentencePairs, batch_size: int, *, cosine: bool) -> list[NDArray[np.float32]]:
    """Vectors (n, dim) of the first and of the second texts, each text encoded once; of unit length if `cosine`."""
    texts = sorted({*pairs.first, *pairs.second})
    vectors = document_vectors(model, texts, batch_size, cosine=cosine)
    row = {text: position for position, text in enumerate(texts)}
    return [vectors[[row[text] for text in side]] for side in (pairs.first, pairs.second)]
