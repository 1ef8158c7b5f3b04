"""`llm2comp bench models`: models of different sizes on the same texts."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from llm2comp.cli.bench_options import Corpora, Json, Threads, report_record
from llm2comp.cli.output import check_target, tell

__all__ = ["models"]


def models(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="Bundled model by name, folder or Hub id; may be repeated, the others stand beside the first.",
            show_default="llm2comp-small, llm2comp-tiny",
        ),
    ] = None,
    corpus: Corpora = None,
    short: Annotated[int, typer.Option(min=1, help="Number of texts of 4 to 16 words.")] = 10_000,
    long: Annotated[int, typer.Option(min=1, help="Number of texts of 350 words.")] = 1_000,
    threads: Threads = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; in each, every model encodes all texts once.")] = 3,
    json_file: Json = None,
) -> None:
    """Measure models on the same texts: speed, latency of a query, load time and memory of each beside the first.

    Beside them runs an encoder of the shape of all-MiniLM-L6-v2 with random weights, by sentence-transformers.
    """
    check_target(json_file)
    from llm2comp_benchmarks.cost.choice.run import ChoiceBenchmark, run_choice_benchmark
    from llm2comp_benchmarks.cost.choice.tables import format_choice

    with TemporaryDirectory(prefix="llm2comp-models-") as folder:
        settings = ChoiceBenchmark(
            Path(folder),
            tuple(model or ("llm2comp-small", "llm2comp-tiny")),
            tuple(corpus or ("python-docs:all",)),
            short=short,
            long=long,
            threads=threads,
            rounds=rounds,
        )
        report_record(run_choice_benchmark(settings, tell=tell), format_choice, json_file)
