"""`llm2comp bench`: time and memory, and quality of indexes, side by side with other libraries."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer

from llm2comp.cli.bench_ablation import ablation
from llm2comp.cli.bench_models import models
from llm2comp.cli.bench_options import Corpora, Json, Model, Precision, Threads, Workdir, parse_sizes, report_record
from llm2comp.cli.bench_push import push
from llm2comp.cli.bench_ray import ray
from llm2comp.cli.bench_serve import serve
from llm2comp.cli.output import check_target, tell

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command group `bench`."""
    group = typer.Typer(
        no_args_is_help=True,
        help="Measure time and memory beside other libraries.",
        rich_markup_mode=None,
    )
    group.callback()(_only_groups)
    summaries: dict[Callable[..., None], str] = {
        encode: "Encoding beside sentence-transformers, OpenVINO and others.",
        models: "Models of different sizes on the same texts.",
        train: "Training steps of stage 1 beside a plain implementation.",
        index: "Building and searching indexes beside FAISS and autofaiss.",
        growth: "How time and memory grow with tokens, texts, vocabulary.",
        startup: "Cold starts of commands beside importing torch.",
        push: "Indexes pushed to stores beside their own loaders.",
        ray: "Encoding on a cluster of Ray beside one process.",
        serve: "The server under load, beside the encoder alone.",
        ablation: "Which pretext of stage 1 makes the better encoder.",
    }
    for command, summary in summaries.items():
        group.command(short_help=summary)(command)
    app.add_typer(group, name="bench")


def _only_groups() -> None:
    """Measure time and memory beside other libraries."""


def encode(
    model: Model = None,
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="SHAPE",
            help="Random weights of this shape instead of a model: tiny, 15m, 85m, 0.6b, 1.5b, 7b or "
            "HIDDENxLAYERSxINTERMEDIATE.",
        ),
    ] = None,
    corpus: Corpora = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of documents, drawn at random.")] = 5000,
    texts: Annotated[
        str,
        typer.Option(
            metavar="KINDS",
            help="Texts made of the documents, separated by spaces: short (at most 32 tokens; timed one at a time as "
            "queries too), document (as they are), long (the longest input).",
        ),
    ] = "document",
    peers: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Libraries to compare with, separated by spaces: sentence-transformers, transformers, and with the "
            "extra peers openvino, openvino-streams (a batch per thread), onnxruntime, onnxruntime-streams, llama.cpp; "
            '"" for none.',
        ),
    ] = "sentence-transformers transformers",
    peer_llm2vec: Annotated[
        Path | None,
        typer.Option(
            metavar="PYTHON",
            help="Python of an environment with llm2vec 0.2.3, compared on a random Llama of 15M parameters.",
        ),
    ] = None,
    node_modules: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder in which `npm install node-llama-cpp` put what llama.cpp needs."),
    ] = Path("node_modules"),
    precision: Precision = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Batch size of llm2comp; the others use their default.", show_default="its default"),
    ] = None,
    device: Annotated[
        str,
        typer.Option(metavar="NAME", help="Device of all systems: cpu, cuda, cuda:1 …; memory is that of the device."),
    ] = "cpu",
    threads: Threads = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; in each, every system encodes all texts once.")] = 3,
    workdir: Workdir = None,
    json_file: Json = None,
) -> None:
    """Measure encoding beside other libraries and engines, and beside the matmul rate of this machine.

    Same texts and same weights for all; sentence-transformers loads our plain export with its own modules.
    """
    check_target(json_file)
    from llm2comp_benchmarks.cost.encode.run import EncodeBenchmark, run_encode_benchmark
    from llm2comp_benchmarks.cost.tables import format_encoding

    with TemporaryDirectory(prefix="llm2comp-bench-") as temporary:
        settings = EncodeBenchmark(
            workdir=workdir or Path(temporary),
            model=model,
            shape=shape,
            corpora=tuple(corpus or ["python-docs:all"]),
            limit=limit,
            kinds=tuple(texts.split()),
            peers=tuple(peers.split()),
            peer_llm2vec=peer_llm2vec,
            node_modules=node_modules,
            precision=precision,
            batch_size=batch_size,
            device=device,
            threads=threads,
            rounds=rounds,
        )
        record = run_encode_benchmark(settings, tell=tell)
    report_record(record, format_encoding, json_file)


def train(
    shape: Annotated[
        str,
        typer.Option(
            metavar="SHAPE",
            help="Shape of a random Llama: tiny, 15m, 85m, 0.6b, 1.5b, 7b or HIDDENxLAYERSxINTERMEDIATE.",
        ),
    ] = "15m",
    vocabulary: Annotated[int, typer.Option(min=4, help="Size of its vocabulary.")] = 32_000,
    texts: Annotated[int, typer.Option(min=1, help="Texts in a batch.")] = 4,
    tokens: Annotated[int, typer.Option(min=20, help="Tokens of a text: context and continuation together.")] = 300,
    precision: Precision = "auto",
    vocabularies: Annotated[
        str,
        typer.Option(metavar="SIZES", help='Vocabulary sizes to measure as well, such as "32000 64000 128000 256000".'),
    ] = "",
    device: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="cpu, or a GPU such as cuda: then without the plain implementation, and memory is that of the GPU.",
        ),
    ] = "cpu",
    checkpointing: Annotated[bool, typer.Option(help="Recompute activations in the backward pass.")] = False,
    threads: Threads = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; in each, every system takes one step.")] = 5,
    json_file: Json = None,
) -> None:
    """Measure steps of stage 1 beside a plain implementation of the method, on the same tokens.

    The plain implementation holds two models, pads its batches and computes the logits of all positions.
    """
    check_target(json_file)
    sizes = parse_sizes("--vocabularies", vocabularies)
    from llm2comp_benchmarks.cost.tables import format_training
    from llm2comp_benchmarks.cost.train.run import TrainBenchmark, run_train_benchmark

    settings = TrainBenchmark(
        shape=shape,
        vocabulary=vocabulary,
        texts=texts,
        tokens=tokens,
        precision=precision,
        vocabularies=sizes,
        device=device,
        checkpointing=checkpointing,
        threads=threads,
        rounds=rounds,
    )
    report_record(run_train_benchmark(settings, tell=tell), format_training, json_file)


def index(
    corpus: Annotated[
        str | None,
        typer.Option(
            metavar="CORPUS",
            help="Corpus to encode, as `index build` reads it.",
            show_default="synthetic vectors",
        ),
    ] = None,
    model: Model = None,
    rows: Annotated[int, typer.Option(min=1, help="Number of synthetic vectors.")] = 100_000,
    dimension: Annotated[int, typer.Option(min=1, help="Dimension of the synthetic vectors.")] = 256,
    types: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help='Index types that llm2comp and plain FAISS build, separated by spaces; "" for none.',
        ),
    ] = "flat hnsw ivf",
    autofaiss: Annotated[
        Path | None,
        typer.Option(metavar="PYTHON", help="Python of an environment with autofaiss, compared with our type auto."),
    ] = None,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Memory target of auto and of autofaiss.")] = "4G",
    latency_ms: Annotated[float, typer.Option(metavar="MS", help="Latency target of auto and of autofaiss.")] = 10.0,
    recall: Annotated[float, typer.Option(help="Recall target of our indexes; autofaiss has none.")] = 0.95,
    k: Annotated[int, typer.Option("--k", min=1, max=1000, help="Results of a query.")] = 10,
    queries: Annotated[int, typer.Option(min=1, help="Number of queries; none of them is in the index.")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="Times that each query is run; the shortest time counts.")] = 3,
    reading: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Also read and cut N documents as JSON lines, CSV, parquet and Markdown, beside Arrow and the "
            "splitter alone.",
        ),
    ] = 0,
    forecast: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Instead: forecast and build indexes of three corpora made of N docstrings, and compare the two.",
        ),
    ] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of FAISS and BLAS in every process.")] = 1,
    workdir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for indexes and for vectors, which are kept for the next run.",
            show_default="a temporary one",
        ),
    ] = None,
    json_file: Json = None,
) -> None:
    """Measure building and searching indexes beside plain FAISS and autofaiss, on the same vectors."""
    check_target(json_file)
    if forecast:
        from llm2comp_benchmarks.cost.index.forecasts import (
            ForecastBenchmark,
            format_forecasts,
            run_forecast_benchmark,
        )

        made = run_forecast_benchmark(ForecastBenchmark(documents=forecast, model=model), tell=tell)
        report_record(made, format_forecasts, json_file)
        return
    from llm2comp.units import parse_bytes
    from llm2comp_benchmarks.cost.index.ratios import format_record
    from llm2comp_benchmarks.cost.index.run import IndexBenchmark, run_benchmark

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
            reading=reading,
        )
        record = run_benchmark(settings, tell=tell)
    report_record(record, format_record, json_file)


def growth(
    shape: Annotated[
        str,
        typer.Option(
            metavar="SHAPE", help="Random weights of this shape: tiny, 15m, 85m or HIDDENxLAYERSxINTERMEDIATE."
        ),
    ] = "tiny",
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="Name or folder of a model for encoding; training steps use random weights in any case.",
            show_default="random weights",
        ),
    ] = None,
    counts: Annotated[
        str,
        typer.Option(
            metavar="SIZES", help='Numbers of texts of 64 tokens, for time against tokens; "" skips the curve.'
        ),
    ] = "64 128 256 512 1024 2048",
    memory_tokens: Annotated[
        str, typer.Option(metavar="SIZES", help="Numbers of memory tokens after texts of 32 tokens.")
    ] = "1 2 4 8 16 32",
    lengths: Annotated[
        str, typer.Option(metavar="SIZES", help="Lengths of a text in tokens, for time against length.")
    ] = "16 32 64 128 256 512 1024",
    texts: Annotated[int, typer.Option(min=1, help="Texts for the curves over memory tokens and length.")] = 128,
    corpora: Annotated[
        str, typer.Option(metavar="SIZES", help="Numbers of texts of 16 tokens in a stream, for peak memory.")
    ] = "4096 8192 16384 32768 65536",
    vocabularies: Annotated[
        str, typer.Option(metavar="SIZES", help="Vocabulary sizes for a step of stage 1.")
    ] = "16000 32000 64000 128000 256000",
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        typer.Option(help="auto: bfloat16 if the processor supports it natively, else float32."),
    ] = "auto",
    threads: Threads = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; in each, every size is measured once.")] = 5,
    workdir: Workdir = None,
    json_file: Json = None,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the curves to this file.")] = None,
) -> None:
    """Measure how costs grow, each beside the law it should follow.

    Encode time against tokens, memory tokens and length; peak memory against the number of texts in a stream; time of
    a step of stage 1 against the vocabulary.
    """
    check_target(json_file)
    check_target(png)
    from llm2comp.optional import check_matplotlib
    from llm2comp_benchmarks.cost.growth.plots import plot_growth
    from llm2comp_benchmarks.cost.growth.run import GrowthBenchmark, run_growth_benchmark
    from llm2comp_benchmarks.cost.tables import format_growth

    if png:
        check_matplotlib()
    with TemporaryDirectory(prefix="llm2comp-bench-") as temporary:
        settings = GrowthBenchmark(
            workdir=workdir or Path(temporary),
            shape=shape,
            model=model,
            counts=parse_sizes("--counts", counts),
            memory_tokens=parse_sizes("--memory-tokens", memory_tokens),
            lengths=parse_sizes("--lengths", lengths),
            texts=texts,
            corpora=parse_sizes("--corpora", corpora),
            vocabularies=parse_sizes("--vocabularies", vocabularies),
            precision=precision,
            threads=threads,
            rounds=rounds,
        )
        record = run_growth_benchmark(settings, tell=tell)
    report_record(record, format_growth, json_file)
    if png:
        plot_growth(record, png)


def startup(
    threads: Threads = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; in each, every process starts once.")] = 5,
    json_file: Json = None,
) -> None:
    """Measure cold starts: importing llm2comp, loading the bundled model, searching, beside importing torch alone.

    Each is a new process, timed to its end, exit included. A first round, which fills the caches of the system, is not
    counted.
    """
    check_target(json_file)
    from llm2comp_benchmarks.cost.startup import StartupBenchmark, run_startup_benchmark
    from llm2comp_benchmarks.cost.tables import format_startup

    record = run_startup_benchmark(StartupBenchmark(threads=threads, rounds=rounds), tell=tell)
    report_record(record, format_startup, json_file)
