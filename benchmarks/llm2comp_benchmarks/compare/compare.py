"""Differences between result files and what they mean: each further file against the first, task by task."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any

import numpy as np

from llm2comp.errors import LLM2CompError, SettingsError
from llm2comp_benchmarks.compare.significance import (
    LEVEL,
    Difference,
    Interval,
    holm,
    interval,
    paired_difference,
    smallest_p,
)
from llm2comp_benchmarks.results.read import ResultFile, TaskScores
from llm2comp_benchmarks.results.record import Samples
from llm2comp_benchmarks.results.resampling import statistic_of

__all__ = ["ALPHA", "Comparison", "Comparisons", "Refusal", "Score", "compare", "record_of"]

ALPHA = 0.05
"""A difference whose corrected p-value is below this is called better or worse."""
_OF_THE_RUN = (
    "source",
    "queries_missing_from_run",
    "main_metric",
    "prompts",
    "batch_size",
    "not_converged",
)  # details of the run rather than of the data
_TOLERANCE = 2e-4  # samples are written with five digits; a rank correlation of rounded values moves a little


@dataclass(frozen=True)
class Score:
    """The score of a system on a task, and its interval if the file has samples."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Comparison:
    """One task of two files.

    Attributes:
        task: Name of the task.
        metric: The metric that is compared.
        letters: The two files, such as "AB"; the difference is the second minus the first.
        first: Score of the first file.
        second: Score of the second.
        difference: Their difference on the same samples; None where a file has no samples.
        count: Number of samples and their unit, such as (300, "query").
        corrected_p: The p-value after Holm's correction over all comparisons of the report.
        words: The verdict: "B better", "B worse", "no clear difference", or why there is none.
    """

    task: str
    metric: str
    letters: str
    first: Score
    second: Score
    difference: Difference | None
    count: tuple[int, str] | None
    corrected_p: float | None
    words: str


@dataclass(frozen=True)
class Refusal:
    """A task of two files that cannot be compared, and the reason."""

    task: str
    letters: str
    reason: str


@dataclass(frozen=True)
class Comparisons:
    """All comparisons of some files: the files by letter, comparisons, refusals, seed and number of resamples."""

    files: dict[str, ResultFile]
    comparisons: list[Comparison]
    refused: list[Refusal]
    seed: int
    resamples: int


def compare(files: Sequence[ResultFile], *, seed: int = 0, resamples: int = 10_000) -> Comparisons:
    """Compares every file after the first with the first, on the tasks both have.

    Raises:
        SettingsError: Fewer than two files, or more than there are letters for.
        LLM2CompError: No two files have a task in common that can be compared.
    """
    if not 2 <= len(files) <= len(ascii_uppercase):
        raise SettingsError(f"give 2 to {len(ascii_uppercase)} result files, not {len(files)}")
    lettered = dict(zip(ascii_uppercase, files, strict=False))
    comparisons: list[Comparison] = []
    refused: list[Refusal] = []
    for letter, other in list(lettered.items())[1:]:
        for task in (name for name in files[0].tasks if name in other.tasks):
            pair = files[0].tasks[task], other.tasks[task]
            if reason := _mismatch(*pair):
                refused.append(Refusal(task, f"A{letter}", reason))
            else:
                comparisons.append(_compare(task, f"A{letter}", pair, seed, resamples))
    if not comparisons:
        raise LLM2CompError(_nothing(lettered, refused))
    return Comparisons(lettered, _judged(comparisons, lettered, resamples), refused, seed, resamples)


def _nothing(files: dict[str, ResultFile], refused: list[Refusal]) -> str:
    if refused:
        return "nothing to compare: " + "; ".join(f"{one.task}: {one.reason}" for one in refused)
    contents = "; ".join(f"{file.path} has {', '.join(file.tasks)}" for file in files.values())
    return f"no task is in the first file and in another: {contents}"


def _mismatch(first: TaskScores, second: TaskScores) -> str | None:
    """Why the two scores cannot be compared; None if they can."""
    for name, value in first.details.items():
        if (
            name in second.details
            and name not in _OF_THE_RUN
            and _of_the_data(value) != _of_the_data(second.details[name])
        ):
            sides = (_short(_of_the_data(side)) for side in (value, second.details[name]))
            return f"{name} is {' in one file and '.join(sides)} in the other"
    if first.main_metric != second.main_metric:
        return f"one file is scored by {first.main_metric}, the other by {second.main_metric}"
    for scores in (first, second):
        if scores.samples and (reason := _contradiction(scores.samples, scores.metrics)):
            return reason
    return _unpaired(first.samples, second.samples) if first.samples and second.samples else None


def _contradiction(samples: Samples, metrics: dict[str, float]) -> str | None:
    """How the samples differ from the metric they belong to; None if they agree."""
    metric, computed = metrics[samples.metric], _score(samples)
    if abs(metric - computed) <= _TOLERANCE:
        return None
    return f"the samples of a file give {samples.metric} {computed:.4f}, its metrics say {metric:.4f}; evaluate again"


def _of_the_data(value: Any) -> Any:
    """The part of a detail that describes the data, not the rankings: the rule of `identical_ids`, not its counts."""
    return value.get("rule", value) if isinstance(value, dict) else value


def _short(value: Any) -> str:
    return text if len(text := str(value)) <= 60 else text[:59] + "…"


def _score(samples: Samples) -> float:
    return float(statistic_of(samples)(np.ones(len(samples.values), np.int64)))


def _unpaired(first: Samples, second: Samples) -> str | None:
    if (first.statistic, first.unit) != (second.statistic, second.unit):
        kinds = (f"{samples.unit} ({samples.statistic})" for samples in (first, second))
        return f"the samples of one file are {', of the other '.join(kinds)}"
    if (first.ids is None) != (second.ids is None):
        return "one file names its samples, the other does not"
    if first.ids is not None and second.ids is not None and (odd := sorted(set(first.ids) ^ set(second.ids))):
        return f"not the same samples: {len(odd)} are in one file only, such as {odd[0]!r}"
    if len(first.values) != len(second.values):
        return f"{len(first.values)} samples in one file, {len(second.values)} in the other"
    if (
        first.truth is not None
        and second.truth is not None
        and not np.array_equal(first.truth, _aligned(second, first).truth or [])
    ):
        return "the judgements of the samples differ"
    return None


def _aligned(samples: Samples, like: Samples) -> Samples:
    """The samples in the order of `like`."""
    if samples.ids is None or like.ids is None or samples.ids == like.ids:
        return samples
    place = {name: position for position, name in enumerate(samples.ids)}
    order = [place[name] for name in like.ids]
    truth = None if samples.truth is None else [samples.truth[position] for position in order]
    return replace(samples, ids=like.ids, values=[samples.values[position] for position in order], truth=truth)


def _compare(task: str, letters: str, pair: tuple[TaskScores, TaskScores], seed: int, resamples: int) -> Comparison:
    first, second = pair
    scores = [
        Score(one.score, interval(one.samples, seed=seed, resamples=resamples) if one.samples else None) for one in pair
    ]
    if first.samples and second.samples:
        count = len(first.samples.values), first.samples.unit
        difference = paired_difference(
            first.samples, _aligned(second.samples, first.samples), seed=seed, resamples=resamples
        )
        return Comparison(task, first.main_metric, letters, scores[0], scores[1], difference, count, None, "")
    without = " and ".join(letter for letter, one in zip(letters, pair, strict=True) if not one.samples)
    return Comparison(
        task, first.main_metric, letters, scores[0], scores[1], None, None, None, f"no samples in {without}"
    )


def _judged(comparisons: list[Comparison], files: dict[str, ResultFile], resamples: int) -> list[Comparison]:
    """The comparisons with corrected p-values and verdicts, where they have a test."""
    tested = [one for one in comparisons if one.difference]
    corrected = dict(zip(map(id, tested), holm([one.difference.p for one in tested if one.difference]), strict=True))
    return [
        replace(one, corrected_p=corrected[id(one)], words=_words(one, corrected[id(one)], files, resamples))
        if id(one) in corrected
        else one
        for one in comparisons
    ]


def _words(one: Comparison, corrected_p: float, files: dict[str, ResultFile], resamples: int) -> str:
    assert one.difference is not None
    samples = files["A"].tasks[one.task].samples
    assert samples is not None
    if smallest_p(samples, resamples) >= ALPHA:
        return f"too few to tell ({len(samples.values)})"
    if corrected_p >= ALPHA:
        return "no clear difference"
    return f"{one.letters[1]} {'better' if one.difference.value > 0 else 'worse'}"


def record_of(report: Comparisons) -> dict[str, Any]:
    """The report as a JSON object."""
    return {
        "files": {letter: str(file.path) for letter, file in report.files.items()},
        "settings": {
            "seed": report.seed,
            "resamples": report.resamples,
            "level": LEVEL,
            "alpha": ALPHA,
            "correction": "holm",
        },
        "comparisons": [_plain(one) for one in report.comparisons],
        "refused": [{"task": one.task, "files": one.letters, "reason": one.reason} for one in report.refused],
    }


def _plain(one: Comparison) -> dict[str, Any]:
    difference = one.difference
    return {
        "task": one.task,
        "metric": one.metric,
        "files": one.letters,
        "samples": one.count[0] if one.count else None,
        "unit": one.count[1] if one.count else None,
        "first": {"score": one.first.value, "interval": one.first.interval},
        "second": {"score": one.second.value, "interval": one.second.interval},
        "difference": one.second.value - one.first.value,
        "difference_interval": difference.interval if difference else None,
        "test": difference.test if difference else None,
        "p": difference.p if difference else None,
        "p_corrected": one.corrected_p,
        "words": one.words,
    }
