"""`llm2comp bench serve`: the server under load."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from llm2comp.cli.bench_options import Corpora, Json, Model, Precision, Workdir, parse_sizes, report_record
from llm2comp.cli.output import check_target, tell

__all__ = ["serve"]


def serve(
    model: Model = None,
    corpus: Corpora = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of documents, drawn at random.")] = 256,
    texts: Annotated[
        str,
        typer.Option(
            metavar="KINDS",
            help="Texts made of the documents, separated by spaces: short (at most 32 tokens), document (as they are), "
            "long (the longest input).",
        ),
    ] = "short document",
    clients: Annotated[
        str,
        typer.Option(
            metavar="SIZES", help="Numbers of clients; each sends its next request when it has the last answer."
        ),
    ] = "1 8 32 128",
    sizes: Annotated[str, typer.Option(metavar="SIZES", help="Numbers of texts in a request.")] = "1 16",
    peers: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help='Servers to compare with: sentence-transformers behind FastAPI, on the same weights; "" for none.',
        ),
    ] = "sentence-transformers",
    precision: Precision = "auto",
    threads: Annotated[int, typer.Option(min=1, help="Threads of the model in every process.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; in each, every system has the same load once.")] = 3,
    seconds: Annotated[
        float, typer.Option(help="Seconds in which requests are sent in a round; all answers are waited for.")
    ] = 0.8,
    workdir: Workdir = None,
    json_file: Json = None,
) -> None:
    """Measure the server under load, beside `encode` in full batches, itself without batching, and a plain server.

    Clients, servers and the encoder are processes of their own on this machine, and take turns. FastAPI alone, which
    answers a constant, shows what HTTP costs.
    """
    check_target(json_file)
    from llm2comp_benchmarks.cost.serve.run import ServeBenchmark, run_serve_benchmark
    from llm2comp_benchmarks.cost.serve.tables import format_serving

    with TemporaryDirectory(prefix="llm2comp-bench-") as temporary:
        settings = ServeBenchmark(
            workdir=workdir or Path(temporary),
            model=model,
            corpora=tuple(corpus or ["python-docs:all"]),
            limit=limit,
            kinds=tuple(texts.split()),
            clients=parse_sizes("--clients", clients),
            sizes=parse_sizes("--sizes", sizes),
            peers=tuple(peers.split()),
            precision=precision,
            threads=threads,
            rounds=rounds,
            seconds=seconds,
        )
        record = run_serve_benchmark(settings, tell=tell)
    report_record(record, format_serving, json_file)
