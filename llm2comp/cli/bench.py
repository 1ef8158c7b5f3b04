"""`llm2comp bench`: time, memory and quality side by side with named peers."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from llm2comp.cli.output import printable

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command group `bench`."""
    group = typer.Typer(no_args_is_help=True, help="Measure time, memory and quality side by side with named peers.", rich_markup_mode=None)
    group.callback()(_only_groups)
    group.command()(index)
    app.add_typer(group, name="bench")


def _only_groups() -> None:
    """Measure time, memory and quality side by side with named peers."""


def index(
    corpus: Annotated[str | None, typer.Option(help="Corpus to encode for its vectors, as `index build` takes it; left out: synthetic vectors.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Model that encodes the corpus; left out: the bundled model.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Synthetic vectors.")] = 100_000,
    dimension: Annotated[int, typer.Option(min=1, help="Of the synthetic vectors.")] = 256,
    types: Annotated[str, typer.Option(metavar="NAMES", help='Built by us and by plain FAISS, with spaces between; "" for none.')] = "flat hnsw ivf",
    autofaiss: Annotated[Path | None, typer.Option(metavar="PYTHON", help="Python of an environment with autofaiss, compared with our auto.")] = None,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Wish given to auto and to autofaiss.")] = "4G",
    latency_ms: Annotated[float, typer.Option(metavar="MS", help="Wish given to auto and to autofaiss.")] = 10.0,
    recall: Annotated[float, typer.Option(help="Wish our indexes are tuned to; autofaiss takes none.")] = 0.95,
    k: Annotated[int, typer.Option("--k", min=1, max=1000, help="Answers a query.")] = 10,
    queries: Annotated[int, typer.Option(min=1, help="Queries, which are not in the index.")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="Times each query is asked; its least time counts.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="Of FAISS and BLAS, in every process.")] = 1,
    workdir: Annotated[Path | None, typer.Option(metavar="DIR", help="For vectors, which are kept for the next run, and indexes. Left out: temporary.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers here, with settings, versions and hardware.")] = None,
) -> None:
    """Build and search indexes beside plain FAISS, and beside autofaiss, on the same vectors."""
    if json_file and not json_file.absolute().parent.is_dir():
        raise typer.BadParameter(f"{json_file}: there is no folder {json_file.parent}; make it first")
    import json

    from llm2comp_benchmarks.index_benchmark import IndexBenchmark, run_benchmark
    from llm2comp_benchmarks.index_ratios import format_record
    from llm2comp_benchmarks.results import write_atomically
    from llm2comp_indexes.options import parse_bytes

    with TemporaryDirectory(prefix="llm2comp-bench-") as temporary:
        settings = IndexBenchmark(
            workdir=workdir or Path(temporary),
            corpus=corpus,
            model=model,
            rows=rows,
            dimension=dimension,
            types=tuple(types.split()),
            memory=parse_bytes(memory),
            latency_ms=latency_ms,
            recall=recall,
            k=k,
            queries=queries,
            rounds=rounds,
            threads=threads,
            peer_python=autofaiss,
        )
        record = run_benchmark(settings, tell=lambda line: print(printable(line), file=sys.stderr, flush=True))
    print(format_record(record))
    if json_file:
        write_atomically(json_file, [json.dumps(record, indent=2, ensure_ascii=False), "\n"])
