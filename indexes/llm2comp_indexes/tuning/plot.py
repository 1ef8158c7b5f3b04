"""Plot of the recall-latency curve of an index."""

import textwrap
from itertools import groupby
from pathlib import Path
from typing import Any

from llm2comp.optional import check_matplotlib
from llm2comp.units import format_bytes
from llm2comp_indexes.options import format_latency
from llm2comp_indexes.structures.types import IndexType
from llm2comp_indexes.tuning.choose import format_effort
from llm2comp_indexes.tuning.report import Report

__all__ = ["plot_curve"]

_TITLE_CHARACTERS = 100


def plot_curve(report: Report, path: Path) -> None:
    """Writes a PNG (1,200 x 800) of latency over recall, with the targets and the point that the index is set to.

    Raises:
        LLM2CompError: matplotlib is not installed; the message has the command.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8), dpi=100, layout="constrained")
    axes = figure.subplots()
    _draw_curves(axes, report)
    _draw_targets(axes, report)
    _label(axes, report)
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
        recalls = [point.recall for point in points]
        axes.plot(recalls, [point.median_ms for point in points], "o-", color=f"C{number}", label=label, zorder=3)
        axes.plot(
            recalls,
            [point.p99_ms for point in points],
            ".:",
            color=f"C{number}",
            alpha=0.6,
            label="99th percentile" if not number else None,
        )
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


def _draw_targets(axes: Any, report: Report) -> None:
    targets = report.targets
    axes.axvline(targets.recall, color="seagreen", linestyle="--", label=f"target: recall at least {targets.recall:g}")
    axes.axhline(targets.latency, color="darkorange", linestyle="--", label=f"target: {format_latency(targets)}")


def _label(axes: Any, report: Report) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    lowest = min([report.targets.recall, *(point.recall for point in report.points)])
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
    titles = (
        f"{report.rows:,} vectors of dimension {report.dimension}: {kind}, {format_bytes(report.memory)} of memory",
        f"measured with {report.query_source}",
    )
    axes.set_title("\n".join(line for title in titles for line in textwrap.wrap(title, _TITLE_CHARACTERS)), fontsize=13)
    axes.legend(fontsize=11, loc="best")
