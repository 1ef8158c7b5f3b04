"""`llm2comp bench ray`: encoding on a cluster of this machine beside one process."""

from typing import Annotated

import typer

from llm2comp.cli.bench_options import Json, parse_sizes, report_record
from llm2comp.cli.output import check_target, tell

__all__ = ["ray"]


def ray(
    documents: Annotated[int, typer.Option(min=1, metavar="N", help="Documents of the corpus.")] = 100_000,
    words: Annotated[int, typer.Option(min=1, metavar="N", help="Words in each document.")] = 24,
    model: Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help="Model that encodes.")] = "llm2comp-tiny",
    actors: Annotated[str, typer.Option(metavar="SIZES", help="Numbers of actors, each measured.")] = "1 2",
    threads: Annotated[int, typer.Option(min=1, help="Threads of the one process; the actors share as many.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; in each, every system encodes the corpus once.")] = 3,
    price: Annotated[
        float, typer.Option(min=0, metavar="P", help="Price of a worker for an hour, for the forecast.")
    ] = 0.05,
    json_file: Json = None,
) -> None:
    """Measure encoding on a cluster of Ray, started here, beside one process; and compute a forecast of a large corpus.

    The start of the cluster is counted apart. The forecast, of 100 million documents on 8 and 64 workers, is computed
    from what is measured.
    """
    check_target(json_file)
    from llm2comp_benchmarks.cost.cluster import ClusterBenchmark, run_cluster_benchmark
    from llm2comp_benchmarks.cost.tables import format_cluster

    numbers = tuple(parse_sizes("--actors", actors))
    settings = ClusterBenchmark(documents, words, model, numbers, threads, rounds, price)
    report_record(run_cluster_benchmark(settings, tell=tell), format_cluster, json_file)
