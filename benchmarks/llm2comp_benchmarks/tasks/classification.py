"""Classification: a linear classifier trained on a few vectors of each class."""

import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import CorpusError
from llm2comp.protocols import Encoder
from llm2comp_benchmarks.results.record import Samples, TaskResult
from llm2comp_benchmarks.tasks.encoding import document_vectors
from llm2comp_benchmarks.tasks.tsv import LabelledTexts, read_labelled_texts

__all__ = ["ClassificationTask", "evaluate_classification", "read_classification"]

_SEED = 42  # of mteb's tasks
_ITERATIONS = 100
_PACKED = ("", ".gz", ".xz", ".zst")


@dataclass(frozen=True)
class ClassificationTask:
    """A classification test set.

    Attributes:
        name: Key of its results.
        train: Training texts; every class has two texts or more.
        test: Test texts; all their classes occur in `train`.
        details: Source and counts, reported with the metrics.
        samples_per_label: Training texts of each class for one classifier; all where there are fewer.
        experiments: Number of classifiers, each trained on another draw.
    """

    name: str
    train: LabelledTexts
    test: LabelledTexts
    details: dict[str, Any]
    samples_per_label: int = 8
    experiments: int = 10


def read_classification(folder: str | Path, *, split: str = "test") -> ClassificationTask:
    """The task in a folder with `train.tsv` and `SPLIT.tsv`, columns text and label; named after the folder.

    Raises:
        CorpusError: A file is missing, malformed or empty, train has fewer than two classes or a class of one text, or
            a label of the split does not occur in train.
    """
    root = Path(folder)
    train, test = (read_labelled_texts(_find(root, name)) for name in ("train", split))
    counts = Counter(train.labels)
    if len(counts) < 2:
        raise CorpusError(
            f"{_find(root, 'train')}: every text is labelled {train.labels[0]!r}, expected two classes or more"
        )
    for label, place in zip(train.labels, train.places, strict=True):
        if counts[label] < 2:
            raise CorpusError(
                f"{place}: the only text labelled {label!r}, expected two or more of each class; add some or take the "
                "class out"
            )
    for label, place in zip(test.labels, test.places, strict=True):
        if label not in counts:
            raise CorpusError(
                f"{place}: no text of the training split is labelled {label!r}, expected one of its {len(counts)} "
                "labels"
            )
    details = {
        "source": str(folder),
        "split": split,
        "classes": len(counts),
        "train": len(train.texts),
        "texts": len(test.texts),
    }
    return ClassificationTask(root.resolve().name, train, test, details)


def _find(root: Path, split: str) -> Path:
    for packed in _PACKED:
        if (root / f"{split}.tsv{packed}").is_file():
            return root / f"{split}.tsv{packed}"
    raise CorpusError(
        f"{root / split}.tsv: no such file; expected a folder with train.tsv and {split}.tsv, columns text and label"
    )


def evaluate_classification(task: ClassificationTask, model: Encoder, *, batch_size: int = 32) -> TaskResult:
    """Accuracy and macro F1 of logistic regression on the vectors, means over the experiments.

    The procedure of mteb's AbsTaskClassification: each experiment shuffles the training texts further, with the same
    seed, and trains scikit-learn's LogisticRegression (at most 100 iterations) on the first eight of each class.
    Vectors are not normalized.
    """
    from sklearn.metrics import f1_score

    start = time.perf_counter()
    number = {label: position for position, label in enumerate(sorted(set(task.train.labels)))}
    truth = np.asarray([number[label] for label in task.test.labels])
    draws = _draw(task)
    seen = sorted(set().union(*draws))
    row = {text: position for position, text in enumerate(seen)}
    known = document_vectors(model, [task.train.texts[text] for text in seen], batch_size, cosine=False)
    tested = document_vectors(model, task.test.texts, batch_size, cosine=False)
    right, f1, unfinished = np.zeros(len(truth)), [], 0
    for draw in draws:
        labels = np.asarray([number[task.train.labels[text]] for text in draw])
        answer = _classify(known[[row[text] for text in draw]], labels, tested)
        right += answer.predicted == truth
        f1.append(f1_score(truth, answer.predicted, average="macro"))
        unfinished += not answer.converged
    metrics = {"accuracy": float(right.mean() / task.experiments), "f1": float(np.mean(f1))}
    details = task.details | {
        "samples_per_label": task.samples_per_label,
        "experiments": task.experiments,
        "not_converged": unfinished,
    }
    samples = Samples("accuracy", "mean", "example", (right / task.experiments).tolist())
    return TaskResult(task.name, metrics, details, time.perf_counter() - start, samples=samples)


def _draw(task: ClassificationTask) -> list[list[int]]:
    """Indices of the training texts of each experiment; one order is shuffled repeatedly with the same seed."""
    order = list(range(len(task.train.texts)))
    draws = []
    for _ in range(task.experiments):
        np.random.RandomState(_SEED).shuffle(order)
        taken: Counter[str] = Counter()
        draw = []
        for text in order:
            label = task.train.labels[text]
            if taken[label] < task.samples_per_label:
                taken[label] += 1
                draw.append(text)
        draws.append(draw)
    return draws


class _Answer(NamedTuple):
    predicted: NDArray[np.int64]
    converged: bool


def _classify(known: NDArray[np.float32], labels: NDArray[np.int64], tested: NDArray[np.float32]) -> _Answer:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    classifier = LogisticRegression(max_iter=_ITERATIONS, random_state=_SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the result file says how often that happened
        classifier.fit(known, labels)
    return _Answer(classifier.predict(tested), int(np.max(classifier.n_iter_)) < _ITERATIONS)
