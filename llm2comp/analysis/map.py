"""A map of a labelled corpus: texts as points whose neighbours are neighbours in the space of the vectors too."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import SettingsError

__all__ = ["FEWEST_POINTS", "label_agreement", "lay_out", "plot_map"]

FEWEST_POINTS = 4
"""Smallest number of texts that can be laid out."""

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C510A", "#F0E442", "#000000")
"""Of Okabe and Ito, distinct for all kinds of colour vision; one brown beside them."""
_OTHERS = "0.8"
_PERPLEXITY = 30.0
_LABEL_CHARACTERS = 30
_Floats = NDArray[np.floating[Any]]


def lay_out(vectors: _Floats, *, seed: int = 0) -> NDArray[np.float64]:
    """Points of vectors in a plane, (texts, 2), by t-SNE from their principal components.

    Near points are near vectors; sizes of groups and distances between them mean nothing.

    Args:
        vectors: At least four, (texts, dim).
        seed: Seed of the layout.

    Raises:
        SettingsError: If there are fewer vectors.
    """
    from sklearn.manifold import TSNE

    if len(vectors) < FEWEST_POINTS:
        raise SettingsError(f"a map of {len(vectors)} texts: give at least {FEWEST_POINTS}")
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", metric="cosine", random_state=seed).fit_transform(vectors)
    return np.asarray(points, dtype=np.float64)


def label_agreement(vectors: _Floats, labels: Sequence[str]) -> float:
    """Share of texts whose most similar other text, by cosine, has the same label."""
    unit = np.asarray(vectors, dtype=np.float32)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    named, same = np.asarray(labels), 0
    for first in range(0, len(unit), 1000):
        similarities = unit[first : first + 1000] @ unit.T
        rows = np.arange(len(similarities))
        similarities[rows, first + rows] = -np.inf
        same += int((named[similarities.argmax(axis=1)] == named[first : first + 1000]).sum())
    return same / len(unit)


def plot_map(
    models: Sequence[tuple[str, _Floats]], labels: Sequence[str], path: Path, *, field: str, seed: int = 0
) -> None:
    """Writes a PNG with a panel for each model, its texts as points in the colours of their labels.

    Args:
        models: Name and vectors of each, (texts, dim).
        labels: Label of each text.
        path: The file.
        field: What the labels are, for the title of the legend.
        seed: Seed of the layouts.
    """
    from matplotlib.figure import Figure

    counts = Counter(labels).most_common()
    shown = [label for label, _ in counts[: len(_COLOURS) if len(counts) <= len(_COLOURS) else len(_COLOURS) - 1]]
    columns = min(3, len(models))
    rows = -(-len(models) // columns)
    figure = Figure(figsize=(5.2 * columns, 5.0 * rows + 0.6), dpi=100, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, (name, vectors) in zip(panels, models, strict=False):
        _draw(axis, lay_out(vectors, seed=seed), labels, shown)
        axis.set_title(f"{_end(name)}\nnearest text has the same label: {label_agreement(vectors, labels):.0%}")
    for axis in panels[len(models) :]:
        axis.set_axis_off()
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, names, title=_end(field), loc="outside lower center", ncols=min(5, len(names)), markerscale=2
    )
    figure.savefig(path, format="png", pil_kwargs={"optimize": True})


def _draw(axis: Any, points: NDArray[np.float64], labels: Sequence[str], shown: Sequence[str]) -> None:
    named = np.asarray(labels)
    size = float(np.clip(4000 / len(points), 4, 40))
    if (others := ~np.isin(named, list(shown))).any():
        axis.scatter(*points[others].T, s=size, color=_OTHERS, linewidths=0, label="others")
    for label, colour in zip(shown, _COLOURS, strict=False):
        axis.scatter(*points[named == label].T, s=size, color=colour, linewidths=0, label=_end(label))
    axis.set_xticks([])
    axis.set_yticks([])


def _end(name: str) -> str:
    """A long name, shortened; the end of a path tells more than its beginning. Matplotlib shows it as it stands."""
    shown = name if len(name) <= _LABEL_CHARACTERS else "…" + name[1 - _LABEL_CHARACTERS :]
    shown = shown.replace("$", r"\$")  # no formula
    return f" {shown}" if shown.startswith("_") else shown  # which a legend would leave out
