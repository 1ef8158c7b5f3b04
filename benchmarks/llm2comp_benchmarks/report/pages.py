"""Tables from the result files of a folder, and the Markdown pages that hold them.

The first line of a block, `<!-- table NAME -->`, names its table:

- `set FILE`: the tasks of one run, `FILE.json`, one row per task.
- `systems PATTERN…`, `intervals PATTERN…`, `runs PATTERN…`: the runs whose file names match, in the order of the
  patterns.
- `bench FILE`: what `llm2comp bench encode`, `train`, `growth`, `serve`, `models`, `ray` or `push`, or the
  runs of `llm2comp_benchmarks.fidelity`, `.answers`, `.late`, `.evaluate.hybrid_weights` and `.evaluate.whitening`,
  printed, from `FILE.json`, whose name begins with that word.
- `paper tasks`, `paper averages`: the figures of the paper, beside ours.
- `ablation pretexts|order|claims|samples|memory|pooling|seconds|progress|paper|cost|pictures`: the ablation in the
  folder `ablation`; `ablation-NAME …`: in a folder of that name.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from llm2comp.atomic import write_output
from llm2comp.errors import LLM2CompError
from llm2comp_benchmarks.ablation.budget import progress_words, seconds_table
from llm2comp_benchmarks.ablation.claims import claims_table, order_words
from llm2comp_benchmarks.ablation.plots import PLOTS, plot_ablation
from llm2comp_benchmarks.ablation.summary import Ablation, read_ablation_runs
from llm2comp_benchmarks.ablation.tables import cost_words, memory_table, pooling_table, pretexts_table, samples_table
from llm2comp_benchmarks.answers.tables import format_answers
from llm2comp_benchmarks.cost.choice.tables import format_choice
from llm2comp_benchmarks.cost.push.tables import format_pushes
from llm2comp_benchmarks.cost.serve.tables import format_serving
from llm2comp_benchmarks.cost.tables import format_cluster, format_encoding, format_growth, format_training
from llm2comp_benchmarks.evaluate.hybrid_weights import format_weights
from llm2comp_benchmarks.evaluate.whitening import format_whitening
from llm2comp_benchmarks.fidelity.tables import format_fidelity
from llm2comp_benchmarks.report.late import late_table
from llm2comp_benchmarks.report.paper import paper_averages, paper_averages_table, paper_tasks_table
from llm2comp_benchmarks.report.scores import intervals_table, runs_table, sets_table, systems_table
from llm2comp_benchmarks.results.read import ResultFile, read_result_files
from llm2comp_benchmarks.results.tables import fill_blocks

__all__ = ["Results", "fill_text", "read_results", "write_file"]

_ABLATION = "ablation"
_NOT_YET = "*No result file yet.*"
_NOTHING = "*Not in the result files.*"
_NO_SAMPLES = "*No result file has samples yet.*"
_OF_RUNS: dict[str, Callable[[list[ResultFile]], str]] = {
    "systems": systems_table,
    "intervals": intervals_table,
    "runs": runs_table,
}
_OF_BENCH: dict[str, Callable[[dict[str, Any]], str]] = {
    "encode": format_encoding,
    "train": format_training,
    "growth": format_growth,
    "serve": format_serving,
    "models": format_choice,
    "ray": format_cluster,
    "push": format_pushes,
    "fidelity": format_fidelity,
    "answers": format_answers,
    "late": late_table,
    "hybrid": format_weights,
    "whitening": format_whitening,
}
_MARKDOWN = ("late", "hybrid", "whitening")
"""Benches whose table is Markdown already; others are text in columns."""
_OF_ABLATION: dict[str, Callable[[Ablation], str]] = {
    "pretexts": pretexts_table,
    "order": order_words,
    "claims": lambda ablation: claims_table(ablation, paper_averages()),
    "samples": samples_table,
    "memory": memory_table,
    "pooling": pooling_table,
    "seconds": seconds_table,
    "progress": progress_words,
    "paper": paper_averages_table,
    "cost": cost_words,
}


@dataclass(frozen=True)
class Results:
    """A folder of results: runs by file name, and ablations by the name of their folder."""

    folder: Path
    runs: dict[str, ResultFile]
    ablations: dict[str, Ablation]

    def table(self, name: str, beside: Path | None = None) -> str:
        """The table with the name in the first line of a block.

        Args:
            name: As the docstring of this module lists them.
            beside: Folder of the page, from which pictures are linked; None: the current folder.

        Raises:
            LLM2CompError: There is no such table, or no result file for it.
        """
        what, *patterns = name.split()
        if what == "set" and len(patterns) == 1:
            return sets_table(self._chosen(patterns)[0])
        if what in _OF_RUNS and patterns:
            return _OF_RUNS[what](self._chosen(patterns)) or _NO_SAMPLES
        if patterns == ["pictures"] and _names_ablation(what):
            return self._pictures(what, beside or Path())
        if _names_ablation(what) and len(patterns) == 1 and patterns[0] in _OF_ABLATION:
            return self.part(what, patterns[0]) or (_NOTHING if what in self.ablations else _NOT_YET)
        if what == "bench" and len(patterns) == 1:
            return self._bench(patterns[0])
        if what == "paper" and patterns in (["tasks"], ["averages"]):
            return (
                paper_averages_table(self.ablations.get(_ABLATION))
                if patterns == ["averages"]
                else paper_tasks_table(list(self.runs.values()))
            )
        of_ablation = [f"ablation {part}" for part in (*_OF_ABLATION, "pictures")]
        known = [
            "set FILE",
            *(f"{kind} PATTERN" for kind in _OF_RUNS),
            "bench FILE",
            "paper tasks",
            "paper averages",
            *of_ablation,
        ]
        raise LLM2CompError(f"no table is called {name!r}; there are: {', '.join(known)}")

    def part(self, ablation: str, name: str) -> str:
        """A table of an ablation; "" where its result files, if there are any, have nothing for it."""
        return _OF_ABLATION[name](self.ablations[ablation]) if ablation in self.ablations else ""

    def parts(self, ablation: str) -> list[str]:
        """Names of the tables of an ablation that its result files have something for."""
        return [f"{ablation} {name}" for name in _OF_ABLATION if self.part(ablation, name)]

    def _bench(self, name: str) -> str:
        file = self.folder / f"{name}.json"
        kind = next((begin for begin in _OF_BENCH if name.startswith(begin)), None)
        if kind is None or not file.is_file():
            raise LLM2CompError(f"{file}: no such result file of `llm2comp bench {'`, `'.join(_OF_BENCH)}`")
        table = _OF_BENCH[kind](json.loads(file.read_text(encoding="utf-8")))
        return table if kind in _MARKDOWN else f"```\n{table}\n```"

    def _chosen(self, patterns: list[str]) -> list[ResultFile]:
        chosen: dict[str, ResultFile] = {}
        for pattern in patterns:
            matches = {name: run for name, run in self.runs.items() if fnmatchcase(name, pattern)}
            if not matches:
                raise LLM2CompError(
                    f"no result file in {self.folder} is called {pattern}.json; there are: "
                    f"{', '.join(self.runs) or 'none'}"
                )
            chosen |= {name: run for name, run in matches.items() if name not in chosen}
        return list(chosen.values())

    def _pictures(self, ablation: str, beside: Path) -> str:
        texts = {
            "samples": "Score against supervised samples",
            "memory": "Score against memory tokens",
            "claims": "The paper's claims with intervals",
        }
        there = {name: path for name, file in PLOTS.items() if (path := self.folder / ablation / file).is_file()}
        links = [f"![{texts[name]}]({Path(os.path.relpath(path, beside)).as_posix()})" for name, path in there.items()]
        return "\n\n".join(links) or "*No picture yet.*"

    def plot(self) -> list[Path]:
        """Draws the plots of each ablation beside its result files; returns the files written."""
        return [
            path for name, ablation in self.ablations.items() for path in plot_ablation(ablation, self.folder / name)
        ]


def _names_ablation(word: str) -> bool:
    return word == _ABLATION or word.startswith(f"{_ABLATION}-")


def read_results(folder: Path) -> Results:
    """The runs of `llm2comp eval` in a folder, and the ablations in its folders `ablation` and `ablation-NAME`.

    Raises:
        LLM2CompError: There is no such folder, or a file in it is damaged.
    """
    if not folder.is_dir():
        raise LLM2CompError(f"{folder}: no such folder; name the one with the result files by --results")
    ablations = {
        path.name: read_ablation_runs(path)
        for path in sorted(folder.iterdir())
        if path.is_dir() and _names_ablation(path.name)
    }
    return Results(
        folder,
        {run.name: run for run in read_result_files(folder)},
        {name: ablation for name, ablation in ablations.items() if ablation},
    )


def fill_text(text: str, results: Results, beside: Path) -> str:
    """The text with every block filled; `beside` is the folder of its page."""
    return fill_blocks(text, lambda name: results.table(name, beside))


def write_file(path: Path, results: Results) -> bool:
    """Fills the blocks of a page; returns whether that changed it.

    Raises:
        LLM2CompError: The page cannot be read or has no block, or a table cannot be made; the page is left as it is.
    """
    try:
        before = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LLM2CompError(f"{path}: cannot be read ({error})") from error
    if "<!-- table " not in before:
        raise LLM2CompError(
            f"{path}: no block to fill; put `<!-- table NAME -->` and `<!-- end -->` where a table should stand"
        )
    try:
        after = fill_text(before, results, path.parent)
    except LLM2CompError as error:
        raise LLM2CompError(f"{path}: {error}") from error
    if after != before:
        write_output(path, [after])
    return after != before
