"""Scores of result files as Markdown tables: of one system, of several in the layout of the paper, and of the runs."""

from collections.abc import Sequence

from llm2comp_benchmarks.compare.significance import Interval, interval
from llm2comp_benchmarks.results.kinds import ordered_tasks, task_title
from llm2comp_benchmarks.results.read import ResultFile, TaskScores, hardware_of
from llm2comp_benchmarks.results.tables import markdown_table

__all__ = ["grouped_table", "intervals_table", "runs_table", "sets_table", "systems_table"]

_RESAMPLES = 2000
_ABSENT = "–"


def sets_table(run: ResultFile) -> str:
    """One row per test set: main metric, score, and interval where the file has samples."""
    ends = {name: _interval(scores) for name, scores in run.tasks.items()}
    rows = [["set", "measure", "score", *(["95 % interval"] if any(ends.values()) else [])]]
    for name in ordered_tasks([run.tasks]):
        scores = run.tasks[name]
        cells = [task_title(name), f"`{name}.{scores.main_metric}`", f"{scores.score:.3f}"]
        rows.append([*cells, *([_interval_cell(ends[name])] if any(ends.values()) else [])])
    return markdown_table(rows)


def systems_table(runs: Sequence[ResultFile]) -> str:
    """Systems in rows, tasks in columns grouped by kind, the average last, the best of each column in bold.

    The average is over the tasks that all systems have; its header gives their number where that is not all tasks.
    """
    return grouped_table(
        {run.name: {name: scores.score for name, scores in run.tasks.items()} for run in runs},
        ordered_tasks(run.tasks for run in runs),
    )


def grouped_table(
    scores: dict[str, dict[str, float]], kinds: dict[str, str], *, corner: str = "", digits: int = 3
) -> str:
    """Scores in the layout of the paper: tasks in columns, grouped by kind.

    Args:
        scores: Scores by row and task; a missing one is shown as a dash.
        kinds: Kind by task, in the order of the columns.
        corner: Header of the first column.
        digits: After the decimal point.
    """
    shared = [task for task in kinds if all(task in row for row in scores.values())]
    columns = {task: {name: row[task] for name, row in scores.items() if task in row} for task in kinds}
    if shared:
        columns["average"] = {name: sum(row[task] for task in shared) / len(shared) for name, row in scores.items()}
    average = "average" if len(shared) == len(kinds) else f"average of the {len(shared)} that all have"
    header = [corner, *(_headed(task, kinds) for task in kinds), *([average] if shared else [])]
    return markdown_table(
        [header, *([name, *(_cell(column, name, digits) for column in columns.values())] for name in scores)]
    )


def _headed(task: str, kinds: dict[str, str]) -> str:
    """The header of a task: its kind, in the first column of that kind only, above its name."""
    first = next(name for name, kind in kinds.items() if kind == kinds[task])
    return f"{kinds[task] if task == first else ''}<br>{task}"


def _cell(column: dict[str, float], name: str, digits: int) -> str:
    if name not in column:
        return _ABSENT
    best = len(column) > 1 and round(column[name], digits) == round(max(column.values()), digits)
    return f"**{column[name]:.{digits}f}**" if best else f"{column[name]:.{digits}f}"


def intervals_table(runs: Sequence[ResultFile]) -> str:
    """The 95 % bootstrap intervals of the scores in `systems_table`; "" if no file has samples."""
    if not any(task.samples for run in runs for task in run.tasks.values()):
        return ""
    kinds = ordered_tasks(run.tasks for run in runs)
    rows = [["", *(_headed(task, kinds) for task in kinds)]]
    rows += [
        [run.name, *(_interval_cell(_interval(run.tasks[task])) if task in run.tasks else _ABSENT for task in kinds)]
        for run in runs
    ]
    return markdown_table(rows)


def _interval(scores: TaskScores) -> Interval | None:
    return interval(scores.samples, resamples=_RESAMPLES) if scores.samples else None


def _interval_cell(ends: Interval | None) -> str:
    return f"{ends.low:.3f} to {ends.high:.3f}" if ends else _ABSENT


def runs_table(runs: Sequence[ResultFile]) -> str:
    """Model, hardware, minutes, versions of torch and transformers, and commit of each run."""
    rows = [["", "model", "hardware", "minutes", "torch", "transformers", "commit"]]
    for run in runs:
        versions = run.beside["versions"] or {}
        seconds = sum((run.beside["seconds"] or {}).values())
        model = run.settings.get("model") or run.settings.get("system") or run.settings.get("run") or _ABSENT
        commit = (run.beside["commit"] or _ABSENT)[:10]
        rows.append(
            [
                run.name,
                f"`{model}`",
                hardware_of(run),
                f"{seconds / 60:.1f}",
                versions.get("torch") or _ABSENT,
                versions.get("transformers") or _ABSENT,
                commit,
            ]
        )
    return markdown_table(rows)
