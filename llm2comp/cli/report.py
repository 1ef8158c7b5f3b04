"""`llm2comp report`: the result files of a folder as tables and pictures."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llm2comp_benchmarks.report.pages import Results

__all__ = ["register", "report"]


def register(app: typer.Typer) -> None:
    """Adds `report` to the app."""
    app.command("report")(report)


def report(
    results: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder of result files, with those of ablations in `ablation` or `ablation-NAME` therein.",
        ),
    ] = Path("benchmarks/results"),
    write: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Markdown file whose blocks `<!-- table NAME -->` are filled; may be repeated."
        ),
    ] = None,
    plots: Annotated[bool, typer.Option("--plots", help="Draw the curves of each ablation, beside its files.")] = False,
) -> None:
    """Make Markdown tables of result files: to the terminal, or into the blocks of files."""
    from llm2comp_benchmarks.report.pages import read_results, write_file

    found = read_results(results)
    if plots:
        print("\n".join(map(str, found.plot())) or f"{results}: no ablation to draw", file=sys.stderr)
    for path in write or []:
        print(f"{path}: {'changed' if write_file(path, found) else 'as it was'}", file=sys.stderr)
    if not write and not plots:
        _print_all(found)


def _print_all(found: "Results") -> None:
    from llm2comp.errors import LLM2CompError

    sampled = any(task.samples for run in found.runs.values() for task in run.tasks.values())
    names = ["systems *", *(["intervals *"] if sampled else []), "runs *"] if found.runs else []
    names += [
        f"{name} {part}"
        for name in found.ablations
        for part in ("pretexts", "order", "samples", "memory", "pooling", "cost")
    ]
    if not names:
        raise LLM2CompError(f"{found.folder}: no result file of `llm2comp eval --json FILE` in it")
    names.append("paper averages")
    for name in names:
        print(f"<!-- table {name} -->\n{found.table(name)}\n<!-- end -->\n")
