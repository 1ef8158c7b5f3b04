"""`llm2comp report`: the result files of a folder as tables and plots."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llm2comp_benchmarks.report.pages import Results

__all__ = ["register", "report"]


def register(app: typer.Typer) -> None:
    """Adds `report` to the app."""
    app.command("report", short_help="Make tables and plots of result files.")(report)


def report(
    folder: Annotated[
        Path,
        typer.Option(
            "--results",
            metavar="DIR",
            help="Folder of result files; those of ablations are in its folders `ablation` and `ablation-NAME`.",
        ),
    ] = Path("benchmarks/results"),
    write: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Markdown file in which to fill the blocks `<!-- table NAME -->`; may be repeated.",
        ),
    ] = None,
    plots: Annotated[bool, typer.Option("--plots", help="Draw the curves of each ablation, to its folder.")] = False,
) -> None:
    """Make Markdown tables of result files, on the terminal or in the blocks of Markdown files."""
    from llm2comp_benchmarks.report.pages import read_results, write_file

    results = read_results(folder)
    if plots:
        print("\n".join(map(str, results.plot())) or f"{folder}: no ablation to draw", file=sys.stderr)
    for path in write or []:
        print(f"{path}: {'changed' if write_file(path, results) else 'unchanged'}", file=sys.stderr)
    if not write and not plots:
        _print_all(results)


def _print_all(results: "Results") -> None:
    from llm2comp.errors import LLM2CompError

    sampled = any(task.samples for run in results.runs.values() for task in run.tasks.values())
    names = ["systems *", *(["intervals *"] if sampled else []), "runs *"] if results.runs else []
    names += [part for name in results.ablations for part in results.parts(name)]
    if not names:
        raise LLM2CompError(f"{results.folder}: no result file of `llm2comp eval --json FILE` in it")
    names.append("paper averages")
    for name in names:
        print(f"<!-- table {name} -->\n{results.table(name)}\n<!-- end -->\n")
