"""Plots of an ablation: score against supervised samples and against memory tokens, and the claims with intervals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm2comp.optional import check_matplotlib
from llm2comp_benchmarks.ablation.claims import measured_order
from llm2comp_benchmarks.ablation.summary import STAGES, Ablation, Mean, Run, mean_over_seeds
from llm2comp_benchmarks.ablation.tables import (
    kind_score,
    memory_runs,
    memory_runs_of_all_seeds,
    pretext_name,
    samples_by_count,
)

__all__ = ["PLOTS", "plot_ablation"]

PLOTS = {"samples": "score-by-samples.png", "memory": "score-by-memory-tokens.png", "claims": "claims.png"}
"""File name of each plot."""
_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#000000",
    "#E69F00",
    "#56B4E9",
)  # of Okabe and Ito, for the colour-blind too
_MARKERS = "osD^vPX"


def plot_ablation(ablation: Ablation, folder: Path) -> list[Path]:
    """Draws the plots that there are points for; returns the files written.

    Raises:
        LLM2CompError: matplotlib is not installed; the message has the command.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    written = []
    for name, draw in (("samples", _draw_samples), ("memory", _draw_memory), ("claims", _draw_claims)):
        figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
        axes = figure.subplots()
        if draw(axes, ablation):
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            figure.savefig(folder / PLOTS[name], format="png", pil_kwargs={"optimize": True})
            written.append(folder / PLOTS[name])
    return written


def _draw_samples(axes: Any, ablation: Ablation) -> bool:
    counts: set[int] = set()
    for number, pretext in enumerate(ablation.pretexts):
        points = {
            count: mean_over_seeds([run.average(ablation.curve) for run in runs])
            for count, runs in samples_by_count(ablation, pretext).items()
        }
        if len(points) > 1:
            _line(axes, points, number, pretext_name(pretext))
            counts.update(points)
    if not counts:
        return False
    axes.set_xscale("symlog", linthresh=(first := min(count for count in counts if count)), linscale=0.3)
    _ticks(axes, sorted(counts), [f"{count:,}" if count else "0\n(after stage 2)" for count in sorted(counts)])
    axes.set_xlabel(f"supervised samples (log scale from {first:,} on)")
    axes.set_ylabel(f"average of {', '.join(ablation.curve)}")
    axes.set_title(f"Score against supervised samples{_seeds(ablation)}", fontsize=11)
    axes.legend(frameon=False)
    return True


def _draw_memory(axes: Any, ablation: Ablation) -> bool:
    stage = next((stage for stage in reversed(STAGES) if len(memory_runs(ablation, stage)) > 1), None)
    if stage is None:
        return False
    by_k, more = memory_runs(ablation, stage), memory_runs_of_all_seeds(ablation, stage)
    for number, kind in enumerate(dict.fromkeys(ablation.kinds.values())):
        tasks = [task for task, of in ablation.kinds.items() if of == kind]
        points = {k: mean_over_seeds([kind_score(run, ablation, kind) for run in runs]) for k, runs in by_k.items()}
        _line(axes, points, number, f"{kind} ({', '.join(tasks)})")
        spreads = {
            k: mean_over_seeds([kind_score(run, ablation, kind) for run in runs])
            for k, runs in more.items()
            if len(runs) > len(by_k[k])
        }
        axes.vlines(
            list(spreads),
            [mean.lowest for mean in spreads.values()],
            [mean.highest for mean in spreads.values()],
            color=_colour(number),
            alpha=0.4,
            linewidth=5,
        )
    axes.set_xscale("log", base=2)
    _ticks(axes, list(by_k), [str(k) for k in by_k])
    axes.set_xlabel("memory tokens k (log scale)")
    axes.set_ylabel("score, mean over the tasks of a kind")
    axes.set_title(
        f"CTKD {STAGES[stage]}: score against memory tokens, {_seeds_of_memory_runs(by_k, more)}", fontsize=11
    )
    axes.legend(frameon=False)
    return True


def _draw_claims(axes: Any, ablation: Ablation) -> bool:
    """Each claim after each stage as a line between the ends of its corrected interval; right of 0: as in the paper."""
    orderings = [one for one in measured_order(ablation) if one.interval is not None]
    for place, one in enumerate(reversed(orderings)):
        assert one.interval is not None
        colour = {"as in the paper": _COLOURS[0], "the other way round": _COLOURS[1]}.get(one.verdict, "#777777")
        axes.plot([100 * end for end in one.interval], [place, place], color=colour, linewidth=2)
        axes.plot(100 * one.difference.value, place, marker="o", color=colour)
    if not orderings:
        return False
    labels = [
        f"{pretext_name(one.better)} − {pretext_name(one.worse)}, {STAGES[one.stage]}" for one in reversed(orderings)
    ]
    axes.set_yticks(range(len(orderings)), labels, fontsize=8)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel(f"points, average of {', '.join(ablation.kinds)}")
    axes.figure.suptitle(
        f"Differences and their 95 % intervals over texts, corrected for {len(orderings)} comparisons;\n"
        f"blue: as in the paper, orange: the other way round, grey: not clear{_seeds(ablation, short=True)}",
        fontsize=9,
    )
    return True


def _seeds_of_memory_runs(compared: dict[int, list[Run]], of_all_seeds: dict[int, list[Run]]) -> str:
    count = len(next(iter(compared.values())))
    more = [f"{len(runs)} seeds of k = {k}" for k, runs in of_all_seeds.items() if len(runs) > len(compared[k])]
    return f"{count} seed{'s' if count != 1 else ''}" + (f" (bars: {', '.join(more)})" if more else "")


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _line(axes: Any, points: dict[int, Mean], number: int, label: str) -> None:
    colour, places = _colour(number), list(points)
    means = list(points.values())
    axes.plot(
        places, [mean.value for mean in means], marker=_MARKERS[number % len(_MARKERS)], color=colour, label=label
    )
    if any(mean.seeds > 1 for mean in means):
        axes.fill_between(
            places,
            [mean.lowest for mean in means],
            [mean.highest for mean in means],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )


def _ticks(axes: Any, places: Sequence[int], labels: Sequence[str]) -> None:
    axes.set_xticks(places, labels)
    axes.set_xticks([], minor=True)


def _seeds(ablation: Ablation, *, short: bool = False) -> str:
    seeds = len({run.seed for run in ablation.runs if run.stage == "supervised"})
    if seeds > 1:
        return f" ({seeds} seeds)" if short else f": mean of {seeds} seeds, band from the lowest to the highest"
    return " (one seed)" if short else ", one seed"
