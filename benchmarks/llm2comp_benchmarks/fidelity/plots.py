"""The picture of a result of fidelity: `python -m llm2comp_benchmarks.fidelity.plots RESULT.json PICTURE.png`."""

import json
import sys
from pathlib import Path
from typing import Any

from llm2comp.optional import check_matplotlib

__all__ = ["plot_fidelity"]

_COLOURS = {"reconstruction": "#0072B2", "continuation": "#D55E00"}
_SEEN = (-0.6, 1.0)


def plot_fidelity(record: dict[str, Any], path: Path) -> None:
    """Writes a PNG (900 wide) of the share of each text as a point, a line for each model and measure.

    Points beyond -0.6 and 1 stand at these ends.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    rows = record["rows"]
    figure = Figure(figsize=(9, 1.2 + 0.75 * len(rows)), dpi=100, layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        shares = [min(max(share, _SEEN[0]), _SEEN[1]) for share in row["shares"] if share is not None]
        heights = [place + 0.28 * ((37 * number) % 101 / 50 - 1) for number in range(len(shares))]
        axes.plot(shares, heights, "o", markersize=3, alpha=0.5, color=_COLOURS[row["measure"]])
        if share := row["share"]:
            axes.plot([share["value"]] * 2, [place - 0.4, place + 0.4], color="black", linewidth=2)
    axes.axvline(0, color="#999999", linewidth=1)
    axes.axvline(1, color="#999999", linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{row['model']}\n{row['measure']}" for row in rows], fontsize=10)
    axes.invert_yaxis()
    axes.set_xlim(_SEEN[0] - 0.05, _SEEN[1] + 0.05)
    axes.set_xlabel("share of a text's worth that its memory keeps (0: nothing, 1: all; bars: all texts)", fontsize=10)
    figure.savefig(path, format="png", pil_kwargs={"optimize": True})


if __name__ == "__main__":
    plot_fidelity(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
