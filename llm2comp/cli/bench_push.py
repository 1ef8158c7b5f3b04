"""`llm2comp bench push`: indexes pushed to stores."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from llm2comp.cli.bench_options import Json, Workdir, parse_sizes, report_record
from llm2comp.cli.output import check_target, tell, wrong_usage

__all__ = ["push"]


def push(
    to: Annotated[
        list[str],
        typer.Option(
            "--to",
            metavar="URL",
            help="Store, as for `index push`; may be repeated. Its tables llm2comp_bench and llm2comp_bench_loader are "
            "dropped.",
        ),
    ],
    rows: Annotated[int, typer.Option(min=1, help="Number of made-up rows.")] = 100_000,
    dimensions: Annotated[str, typer.Option(metavar="SIZES", help="Lengths of vectors.")] = "256 576",
    queries: Annotated[int, typer.Option(min=1, help="Number of questions.")] = 200,
    k: Annotated[int, typer.Option("-k", min=1, help="Answers to a question.")] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; in each, both ways of loading take their turn.")] = 3,
    workdir: Workdir = None,
    json_file: Json = None,
) -> None:
    """Measure `index push` beside each store's own bulk loader, and searches there beside the index.

    Vectors are made up. Both ways of loading write the same rows without an index of the store; reading the index from
    disk is part of ours. Qdrant's local mode gets at most 20,000 rows.
    """
    check_target(json_file)
    from llm2comp_benchmarks.cost.push.run import PushBenchmark, run_push_benchmark
    from llm2comp_benchmarks.cost.push.tables import format_pushes

    with TemporaryDirectory(prefix="llm2comp-bench-") as temporary:
        with wrong_usage():
            settings = PushBenchmark(
                workdir=workdir or Path(temporary),
                stores=tuple(to),
                rows=rows,
                dimensions=parse_sizes("--dimensions", dimensions),
                queries=queries,
                k=k,
                rounds=rounds,
            )
        record = run_push_benchmark(settings, tell=tell)
    report_record(record, format_pushes, json_file)
