"""The picture of late interaction: `python -m llm2comp_benchmarks.report.late_plot RESULT.json PICTURE.png`."""

import json
import sys
from pathlib import Path
from typing import Any

from llm2comp.optional import check_matplotlib
from llm2comp_benchmarks.report.late import difference_to, ranking_name
from llm2comp_benchmarks.results.kinds import task_title

__all__ = ["plot_late"]

_ABOVE, _BELOW, _NEITHER = "#009E73", "#D55E00", "#0072B2"


def plot_late(record: dict[str, Any], path: Path) -> None:
    """Writes a PNG (900 wide) of the difference of each ranking to that by vectors, with its interval, a panel per set.

    The result is one of a single model. Colours say whether an interval is above 0, below it, or holds it.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    sets = list(dict.fromkeys(row["set"] for row in record["rows"]))
    rows = {name: _ordered([row for row in record["rows"] if row["set"] == name]) for name in sets}
    names = [_label(row) for row in rows[sets[0]][1:]]
    figure = Figure(figsize=(9, 1.3 + 0.42 * len(names)), dpi=100, layout="constrained")
    for axes, name in zip(figure.subplots(1, len(sets), sharey=True, squeeze=False)[0], sets, strict=True):
        base, *others = rows[name]
        for place, row in enumerate(others):
            found = difference_to(record, base, row)
            low, high = found.interval or (found.value, found.value)
            colour = _ABOVE if low > 0 else _BELOW if high < 0 else _NEITHER
            axes.plot([low, high], [place, place], color=colour, linewidth=2)
            axes.plot([found.value], [place], "o", color=colour, markersize=6)
        axes.axvline(0, color="#999999", linewidth=1)
        axes.set_title(f"{task_title(name)}\nvectors: {base['ndcg_at_10']:.3f}", fontsize=11)
        axes.set_yticks(range(len(names)), names, fontsize=10)
        axes.grid(axis="x", color="#eeeeee")
        axes.set_axisbelow(True)
    figure.axes[0].invert_yaxis()
    figure.supxlabel("difference in nDCG@10 to the order by vectors (lines: 95 % intervals)", fontsize=10)
    figure.savefig(path, format="png", pil_kwargs={"optimize": True})


def _ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The order by vectors first, then the most tokens."""
    return [rows[0], *sorted(rows[1:], key=lambda row: -int(row["tokens"]))]


def _label(row: dict[str, Any]) -> str:
    return f"{ranking_name(row)}\n+{row['bytes_per_document']:,} bytes a document"


if __name__ == "__main__":
    plot_late(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
