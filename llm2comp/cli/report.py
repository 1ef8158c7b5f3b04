"""`llm2comp report`: the result files of a folder as tables and pictures."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llm2comp_benchmarks.report import Results

__all__ = ["register", "report"]


def register(app: typer.Typer) -> None:
    """Adds `report` to the app."""
    app.command("report")(report)


def report(
    results: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the result files; those of an ablation in its folder `ablation`.")] = Path(
        "benchmarks/results"
    ),
    write: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Markdown file whose blocks `<!-- table NAME -->` are filled; may be repeated.")
    ] = None,
    plots: Annotated[Path | None, typer.Option(metavar="DIR", help="Draw the curves of the ablation into this folder.")] = None,
) -> None:
    """Make Markdown tables of result files: to the terminal, or into the blocks of files."""
    if plots and not plots.is_dir():
        raise typer.BadParameter(f"{plots}: no such folder; make it first")

    from llm2comp_benchmarks.ablation_plots import plot_ablation
    from llm2comp_benchmarks.report import read_results, write_file

    found = read_results(results)
    if plots:
        drawn = plot_ablation(found.ablation, plots) if found.ablation else []
        print("\n".join(map(str, drawn)) or f"{results}/ablation: nothing to draw", file=sys.stderr)
    for path in write or []:
        print(f"{path}: {'changed' if write_file(path, found) else 'as it was'}", file=sys.stderr)
    if not write and not plots:
        _print_all(found)


def _print_all(found: "Results") -> None:
    from llm2comp.errors import LLM2CompError

    sampled = any(task.samples for run in found.runs.values() for task in run.tasks.values())
    names = ["systems *", *(["intervals *"] if sampled else []), "runs *"] if found.runs else []
    names += [f"ablation {part}" for part in ("pretexts", "order", "samples", "memory", "pooling", "cost")] if found.ablation else []
    if not names:
        raise LLM2CompError(f"{found.folder}: no result file of `llm2comp eval --json FILE` in it")
    names.append("paper averages")
    for name in names:
        print(f"<!-- table {name} -->\n{found.table(name)}\n<!-- end -->\n")
