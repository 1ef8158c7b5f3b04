"""The paper's claim, an ordering of pretexts, beside the measured order, as sentences made from numbers."""

from collections.abc import Sequence
from typing import NamedTuple

from llm2comp_benchmarks.ablation.paired import Interval, paired_interval
from llm2comp_benchmarks.ablation.summary import STAGES, Ablation, Mean, Run, mean_over_seeds
from llm2comp_benchmarks.ablation.tables import pretext_name
from llm2comp_benchmarks.results.tables import markdown_table

__all__ = ["CLAIMED", "VERDICTS", "Ordering", "claims_table", "measured_order", "order_words"]

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
_LEVEL = 0.95
"""Confidence of all corrected intervals together."""
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
        interval: Paired bootstrap interval of the difference over the texts of the tasks, corrected for the number of
            comparisons; None where result files have no samples.
    """

    stage: str
    better: str
    worse: str
    difference: Mean
    wins: int
    pairs: int
    interval: Interval | None = None

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`: a difference is clear if no interval of it, over seeds or over texts, reaches 0."""
        mean, interval = self.difference, self.interval
        if mean.half is None and interval is None:
            return "one seed"
        if mean.half is not None and abs(mean.value) <= mean.half:
            return "no clear difference"
        if interval is not None and interval.low <= 0 <= interval.high:
            return "no clear difference"
        return "as in the paper" if mean.value > 0 else "the other way round"


def measured_order(ablation: Ablation, claims: Sequence[tuple[str, str]] = CLAIMED) -> list[Ordering]:
    """Every claim after every stage that both pretexts have finished with a common seed."""
    compared: list[tuple[str, str, str, list[Run], list[Run]]] = []
    for stage in STAGES:
        for better, worse in claims:
            first, second = (
                {run.seed: run for run in ablation.finished(stage, pretext=pretext)} for pretext in (better, worse)
            )
            if seeds := sorted(first.keys() & second.keys()):
                pair = ([runs[seed] for seed in seeds] for runs in (first, second))
                compared.append((stage, better, worse, *pair))  # type: ignore[arg-type]
    level = 1 - (1 - _LEVEL) / max(1, len(compared))
    return [_ordering(ablation, *one, level=level) for one in compared]


def _ordering(
    ablation: Ablation, stage: str, better: str, worse: str, first: list[Run], second: list[Run], *, level: float
) -> Ordering:
    pairs = list(zip(first, second, strict=True))
    ahead = [ours.scores[task] > theirs.scores[task] for ours, theirs in pairs for task in ablation.kinds]
    difference = mean_over_seeds(
        [ours.average(ablation.kinds) - theirs.average(ablation.kinds) for ours, theirs in pairs]
    )
    interval = paired_interval(first, second, list(ablation.kinds), level=level)
    return Ordering(stage, better, worse, difference, sum(ahead), len(ahead), interval)


def order_words(ablation: Ablation) -> str:
    """The claims and their verdicts as a Markdown list, below a summary and above a note on the numbers."""
    orderings = measured_order(ablation)
    if not orderings:
        return "No two pretexts of the claim have been run with the same seed."
    lines = [_summary(orderings), ""]
    for stage, title in _TITLES.items():
        if of_stage := [one for one in orderings if one.stage == stage]:
            lines += [f"- **{title}**", *(f"  - {_sentence(one)}" for one in of_stage)]
    return "\n".join([*lines, "", _basis(ablation, orderings), *_more_seeds(orderings)])


def claims_table(ablation: Ablation, paper: dict[tuple[str, str], float]) -> str:
    """Every claim after every stage as a row: the paper's difference, ours with its interval, and the verdict.

    Args:
        ablation: The runs.
        paper: Averages of the paper in percent, by pretext and stage.
    """
    rows = [["after", "claim", "paper, points", "here, points", "corrected interval", "seeds", "verdict"]]
    for one in measured_order(ablation):
        ends = (paper.get((name, one.stage)) for name in (one.better, one.worse))
        better, worse = ends
        interval = f"{100 * one.interval.low:+.1f} to {100 * one.interval.high:+.1f}" if one.interval else "–"
        half = f" ± {100 * one.difference.half:.1f}" if one.difference.half is not None else ""
        rows.append(
            [
                STAGES[one.stage],
                f"{pretext_name(one.better)} above {pretext_name(one.worse)}",
                f"{better - worse:+.2f}" if better is not None and worse is not None else "–",
                f"{100 * one.difference.value:+.1f}{half}",
                interval,
                str(one.difference.seeds),
                one.verdict,
            ]
        )
    return "\n\n".join([markdown_table(rows), _basis(ablation, measured_order(ablation))]) if rows[1:] else ""


def _summary(orderings: Sequence[Ordering]) -> str:
    counted = [
        f"{count} {words}"
        for verdict, words in VERDICTS.items()
        if (count := sum(one.verdict == verdict for one in orderings))
    ]
    tested_once = all(one.difference.seeds == 1 and one.interval is not None for one in orderings)
    return f"Of {len(orderings)} comparisons{', all of one seed' if tested_once else ''}: {', '.join(counted)}."


def _sentence(one: Ordering) -> str:
    place = "above" if one.difference.value > 0 else "below" if one.difference.value < 0 else "level with"
    half = f" ± {one.difference.half:.3f}" if one.difference.half is not None else ""
    amount = f" by {abs(one.difference.value):.3f}{half}" if place != "level with" else half
    texts = f" ({one.interval.low:+.3f} to {one.interval.high:+.3f})" if one.interval else ""
    shown = f"{pretext_name(one.better)} {place} {pretext_name(one.worse)}{amount}{texts}"
    return f"{shown}, ahead in {one.wins} of {one.pairs}: {one.verdict}."


def _basis(ablation: Ablation, orderings: Sequence[Ordering]) -> str:
    seeds = sorted({one.difference.seeds for one in orderings})
    counted = (
        f"{seeds[0]} seed{'s' if seeds[0] != 1 else ''}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    )
    words = (
        f"Differences are of the average over {', '.join(ablation.kinds)}, between models of the same seed "
        f"({counted}); ± is a 95 % t-interval over seeds, "
        'of each comparison by itself. It says what another seed might change, not what other tasks would. "Ahead in" '
        "counts pairs of a seed and a task."
    )
    corrected = sum(one.interval is not None for one in orderings)
    if corrected:
        words += (
            " From … to is the paired bootstrap interval over the texts of the tasks, at 95 % for all "
            f"{len(orderings)} comparisons together (Bonferroni): what other texts might change. A difference is clear "
            "only if no interval reaches 0; one of a single seed may still be that seed's."
        )
    return words


def _more_seeds(orderings: Sequence[Ordering]) -> list[str]:
    """What further seeds may decide, as a paragraph; empty where all is clear."""
    open_ones = [one for one in orderings if one.interval is not None and one.verdict == "no clear difference"]
    if not open_ones:
        return []
    pretexts = dict.fromkeys(name for one in open_ones for name in (one.better, one.worse))
    return [
        "",
        f"Undecided, so that more seeds are worth their time: {', '.join(map(pretext_name, pretexts))} "
        f"({', '.join(f'`--pretexts {name}`' for name in pretexts)}).",
    ]
