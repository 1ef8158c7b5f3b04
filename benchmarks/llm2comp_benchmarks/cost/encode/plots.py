"""Tokens a second of `llm2comp bench encode`, ours beside the peers, as one picture.

`python -m llm2comp_benchmarks.cost.encode.plots OUTPUT.png "TITLE=FILE.json"…` draws result files, a panel for each.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm2comp.optional import check_matplotlib

__all__ = ["plot_encoding"]

_KINDS = {"short ": "short texts", "": "documents", "long ": "long texts"}
_SYSTEMS = {  # colours of Okabe and Ito, for the colour-blind too
    "llm2comp": "#0072B2",
    "llm2comp-openvino": "#56B4E9",
    "openvino-streams": "#D55E00",
    "openvino": "#E69F00",
    "sentence-transformers": "#999999",
}


def plot_encoding(records: Mapping[str, dict[str, Any]], path: Path, precision: str = "bfloat16") -> None:
    """Draws medians, and bars from least to most, of the systems in one precision, as a PNG.

    Args:
        records: Records of `run_encode_benchmark` by the title of their panel.
        path: The picture.
        precision: Of all systems.

    Raises:
        LLM2CompError: matplotlib is not installed; the message has the command.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(records), 4), dpi=100, layout="constrained")
    panels = figure.subplots(1, len(records), squeeze=False)[0]
    for axes, (title, record) in zip(panels, records.items(), strict=True):
        _draw(axes, record, precision)
        axes.set_title(f"{title}, {precision}, {record['settings']['threads']} threads", fontsize=11)
    panels[0].set_ylabel("tokens per second")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, format="png", pil_kwargs={"optimize": True})


def _draw(axes: Any, record: dict[str, Any], precision: str) -> None:
    kinds = [kind for kind in _KINDS if f"llm2comp {kind}{precision}" in record]
    systems = [name for name in _SYSTEMS if f"{name} {kinds[0]}{precision}" in record]
    width = 0.8 / len(systems)
    for number, name in enumerate(systems):
        rates = [record[f"{name} {kind}{precision}"]["tokens_per_second"] for kind in kinds]
        middles = [rate["median"] for rate in rates]
        spread = [[rate["median"] - rate["least"] for rate in rates], [rate["most"] - rate["median"] for rate in rates]]
        places = [place + (number - (len(systems) - 1) / 2) * width for place in range(len(kinds))]
        axes.bar(places, middles, width, yerr=spread, capsize=2, color=_SYSTEMS[name], label=name, zorder=2)
    axes.set_xticks(range(len(kinds)), [_KINDS[kind] for kind in kinds])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Draws the result files named after the picture."""
    output, *sources = sys.argv[1:]
    titled = (source.partition("=") for source in sources)
    plot_encoding(
        {title: json.loads(Path(file).read_text(encoding="utf-8")) for title, _, file in titled}, Path(output)
    )


if __name__ == "__main__":
    main()
