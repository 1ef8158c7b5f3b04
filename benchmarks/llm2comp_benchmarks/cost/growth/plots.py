"""The curves of `llm2comp bench growth` as one picture: the measurements, and the expected law beside them.

`python -m llm2comp_benchmarks.cost.growth.plots FILE.json FILE.png` draws a result file again.
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from llm2comp.optional import check_matplotlib

__all__ = ["plot_growth"]


class _Panel(NamedTuple):
    """Titles and scales of a curve; costs are divided by `unit`."""

    title: str
    x: str
    y: str
    unit: float = 1.0
    log: bool = False
    log2: bool = False


_PANELS = {
    "tokens": _Panel("Encode time against tokens", "tokens in all (log scale)", "seconds (log scale)", log=True),
    "k": _Panel("Encode time against memory tokens", "memory tokens k of each text", "seconds"),
    "length": _Panel("Encode time against length", "tokens of each text (log scale)", "seconds (log scale)", log=True),
    "memory": _Panel("Peak memory against corpus size", "texts in the stream (log scale)", "MB", 1e6, log2=True),
    "vocabulary": _Panel("Stage-1 step against vocabulary", "tokens in the vocabulary", "seconds a step"),
}
_MEASURED, _LAW, _OTHER = "#0072B2", "#D55E00", "#009E73"  # of Okabe and Ito, for the colour-blind too
_LEAST_GAP = 0.09  # between ticks, as a share of the axis


def plot_growth(record: dict[str, Any], path: Path) -> None:
    """Draws a record of `run_growth_benchmark` as a PNG.

    Raises:
        LLM2CompError: matplotlib is not installed; the message has the command.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    curves = record["curves"]
    figure = Figure(figsize=(13, 7.4), dpi=100, layout="constrained")
    places = figure.subplots(2, 3).flatten().tolist()
    for name, axes in zip(curves, places, strict=False):
        _draw(axes, _PANELS[name], curves[name])
    for axes in places[len(curves) :]:
        axes.set_axis_off()
    _add_key(places[len(curves)], record)
    figure.savefig(path, format="png", pil_kwargs={"optimize": True})


def _draw(axes: Any, panel: _Panel, curve: dict[str, Any]) -> None:
    points = curve["points"]
    sizes, middles = [point["at"] for point in points], [point["median"] / panel.unit for point in points]
    spread = [
        [(point["median"] - point["least"]) / panel.unit for point in points],
        [(point["most"] - point["median"]) / panel.unit for point in points],
    ]
    axes.plot(sizes, [cost / panel.unit for cost in curve["law"]["fitted"]], "--", color=_LAW, zorder=2)
    axes.errorbar(sizes, middles, yerr=spread, fmt="o", color=_MEASURED, capsize=4, markersize=6, zorder=3)
    if "anonymous" in points[0]:
        axes.plot(
            sizes,
            [point["anonymous"]["median"] / panel.unit for point in points],
            "s",
            color=_OTHER,
            markersize=5,
            label="without mapped files",
        )
        axes.legend(frameon=False, fontsize=9, loc="lower right")
    _set_scales(axes, panel, sizes)
    axes.set_title(panel.title, fontsize=11)
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.y)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    law = curve["law"]
    words = f"law: {law['form']}\nwithin {100 * law['largest_deviation']:.1f} % of every point"
    axes.text(
        0.03,
        0.97,
        words,
        transform=axes.transAxes,
        va="top",
        fontsize=9,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none"},
    )


def _set_scales(axes: Any, panel: _Panel, sizes: list[int]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    if panel.log or panel.log2:
        axes.set_xscale("log", base=2)
    ticks = sizes if panel.log or panel.log2 else _apart(sizes)
    axes.set_xticks(ticks, [_short(size) for size in ticks])
    axes.set_xticks([], minor=True)
    if panel.log:
        axes.set_yscale("log", base=10)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(top=3 * axes.get_ylim()[1])  # room for the formula
    else:
        axes.set_ylim(0, 1.3 * axes.get_ylim()[1])


def _apart(sizes: list[int]) -> list[int]:
    """The sizes whose labels do not run into the one before, on a linear axis."""
    chosen: list[int] = []
    for size in sizes:
        if not chosen or size - chosen[-1] >= _LEAST_GAP * sizes[-1]:
            chosen.append(size)
    return chosen


def _short(size: int) -> str:
    """A size as a tick label: 16k for 16,384 and for 16,000 alike."""
    if size < 1000:
        return str(size)
    return f"{round(size / (1000 if size % 1000 == 0 or size % 1024 else 1024))}k"


def _add_key(axes: Any, record: dict[str, Any]) -> None:
    """Draws the legend, and what was measured, in place of a curve."""
    settings, hardware, model = record["settings"], record["hardware"], record["settings"]["model"]
    axes.errorbar(
        [],
        [],
        yerr=[[], []],
        fmt="o",
        color=_MEASURED,
        capsize=4,
        label=f"measured: median, bar from least to most ({settings['rounds']} rounds)",
    )
    axes.plot([], [], "--", color=_LAW, label="expected law, fitted to the medians")
    axes.legend(frameon=False, loc="upper left", fontsize=10)
    lines = [
        f"random weights of the shape {settings['shape']}" if not model.get("fingerprint") else "a trained model",
        f"hidden {model['hidden']}, {model['layers']} layers, intermediate {model['intermediate']}, {model['dtype']}"
        if model
        else "",
        f"{hardware['processor']}, threads: {hardware['threads']}",
        "tokens: more and more texts of 64 tokens",
        f"k: {settings['texts']} texts of 32 tokens, k behind each",
        f"length: {settings['texts']} texts",
        "memory: texts of 16 tokens, encoded block by block",
        "stage 1: 4 texts of 300 tokens",
    ]
    axes.text(
        0.03, 0.72, "\n".join(filter(None, lines)), transform=axes.transAxes, va="top", fontsize=9.5, linespacing=1.5
    )


def main() -> None:
    """Draws the result file named first as the picture named second."""
    plot_growth(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
