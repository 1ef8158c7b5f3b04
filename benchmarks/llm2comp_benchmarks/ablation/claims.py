"""The paper's claim, an ordering of pretexts, beside the measured order, as sentences made from numbers."""

from collections.abc import Sequence
from typing import NamedTuple

from llm2comp_benchmarks.ablation.summary import STAGES, Ablation, Mean, mean_over_seeds
from llm2comp_benchmarks.ablation.tables import pretext_name

__all__ = ["CLAIMED", "VERDICTS", "Ordering", "measured_order", "order_words"]

CLAIMED = (
    ("distillation", "continuation"),
    ("continuation", "reconstruction"),
    ("distillation", "mntp"),
    ("mntp", "none"),
)
"""The order of Zhang et al. (AAAI 2026), after every stage: the first pretext of each pair is the better one."""
VERDICTS = {
    "as in the paper": "as in the paper",
    "the other way round": "the other way round",
    "no clear difference": "without a clear difference",
    "one seed": "of one seed, which says nothing",
}
"""The verdicts of a comparison, and their wording in a summary."""
_TITLES = {
    "pretext": "After the pretext alone",
    "unsupervised": "After stage 2 (UCL)",
    "supervised": "After stage 3 (UCL and SCL)",
}


class Ordering(NamedTuple):
    """One claim after one stage.

    Attributes:
        stage: The stage.
        better: The pretext that is ahead in the paper.
        worse: The one that is behind.
        difference: Of the averages over the tasks, seed by seed: better minus worse.
        wins: Number of pairs of a seed and a task in which `better` is ahead.
        pairs: Number of all pairs.
    """

    stage: str
    better: str
    worse: str
    difference: Mean
    wins: int
    pairs: int

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`."""
        mean = self.difference
        if mean.half is None:
            return "one seed"
        if abs(mean.value) <= mean.half:
            return "no clear difference"
        return "as in the paper" if mean.value > 0 else "the other way round"


def measured_order(ablation: Ablation, claims: Sequence[tuple[str, str]] = CLAIMED) -> list[Ordering]:
    """Every claim after every stage that both pretexts have finished with a common seed."""
    orderings = []
    for stage in STAGES:
        for better, worse in claims:
            first, second = (
                {run.seed: run for run in ablation.finished(stage, pretext=pretext)} for pretext in (better, worse)
            )
            if seeds := sorted(first.keys() & second.keys()):
                ahead = [
                    first[seed].scores[task] > second[seed].scores[task] for seed in seeds for task in ablation.kinds
                ]
                difference = mean_over_seeds(
                    [first[seed].average(ablation.kinds) - second[seed].average(ablation.kinds) for seed in seeds]
                )
                orderings.append(Ordering(stage, better, worse, difference, sum(ahead), len(ahead)))
    return orderings


def order_words(ablation: Ablation) -> str:
    """The claims and their verdicts as a Markdown list, below a summary and above a note on the numbers."""
    orderings = measured_order(ablation)
    if not orderings:
        return "No two pretexts of the claim have been run with the same seed."
    lines = [_summary(orderings), ""]
    for stage, title in _TITLES.items():
        if of_stage := [one for one in orderings if one.stage == stage]:
            lines += [f"- **{title}**", *(f"  - {_sentence(one)}" for one in of_stage)]
    return "\n".join([*lines, "", _basis(ablation, orderings)])


def _summary(orderings: Sequence[Ordering]) -> str:
    counted = [
        f"{count} {words}"
        for verdict, words in VERDICTS.items()
        if (count := sum(one.verdict == verdict for one in orderings))
    ]
    return f"Of {len(orderings)} comparisons: {', '.join(counted)}."


def _sentence(one: Ordering) -> str:
    place = "above" if one.difference.value > 0 else "below" if one.difference.value < 0 else "level with"
    half = f" ± {one.difference.half:.3f}" if one.difference.half is not None else ""
    amount = f" by {abs(one.difference.value):.3f}{half}" if place != "level with" else half
    shown = f"{pretext_name(one.better)} {place} {pretext_name(one.worse)}{amount}, ahead in {one.wins} of {one.pairs}"
    return f"{shown}: {one.verdict}."


def _basis(ablation: Ablation, orderings: Sequence[Ordering]) -> str:
    seeds = sorted({one.difference.seeds for one in orderings})
    counted = (
        f"{seeds[0]} seed{'s' if seeds[0] != 1 else ''}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    )
    return (
        f"Differences are of the average over {', '.join(ablation.kinds)}, between models of the same seed "
        f"({counted}); ± is a 95 % t-interval over seeds, "
        'of each comparison by itself. It says what another seed might change, not what other tasks would. "Ahead in" '
        "counts pairs of a seed and a task."
    )
