"""Semantic textual similarity: does the cosine of two sentences rise with people's similarity scores?"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llm2comp.corpus import open_text
from llm2comp.errors import CorpusError, LLM2CompError
from llm2comp_benchmarks.encoding import Encoder, document_vectors
from llm2comp_benchmarks.metrics import spearman
from llm2comp_benchmarks.results import Samples, TaskResult

__all__ = ["SentencePairs", "StsTask", "evaluate_sts", "read_pairs", "read_sts"]

_COLUMNS = ("sentence1", "sentence2", "score")
_SPLITS = ("train", "dev", "validation", "test")


class SentencePairs(NamedTuple):
    """n sentence pairs and how similar people find them, on any scale."""

    first: list[str]
    second: list[str]
    scores: list[float]


@dataclass(frozen=True)
class StsTask:
    """A similarity test set: its name (key of its results), its pairs, and where they come from."""

    name: str
    pairs: SentencePairs
    details: dict[str, Any]


def read_pairs(path: str | Path) -> SentencePairs:
    """Pairs of a tab-separated file, compressed or not, whose header names sentence1, sentence2 and score; no quoting.

    Raises:
        CorpusError: The file cannot be read or has fewer than two pairs, a column is missing, or a line is malformed.
    """
    pairs = SentencePairs([], [], [])
    with open_text(path) as lines:
        header = lines.readline().rstrip("\r\n").split("\t")
        if not set(_COLUMNS) <= set(header):
            raise CorpusError(f"{path}:1: the columns are {', '.join(header)!r}; expected a tab-separated header with {', '.join(_COLUMNS)}")
        first, second, score = map(header.index, _COLUMNS)
        for number, line in enumerate(lines, start=2):
            fields = line.rstrip("\r\n").split("\t")
            if len(fields) != len(header):
                raise CorpusError(f"{path}:{number}: {len(fields)} tab-separated fields, expected {len(header)} as in the header")
            pairs.first.append(fields[first])
            pairs.second.append(fields[second])
            pairs.scores.append(_number(fields[score], f"{path}:{number}"))
    if len(set(pairs.scores)) < 2:
        raise CorpusError(f"{path}: {len(pairs.scores)} pairs with {len(set(pairs.scores))} different scores; a rank correlation needs two or more")
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
    """The task in a file of pairs, named after the file; after its folder, where the file has a split's name (`stsb/test.tsv.gz`: stsb)."""
    pairs = read_pairs(path)
    file = Path(path).resolve()
    stem = file.name.partition(".")[0]
    name, split = (file.parent.name, stem) if stem in _SPLITS else (stem, None)
    return StsTask(name, pairs, {"source": str(path), "split": split, "pairs": len(pairs.scores)})


def evaluate_sts(task: StsTask, model: Encoder, *, batch_size: int = 32) -> TaskResult:
    """Spearman's correlation of cosines and scores, as `cosine_spearman`; both sentences are encoded as documents, without instruction."""
    start = time.perf_counter()
    pairs = task.pairs
    texts = sorted({*pairs.first, *pairs.second})
    vectors = document_vectors(model, texts, batch_size, cosine=True)
    row = {text: position for position, text in enumerate(texts)}
    first, second = (vectors[[row[text] for text in side]] for side in (pairs.first, pairs.second))
    cosines = np.einsum("nd,nd->n", first, second)
    if np.ptp(cosines) == 0:
        raise LLM2CompError(f"{task.name}: the model gives all {len(cosines)} pairs the same cosine, {cosines[0]:.4f}, so no rank correlation is defined")
    metrics = {"cosine_spearman": spearman(cosines, np.asarray(pairs.scores))}
    samples = Samples("cosine_spearman", "spearman", "pair", cosines.tolist(), truth=pairs.scores)
    return TaskResult(task.name, metrics, task.details, time.perf_counter() - start, samples=samples)
