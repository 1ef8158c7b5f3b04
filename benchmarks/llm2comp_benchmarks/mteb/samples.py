"""Samples of mteb's tasks, from the predictions that mteb writes while it evaluates."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llm2comp_benchmarks.metrics import RETRIEVAL_METRICS, score_rankings
from llm2comp_benchmarks.results.record import Samples
from llm2comp_benchmarks.results.resampling import statistic_of

__all__ = ["has_samples", "read_samples"]

_TOLERANCE = 1e-4  # mteb rounds retrieval scores to five digits


def has_samples(task: Any) -> bool:
    """Whether samples can be made of mteb's predictions of this task.

    They can for retrieval, reranking, STS, classification, pair classification and clustering, if the score is of one
    subset and one split: a mean over several is not a statistic of their pairs or texts.
    """
    return task.metadata.type in _READERS and len(task.eval_splits) == 1 and len(task.hf_subsets or []) == 1


def read_samples(task: Any, scores: Mapping[str, Any], folder: Path) -> Samples | None:
    """The samples of the main score of a task; None where they do not reproduce that score.

    Args:
        task: A task for which `has_samples` is true, just evaluated, its data still loaded.
        scores: mteb's scores of its one subset and split.
        folder: The `prediction_folder` of the evaluation.
    """
    file = folder / task.prediction_file_name
    if not file.is_file():  # a finished task, which was not evaluated again
        return None
    (subset,), (split,) = task.hf_subsets, task.eval_splits
    predictions = json.loads(file.read_text(encoding="utf-8"))[subset][split]
    data = task.dataset.get(subset, task.dataset)
    samples = _READERS[task.metadata.type](task, data[split], scores, predictions)
    if samples is None or samples.metric not in scores:
        return None
    return samples if abs(_score(samples) - scores[samples.metric]) < _TOLERANCE else None


def _score(samples: Samples) -> float:
    return float(statistic_of(samples)(np.ones(len(samples.values), np.int64)))


def _retrieval(task: Any, data: Any, scores: Mapping[str, Any], predictions: Any) -> Samples | None:
    metric = task.metadata.main_score
    if metric not in RETRIEVAL_METRICS:
        return None
    if task.ignore_identical_ids:
        predictions = {
            query: {document: score for document, score in ranking.items() if document != query}
            for query, ranking in predictions.items()
        }
    return Samples.of_queries(metric, score_rankings(data["relevant_docs"], predictions).per_query)


def _sts(task: Any, data: Any, scores: Mapping[str, Any], predictions: Any) -> Samples | None:
    if task.metadata.main_score != "cosine_spearman":
        return None
    return Samples(
        "cosine_spearman", "spearman", "pair", _numbers(predictions["cosine_scores"]), truth=_numbers(data["score"])
    )


def _pair_classification(task: Any, data: Any, scores: Mapping[str, Any], predictions: Any) -> Samples | None:
    """Samples of the ranking that `max_ap` belongs to: mteb takes the best of several."""
    if task.metadata.main_score != "max_ap":
        return None
    rows = data[0] if len(data) == 1 else data  # older sets have all pairs in one row
    truth = _numbers(rows[task.label_column_name])
    rankings = [
        _numbers(predictions[name])
        for name in ("cosine_scores", "dot_scores", "similarity_scores")
        if predictions.get(name) is not None
    ]
    rankings += [
        [-value for value in _numbers(predictions[name])] for name in ("euclidean_distances", "manhattan_distances")
    ]
    return max((Samples("max_ap", "average_precision", "pair", values, truth=truth) for values in rankings), key=_score)


def _classification(task: Any, data: Any, scores: Mapping[str, Any], predictions: Any) -> Samples | None:
    labels = np.asarray(data[task.label_column_name])
    if task.metadata.main_score != "accuracy" or any(len(answers) != len(labels) for answers in predictions):
        return None  # folds of a cross-validation have other texts each
    return Samples(
        "accuracy",
        "mean",
        "example",
        np.mean([np.asarray(answers) == labels for answers in predictions], axis=0).tolist(),
    )


def _clustering(task: Any, data: Any, scores: Mapping[str, Any], predictions: Any) -> Samples | None:
    levels = scores.get("v_measures")
    if task.metadata.main_score != "v_measure" or not isinstance(levels, dict):
        return None
    return Samples("v_measure", "mean", "split", [float(value) for values in levels.values() for value in values])


def _numbers(values: Any) -> list[float]:
    return [float(value) for value in values]


_READERS: dict[str, Callable[[Any, Any, Mapping[str, Any], Any], Samples | None]] = {
    "Retrieval": _retrieval,
    "Reranking": _retrieval,
    "STS": _sts,
    "PairClassification": _pair_classification,
    "Classification": _classification,
    "Clustering": _clustering,
}
