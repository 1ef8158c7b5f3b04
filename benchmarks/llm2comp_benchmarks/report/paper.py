"""The figures of the paper, beside ours."""

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from llm2comp_benchmarks.ablation.summary import Ablation, mean_over_seeds
from llm2comp_benchmarks.report.scores import grouped_table
from llm2comp_benchmarks.results.kinds import plain_kind
from llm2comp_benchmarks.results.read import ResultFile
from llm2comp_benchmarks.results.tables import markdown_table

__all__ = ["paper_averages", "paper_averages_table", "paper_tasks_table", "read_paper"]

_PRETEXT_OF = {
    "LLM2Comp KL": "distillation",
    "LLM2Comp NLL": "continuation",
    "LLM2Comp RC": "reconstruction",
    "LLM2Vec (MNTP)": "mntp",
}
_BASELINE_OF = {
    "last token": "last-token",
    "weighted mean": "weighted-mean",
    "echo": "echo",
    "PromptEOL": "prompteol",
    "MetaEOL": "metaeol",
}
_STAGE_OF = {("pretext",): "pretext", ("pretext", "UCL"): "unsupervised", ("pretext", "UCL", "SCL"): "supervised"}
_ABSENT = "–"


def read_paper() -> dict[str, Any]:
    """The paper's figures in percent: `systems`, each with stages, samples, average, and scores by task if known."""
    paper: dict[str, Any] = json.loads(
        (files("llm2comp_benchmarks.report") / "paper_figures.json").read_text(encoding="utf-8")
    )
    return paper


def paper_averages() -> dict[tuple[str, str], float]:
    """The averages of the paper in percent, by pretext and stage of an ablation, where both are the same."""
    return {place: entry["average"] for entry in read_paper()["systems"] if (place := _place(entry)) is not None}


def _place(entry: dict[str, Any]) -> tuple[str, str] | None:
    """Pretext and stage of an ablation that a system of the paper is; None if it is in none."""
    if not entry["stages"] and entry["system"] in _BASELINE_OF:
        return _BASELINE_OF[entry["system"]], "untrained"
    pretext, stage = _PRETEXT_OF.get(entry["system"]), _STAGE_OF.get(tuple(entry["stages"]))
    return (pretext, stage) if pretext and stage else None


def paper_averages_table(ablation: Ablation | None) -> str:
    """The averages of the paper in percent, beside ours of the same pretext and stages on our own tasks."""
    paper = read_paper()
    ours = [] if ablation is None else [f"ours: average of {', '.join(ablation.kinds)}"]
    rows = [["system", "stages", "samples", f"paper: {paper['backbone']}, average of 14 tasks", *ours]]
    for entry in paper["systems"]:
        cells = [
            entry["system"],
            " + ".join(entry["stages"]) or "no training",
            f"{entry['samples']:,}",
            f"{entry['average']:.2f}",
        ]
        rows.append([*cells, *([_ours(entry, ablation)] if ablation else [])])
    return markdown_table(rows)


def _ours(entry: dict[str, Any], ablation: Ablation) -> str:
    place = _place(entry)
    runs = ablation.finished(place[1], pretext=place[0]) if place else []
    return mean_over_seeds([100 * run.average(ablation.kinds) for run in runs]).formatted(1) if runs else _ABSENT


def paper_tasks_table(runs: Sequence[ResultFile]) -> str:
    """The scores of the paper by task in percent, above those of our runs on the same tasks, where there are any."""
    paper = read_paper()
    suite = json.loads((files("llm2comp_benchmarks") / "suites" / f"{paper['suite']}.json").read_text(encoding="utf-8"))
    kinds = {task["mteb"]: plain_kind(task["kind"]) for task in suite["tasks"]}
    scores = {
        f"{entry['system']}, {' + '.join(entry['stages'])} (paper)": entry["tasks"]
        for entry in paper["systems"]
        if entry["tasks"]
    }
    for run in runs:
        if ours := {name: 100 * task.score for name, task in run.tasks.items() if name in kinds}:
            scores[run.name] = ours
    return grouped_table(scores, kinds, digits=2)
