"""`loss.png` in the folder of a run: training loss, held-out losses and learning rate by update."""

import logging
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from llm2comp.errors import TrainingError
from llm2comp.training.metrics import read_metrics
from llm2comp.training.run_folder import write_run_file

__all__ = ["PICTURE_FILE", "draw_loss"]

PICTURE_FILE = "loss.png"
_COLOURS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
_logger = logging.getLogger(__name__)
_SMOOTHED = 0.9
_LEAST_SMOOTHED = 30


def draw_loss(folder: Path) -> Path | None:
    """Draws the losses in `metrics.jsonl`; None if there are none, or they cannot be drawn here.

    Without matplotlib, and where the file cannot be written, there is no picture, and no error.

    Args:
        folder: Folder of a run or stage, which gets `loss.png`.
    """
    entries = read_metrics(folder)
    losses = _series(entries, "loss")
    if not losses:
        return None
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(9, 5), dpi=100, layout="constrained")
    axes = figure.subplots()
    _draw(axes, losses, entries)
    if rates := _series(entries, "learning_rate"):
        right = axes.twinx()
        right.plot(*zip(*rates, strict=True), color="0.75", linewidth=1, zorder=0)
        right.set_ylabel("learning rate (grey)", color="0.5")
        right.set_ylim(bottom=0)
        axes.set_zorder(right.get_zorder() + 1)
        axes.patch.set_visible(False)
    picture = BytesIO()
    figure.savefig(picture, format="png")
    try:
        write_run_file(folder / PICTURE_FILE, [picture.getvalue()])
    except TrainingError as error:  # a full disk; training goes on
        _logger.warning("%s", str(error).split(". Free")[0])
        return None
    return folder / PICTURE_FILE


def _draw(axes: Any, losses: Sequence[tuple[int, float]], entries: Sequence[Mapping[str, Any]]) -> None:
    steps = [step for step, _ in losses]
    smooth = len(losses) >= _LEAST_SMOOTHED
    axes.plot(steps, [loss for _, loss in losses], color="#0072B2", alpha=0.35 if smooth else 1.0, label="training")
    if smooth:
        axes.plot(steps, _average([loss for _, loss in losses]), color="#0072B2", label="training, smoothed")
    names = {name for entry in entries for name in entry if name.startswith("eval_") and name.endswith("loss")}
    for place, name in enumerate(sorted(names)[:12]):
        heldout = _series(entries, name)
        label = name.removeprefix("eval_").removesuffix("loss").strip("_")
        colour = _COLOURS[place % len(_COLOURS)]
        axes.plot(*zip(*heldout, strict=True), "o-", color=colour, label=f"held out {label}".strip(), markersize=4)
    axes.set_xlabel("update")
    axes.set_ylabel("loss (nats)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)


def _series(entries: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(entry["step"], entry[name]) for entry in entries if isinstance(entry.get(name), (int, float))]


def _average(values: Sequence[float]) -> list[float]:
    """Exponential moving average, without the pull to zero of its beginning."""
    total = weight = 0.0
    averages = []
    for value in values:
        total, weight = _SMOOTHED * total + value, _SMOOTHED * weight + 1
        averages.append(total / weight)
    return averages
