"""Plots of an analysis: spectra of models, and the similarity of their memory tokens."""

import math
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp.analysis.description import mean_off_diagonal
from llm2comp.analysis.report import Analysis, ModelAnalysis

__all__ = ["plot_memory", "plot_spectra"]

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Of Okabe and Ito, distinct for all kinds of colour vision; more models take them again."""
_PANELS_BESIDE = 3
_MARKED_TOKENS = 12
_NAME_CHARACTERS = 45


def plot_spectra(analysis: Analysis, path: Path) -> None:
    """Writes a PNG (1,100 x 700) of singular values over the largest one, by rank, centred and uncentred."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), dpi=100, layout="constrained")
    axes = figure.subplots()
    for model, colour in zip(analysis.models, cycle(_COLOURS), strict=False):
        _draw_spectrum(axes, model, colour)
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.grid(which="major", alpha=0.3)
    axes.set_xlabel("rank of the singular value (1: the largest)", fontsize=13)
    axes.set_ylabel("singular value / the largest (log scale)", fontsize=13)
    axes.tick_params(labelsize=11)
    axes.set_title(f"Spectrum of the embeddings of {analysis.texts:,} texts", fontsize=14)
    figure.legend(fontsize=11, loc="outside lower center")  # in the axes it would hide a line
    _save(figure, path)


def _draw_spectrum(axes: Any, model: ModelAnalysis, colour: str) -> None:
    description, figures = model.description, model.description.figures
    kinds = (
        ("-", "centred", description.spectrum, figures.participation_ratio, figures.entropy_rank),
        (
            "--",
            "mean left in",
            description.spectrum_uncentred,
            figures.participation_ratio_uncentred,
            figures.entropy_rank_uncentred,
        ),
    )
    for style, kind, values, ratio, rank in kinds:
        shown = values[values > 0]  # zeros have no logarithm; a line that ends early shows a collapse
        label = f"{_short(model.name)}, {kind}: participation ratio {ratio:.1f}, entropy rank {rank:.1f}"
        axes.plot(np.arange(1, len(shown) + 1), shown / values[0], style, color=colour, linewidth=2, label=label)


def plot_memory(analysis: Analysis, path: Path) -> bool:
    """Writes a PNG of the mean cosines between memory tokens, one panel per model, on one scale.

    Returns:
        False, without a file, if no model has memory tokens.
    """
    from matplotlib.figure import Figure

    similarities = [(model, model.description.similarity) for model in analysis.models]
    panels = [(model, similarity) for model, similarity in similarities if similarity is not None]
    if not panels:
        return False
    columns = min(_PANELS_BESIDE, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(1.5 + 5.2 * columns, 6.2 * rows), dpi=100, layout="constrained")
    lowest = min(0.9, *(math.floor(10 * similarity.min()) / 10 for _, similarity in panels))
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, (model, similarity) in zip(axes, panels, strict=False):
        image = _draw_similarity(axis, model, similarity, lowest)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    bar = figure.colorbar(image, ax=list(axes), shrink=0.85)
    bar.set_label(f"mean cosine over {analysis.texts:,} texts", fontsize=12)
    _save(figure, path)
    return True


def _draw_similarity(axis: Any, model: ModelAnalysis, similarity: NDArray[np.float64], lowest: float) -> Any:
    tokens = len(similarity)
    ends = (0.5, tokens + 0.5)
    extent = (*ends, *reversed(ends))  # tokens count from 1
    image = axis.imshow(similarity, cmap="cividis", vmin=lowest, vmax=1.0, extent=extent)
    if tokens <= _MARKED_TOKENS:
        for (row, column), value in np.ndenumerate(similarity):
            axis.text(
                column + 1,
                row + 1,
                f"{value:.2f}",
                ha="center",
                va="center",
                fontsize=9,
                color="black" if value > (1 + lowest) / 2 else "white",
            )
        axis.set_xticks(range(1, tokens + 1))
        axis.set_yticks(range(1, tokens + 1))
    axis.set_xlabel("memory token (position after the text)", fontsize=12)
    axis.set_ylabel("memory token", fontsize=12)
    mean = mean_off_diagonal(similarity)
    summary = "a single token" if mean is None else f"mean of different tokens {mean:.3f}"
    axis.set_title(f"{_short(model.name)}\n{summary}", fontsize=12)
    return image


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, format="png", pil_kwargs={"optimize": True})


def _short(name: str) -> str:
    """The end of a long name, the more telling part of a path."""
    return name if len(name) <= _NAME_CHARACTERS else "…" + name[1 - _NAME_CHARACTERS :]
