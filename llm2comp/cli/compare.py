"""`llm2comp compare`: differences between runs, and whether they are significant."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from llm2comp.cli.output import check_target, printable

__all__ = ["compare", "register"]


def register(app: typer.Typer) -> None:
    """Adds `compare` to the app."""
    app.command("compare", short_help="Compare runs: differences, intervals, significance tests.")(compare)


def compare(
    results: Annotated[
        list[Path], typer.Argument(metavar="A.json B.json [C.json]...", help="Result files of `llm2comp eval --json`.")
    ],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random draws.")] = 0,
    resamples: Annotated[int, typer.Option(min=100, help="Random draws for each interval and test.")] = 10_000,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all numbers to this file.")
    ] = None,
) -> None:
    """Compare runs with the first one: scores and differences with 95 % intervals, and a paired test for each task."""
    if len(results) < 2:
        raise typer.BadParameter("only one result file; give the one to compare with first, then the others")
    check_target(json_file)
    import json

    from llm2comp.atomic import write_output
    from llm2comp_benchmarks.compare.compare import compare as compare_files
    from llm2comp_benchmarks.compare.compare import record_of
    from llm2comp_benchmarks.compare.table import format_comparisons
    from llm2comp_benchmarks.results.read import read_result_file

    files = [read_result_file(path) for path in results]
    comparison = compare_files(files, seed=seed, resamples=resamples)
    print(format_comparisons(comparison))
    for refusal in comparison.refused:
        print(
            f"{printable(refusal.task)}: not compared ({refusal.letters[0]} and {refusal.letters[1]}): "
            f"{printable(refusal.reason)}",
            file=sys.stderr,
        )
    for letter, file in list(comparison.files.items())[1:]:
        if lone := sorted(set(file.tasks) ^ set(files[0].tasks)):
            print(f"not in both A and {letter}: {printable(', '.join(lone))}", file=sys.stderr)
    if json_file:
        write_output(json_file, [json.dumps(record_of(comparison), indent=2, ensure_ascii=False), "\n"])
