"""Plot of the recall-latency curve of an index."""

import textwrap
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from llm2comp.optional import check_matplotlib
from llm2comp.units import format_bytes
from llm2comp_indexes.options import format_latency
from llm2comp_indexes.structures.types import IndexType
from llm2comp_indexes.tuning.choose import format_effort
from llm2comp_indexes.tuning.measure import Point
from llm2comp_indexes.tuning.report import Report
from llm2comp_indexes.tuning.trials import Candidate

__all__ = ["plot_curve"]

_TITLE_CHARACTERS = 100
_BAND = "up to the 99th percentile"


def plot_curve(report: Report, path: Path, alternatives: Sequence[Candidate] = ()) -> None:
    """Writes a PNG (1,200 x 800) of latency over recall, with the targets and the point that the index is set to.

    Lines are medians; the faint bands above them reach to the 99th percentile.

    Args:
        report: Measurements of the index.
        path: The PNG to write.
        alternatives: Types that the index could have, with the curves that are expected of them.

    Raises:
        LLM2CompError: matplotlib is not installed; the message has the command.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8), dpi=100, layout="constrained")
    axes = figure.subplots()
    _draw_curves(axes, report)
    _draw_alternatives(axes, alternatives)
    _draw_targets(axes, report)
    _label(axes, report, alternatives)
    figure.savefig(path, format="png")


def _draw_curves(axes: Any, report: Report) -> None:
    groups = [
        (rerank, list(points)) for rerank, points in groupby(report.points, key=lambda point: point.effort.rerank)
    ]
    for number, (rerank, points) in enumerate(groups):
        label = (
            "median"
            if len(groups) == 1
            else f"median, {rerank} candidate{'s' if rerank != 1 else ''} re-scored per answer"
        )
        color = f"C{number}"
        axes.plot(*_medians(points), "o-", color=color, label=label if len(points) > 1 else None, zorder=3)
        _draw_band(axes, points, color, label=None if number else _BAND)
    if report.exact:
        axes.plot(
            report.exact.recall,
            report.exact.median_ms,
            "s",
            color="black",
            markersize=9,
            label=f"exact search: {report.exact.median_ms:.3g} ms",
            zorder=4,
        )
    chosen = report.point
    label = f"chosen: recall {chosen.recall:.3f}, {chosen.median_ms:.3g} ms"
    axes.plot(
        chosen.recall,
        chosen.median_ms,
        "*",
        color="crimson",
        markersize=22,
        markeredgecolor="white",
        label=label,
        zorder=5,
    )


def _draw_alternatives(axes: Any, alternatives: Sequence[Candidate]) -> None:
    for number, candidate in enumerate(alternatives, start=1):
        points = _fastest(candidate.points)
        label = f"{candidate.type.factory}, expected: {format_bytes(candidate.memory)} of memory"
        axes.plot(*_medians(points), ".-", color=f"C{number}", label=label, zorder=2)


def _fastest(points: Sequence[Point]) -> list[Point]:
    """The points that no other point beats in both recall and median, by recall."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.median_ms, -point.recall)):
        if not best or point.recall > best[-1].recall:
            best.append(point)
    return best


def _medians(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point.recall for point in points], [point.median_ms for point in points]


def _draw_band(axes: Any, points: Sequence[Point], color: str, label: str | None) -> None:
    """From the median to the 99th percentile; of a single point, a bar."""
    ordered = sorted(points, key=lambda point: point.recall)
    recalls, medians = _medians(ordered)
    most = [point.p99_ms for point in ordered]
    if len(ordered) > 1:
        axes.fill_between(recalls, medians, most, color=color, alpha=0.15, linewidth=0, label=label)
    else:
        axes.vlines(recalls, medians, most, color=color, alpha=0.25, linewidth=8, label=label)


def _draw_targets(axes: Any, report: Report) -> None:
    targets = report.targets
    axes.axvline(targets.recall, color="seagreen", linestyle="--", label=f"target: recall at least {targets.recall:g}")
    axes.axhline(targets.latency, color="darkorange", linestyle="--", label=f"target: {format_latency(targets)}")


def _label(axes: Any, report: Report, alternatives: Sequence[Candidate]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    lowest = _lowest_recall(report, alternatives)
    axes.set_xlim(lowest - (margin := 0.05 * (1 - lowest) or 0.01), 1 + margin)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(which="both", alpha=0.25)
    axes.set_xlabel(f"recall@{report.targets.k} (share of the true nearest rows found)", fontsize=13)
    axes.set_ylabel(f"latency of one query (ms, log scale; FAISS threads: {report.threads})", fontsize=13)
    axes.tick_params(labelsize=11)
    kind = format_effort(IndexType(report.type), report.point.effort)
    titles = [
        f"{report.rows:,} vectors of dimension {report.dimension}: {kind}, {format_bytes(report.memory)} of memory",
        f"measured with {report.query_source}",
    ]
    if alternatives:
        titles.append("other types: expected, by trials on a sample of the vectors")
    elif kind == "exact search":
        titles.append("exact search is fast enough, so no other type was tried")
    axes.set_title("\n".join(line for title in titles for line in textwrap.wrap(title, _TITLE_CHARACTERS)), fontsize=13)
    axes.legend(fontsize=11, loc="best")


def _lowest_recall(report: Report, alternatives: Sequence[Candidate]) -> float:
    """The left end of the picture: all points of the index, and those of other types that are near the target."""
    target = report.targets.recall
    near = 1 - 5 * (1 - target)
    others = [max(point.recall, near) for candidate in alternatives for point in candidate.points]
    return min([target, *(point.recall for point in report.points), *others])
