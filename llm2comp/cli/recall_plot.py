"""The picture of `llm2comp index info --plot`: recall against latency."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from llm2comp.cli.progress import Progress
from llm2comp.errors import IndexFolderError, quote_path

if TYPE_CHECKING:
    from llm2comp_indexes.format.manifest import Manifest
    from llm2comp_indexes.format.segment import Segment
    from llm2comp_indexes.tuning.report import Report
    from llm2comp_indexes.tuning.trials import Candidate

__all__ = ["draw_recall"]


def draw_recall(
    folder: Path, manifest: "Manifest", segment: "Segment | None", report: "Report | None", png: Path
) -> None:
    """Writes the picture of a segment's measurements; of an index without a structure, with the types it could have.

    Raises:
        IndexFolderError: Nothing was measured.
    """
    from llm2comp_indexes.tuning.plot import plot_curve

    if report is None or segment is None:
        raise IndexFolderError(
            f"{folder}: nothing was measured that could be drawn; `llm2comp index merge {quote_path(folder)}` "
            "measures, if the index holds documents"
        )
    plot_curve(report, png)  # fails where nothing can be drawn or written, before the trials
    if report.type == "Flat" and (alternatives := _try_alternatives(folder, manifest, segment, report)):
        plot_curve(report, png, alternatives)
    print(f"recall against latency: {png}", file=sys.stderr)


def _try_alternatives(
    folder: Path, manifest: "Manifest", segment: "Segment", report: "Report"
) -> "tuple[Candidate, ...]":
    from llm2comp_indexes.search.segment import OpenSegment
    from llm2comp_indexes.tuning.choose import try_alternatives

    with OpenSegment(folder, manifest, segment, searchable=False) as opened, Progress("other types") as progress:
        queries = opened.read_queries()
        if queries is None or not len(queries):
            return ()
        return try_alternatives(
            opened.storage, report.targets, queries, on_trial=lambda name: progress.phase(f"trying {name}", 0)
        )
