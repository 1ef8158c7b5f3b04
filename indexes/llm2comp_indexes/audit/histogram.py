"""Shares in bins: as lines of text, and as a picture."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llm2comp.optional import check_matplotlib

__all__ = ["Bin", "format_bins", "make_bins", "plot_bins"]

_WIDTHS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_MOST_BINS = 20
_BAR = 40


class Bin(NamedTuple):
    """Number of shares from `begin` up to `end`, this excluded; infinite ends take what lies beyond the others."""

    begin: float
    end: float
    rows: int


def make_bins(shares: Sequence[float]) -> list[Bin]:
    """Bins of one width, a round number, for at least one share.

    At most 20 bins hold all but the lowest and the highest hundredth; those may lie in two more, with infinite ends.
    """
    low, high = np.percentile(shares, [1, 99]).tolist()
    width = next((one for one in _WIDTHS if _count(low, high, one) <= _MOST_BINS), (high - low) / (_MOST_BINS - 1))
    first, number = math.floor(low / width), _count(low, high, width)
    edges = [round(width * (first + place), 10) for place in range(number + 1)]
    places = np.searchsorted(edges, shares, side="right")
    counts = np.bincount(places, minlength=number + 2).tolist()
    bins = [Bin(begin, end, count) for begin, end, count in zip(edges, edges[1:], counts[1:], strict=False)]
    below, above = Bin(-math.inf, edges[0], counts[0]), Bin(edges[-1], math.inf, counts[-1])
    return [*([below] if below.rows else []), *bins, *([above] if above.rows else [])]


def _count(low: float, high: float, width: float) -> int:
    return math.floor(high / width) - math.floor(low / width) + 1


def format_bins(bins: Sequence[Bin]) -> str:
    """A line for each bin: its range, a bar, and its number."""
    most = max(1, *(one.rows for one in bins))
    labels = [_label(one) for one in bins]
    widest = max(map(len, labels))
    return "\n".join(
        f"{label:>{widest}} {'#' * math.ceil(_BAR * one.rows / most):<{_BAR}} {one.rows:,}"
        for label, one in zip(labels, bins, strict=True)
    )


def _label(one: Bin) -> str:
    if math.isinf(one.begin):
        return f"below {one.end:.2f}"
    return f"{one.begin:.2f} or more" if math.isinf(one.end) else f"{one.begin:.2f} to {one.end:.2f}"


def plot_bins(bins: Sequence[Bin], path: Path, *, title: str, median: float) -> None:
    """Writes a PNG (900 x 450) of the bins, with a line at the median.

    Raises:
        LLM2CompError: matplotlib is not installed; the message has the command.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    width = next(one.end - one.begin for one in bins if math.isfinite(one.end - one.begin))
    figure = Figure(figsize=(9, 4.5), dpi=100, layout="constrained")
    axes = figure.subplots()
    for one in bins:
        begin = one.end - width if math.isinf(one.begin) else one.begin
        outer = math.isinf(one.begin) or math.isinf(one.end)
        axes.bar(begin, one.rows, width, align="edge", color="#999999" if outer else "#0072B2", edgecolor="white")
    axes.axvline(median, color="#D55E00", linewidth=2, label=f"median {median:.3f}")
    axes.set_xlabel("share of the text's worth to the reader that its memory keeps (grey: and beyond)", fontsize=11)
    axes.set_ylabel("rows", fontsize=11)
    axes.set_title(title, fontsize=12)
    axes.legend(fontsize=10)
    figure.savefig(path, format="png", pil_kwargs={"optimize": True})
