"""`llm2comp compare`: which differences between runs mean something."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from llm2comp.cli.output import check_target, printable

__all__ = ["compare", "register"]


def register(app: typer.Typer) -> None:
    """Adds `compare` to the app."""
    app.command("compare")(compare)


def compare(
    results: Annotated[
        list[Path], typer.Argument(metavar="A.json B.json [C.json]...", help="Result files of `llm2comp eval --json`.")
    ],
    seed: Annotated[int, typer.Option(min=0, help="Of the random draws.")] = 0,
    resamples: Annotated[int, typer.Option(min=100, help="Random draws for each interval and test.")] = 10_000,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers here.")] = None,
) -> None:
    """Compare runs with the first of them: scores and differences with 95 % intervals, and a paired test for each task."""
    if len(results) < 2:
        raise typer.BadParameter("one result file; give the one to compare with first, then the others")
    check_target(json_file)
    import json

    from llm2comp.atomic import write_output
    from llm2comp_benchmarks.compare.compare import compare as compare_files
    from llm2comp_benchmarks.compare.compare import record_of
    from llm2comp_benchmarks.compare.table import format_comparisons
    from llm2comp_benchmarks.results.read import read_result_file

    files = [read_result_file(path) for path in results]
    found = compare_files(files, seed=seed, resamples=resamples)
    print(format_comparisons(found))
    for refusal in found.refused:
        print(
            f"{printable(refusal.task)}: not compared ({refusal.letters[0]} and {refusal.letters[1]}): "
            f"{printable(refusal.reason)}",
            file=sys.stderr,
        )
    for letter, file in list(found.files.items())[1:]:
        if lone := sorted(set(file.tasks) ^ set(files[0].tasks)):
            print(f"not in both A and {letter}: {printable(', '.join(lone))}", file=sys.stderr)
    if json_file:
        write_output(json_file, [json.dumps(record_of(found), indent=2, ensure_ascii=False), "\n"])
