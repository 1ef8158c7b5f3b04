"""`llm2comp bench`: time, memory and quality side by side with named peers."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import typer

from llm2comp.cli.output import check_target, tell

__all__ = ["register"]

_Json = Annotated[
    Path | None, typer.Option("--json", help="Write all numbers here, with settings, versions and hardware.")
]
_Precision = Annotated[
    Literal["auto", "float32", "bfloat16"],
    typer.Option(help="Of ours; auto: float32, and bfloat16 too where the processor multiplies it natively."),
]
_Threads = Annotated[int, typer.Option(min=1, help="In every process.")]
_Workdir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="For models and texts, which are removed at the end. Left out: temporary."),
]


def register(app: typer.Typer) -> None:
    """Adds the command group `bench`."""
    group = typer.Typer(
        no_args_is_help=True,
        help="Measure time, memory and quality side by side with named peers.",
        rich_markup_mode=None,
    )
    group.callback()(_only_groups)
    group.command()(encode)
    group.command()(train)
    group.command()(index)
    group.command()(growth)
    app.add_typer(group, name="bench")


def _only_groups() -> None:
    """Measure time, memory and quality side by side with named peers."""


def encode(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Name or folder of a model; left out: the bundled model.")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            help="Random weights of this shape in place of a model: tiny, 15m, 85m, 0.6b, 1.5b, 7b or HIDDENxLAYERSxINTERMEDIATE."
        ),
    ] = None,
    corpus: Annotated[
        list[str] | None,
        typer.Option(help="Corpus that texts are drawn from, as `index build` takes it; may be repeated."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Texts, drawn at random.")] = 5000,
    peers: Annotated[
        str, typer.Option(metavar="NAMES", help='With spaces between; "" for none.')
    ] = "sentence-transformers transformers",
    peer_llm2vec: Annotated[
        Path | None,
        typer.Option(
            metavar="PYTHON",
            help="Python of an environment with llm2vec 0.2.3, compared on a random Llama of 15M parameters.",
        ),
    ] = None,
    precision: _Precision = "auto",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Of ours; left out: our default. Peers have their own default.")
    ] = None,
    device: Annotated[str, typer.Option(help="Of all systems: cpu, cuda, cuda:1 …; memory is then the GPU's.")] = "cpu",
    threads: _Threads = 1,
    rounds: Annotated[int, typer.Option(min=1, help="In which every system encodes all texts once, in turn.")] = 3,
    workdir: _Workdir = None,
    json_file: _Json = None,
) -> None:
    """Encode texts beside sentence-transformers, bare transformers and llm2vec, and beside this machine's own matmul rate.

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
            peers=tuple(peers.split()),
            peer_llm2vec=peer_llm2vec,
            precision=precision,
            batch_size=batch_size,
            device=device,
            threads=threads,
            rounds=rounds,
        )
        record = run_encode_benchmark(settings, tell=tell)
    _report(record, format_encoding, json_file)


def train(
    shape: Annotated[
        str, typer.Option(help="Of a random Llama: tiny, 15m, 85m, 0.6b, 1.5b, 7b or HIDDENxLAYERSxINTERMEDIATE.")
    ] = "15m",
    vocabulary: Annotated[int, typer.Option(min=4, help="Its tokens.")] = 32_000,
    texts: Annotated[int, typer.Option(min=1, help="In a batch.")] = 4,
    tokens: Annotated[int, typer.Option(min=20, help="Of a text: context and continuation.")] = 300,
    precision: _Precision = "auto",
    vocabularies: Annotated[
        str, typer.Option(metavar="SIZES", help='Memory and time for each, such as "32000 64000 128000 256000".')
    ] = "",
    device: Annotated[
        str, typer.Option(help="cpu, or a GPU's name: then without the plain implementation, and memory is the GPU's.")
    ] = "cpu",
    checkpointing: Annotated[bool, typer.Option(help="Recompute activations in the backward pass.")] = False,
    threads: _Threads = 1,
    rounds: Annotated[int, typer.Option(min=1, help="In which every system takes one step, in turn.")] = 5,
    json_file: _Json = None,
) -> None:
    """Take steps of stage 1 beside a plain implementation of the method (two models, padded, all logits), at the same shapes on the same tokens."""
    check_target(json_file)
    sizes = _sizes("--vocabularies", vocabularies)
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
    _report(run_train_benchmark(settings, tell=tell), format_training, json_file)


def index(
    corpus: Annotated[
        str | None,
        typer.Option(help="Corpus to encode for its vectors, as `index build` takes it; left out: synthetic vectors."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model that encodes the corpus; left out: the bundled model.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Synthetic vectors.")] = 100_000,
    dimension: Annotated[int, typer.Option(min=1, help="Of the synthetic vectors.")] = 256,
    types: Annotated[
        str, typer.Option(metavar="NAMES", help='Built by us and by plain FAISS, with spaces between; "" for none.')
    ] = "flat hnsw ivf",
    autofaiss: Annotated[
        Path | None,
        typer.Option(metavar="PYTHON", help="Python of an environment with autofaiss, compared with our auto."),
    ] = None,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Wish given to auto and to autofaiss.")] = "4G",
    latency_ms: Annotated[float, typer.Option(metavar="MS", help="Wish given to auto and to autofaiss.")] = 10.0,
    recall: Annotated[float, typer.Option(help="Wish our indexes are tuned to; autofaiss takes none.")] = 0.95,
    k: Annotated[int, typer.Option("--k", min=1, max=1000, help="Answers a query.")] = 10,
    queries: Annotated[int, typer.Option(min=1, help="Queries, which are not in the index.")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="Times each query is asked; its least time counts.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="Of FAISS and BLAS, in every process.")] = 1,
    workdir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="For vectors, which are kept for the next run, and indexes. Left out: temporary."
        ),
    ] = None,
    json_file: _Json = None,
) -> None:
    """Build and search indexes beside plain FAISS, and beside autofaiss, on the same vectors."""
    check_target(json_file)
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
        )
        record = run_benchmark(settings, tell=tell)
    _report(record, format_record, json_file)


def growth(
    shape: Annotated[
        str, typer.Option(help="Random weights of this shape: tiny, 15m, 85m or HIDDENxLAYERSxINTERMEDIATE.")
    ] = "tiny",
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Name or folder of a model to encode with; training steps keep to the shape."
        ),
    ] = None,
    counts: Annotated[
        str, typer.Option(metavar="SIZES", help='Texts of 64 tokens, for time against tokens; "" leaves a curve out.')
    ] = "64 128 256 512 1024 2048",
    memory_tokens: Annotated[
        str, typer.Option(metavar="SIZES", help="k, behind texts of 32 tokens, for time against k.")
    ] = "1 2 4 8 16 32",
    lengths: Annotated[
        str, typer.Option(metavar="SIZES", help="Tokens of each text, for time against length.")
    ] = "16 32 64 128 256 512 1024",
    texts: Annotated[int, typer.Option(min=1, help="For the curves of k and of length.")] = 128,
    corpora: Annotated[
        str, typer.Option(metavar="SIZES", help="Texts of 16 tokens in a stream, for memory.")
    ] = "4096 8192 16384 32768 65536",
    vocabularies: Annotated[
        str, typer.Option(metavar="SIZES", help="For a step of stage 1.")
    ] = "16000 32000 64000 128000 256000",
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        typer.Option(help="auto: bfloat16 where the processor multiplies it natively, else float32."),
    ] = "auto",
    threads: _Threads = 1,
    rounds: Annotated[int, typer.Option(min=1, help="In which every size is measured once, in turn.")] = 5,
    workdir: _Workdir = None,
    json_file: _Json = None,
    png: Annotated[Path | None, typer.Option(help="Draw the curves here.")] = None,
) -> None:
    """Measure how costs grow, each beside the law expected of it.

    Encode time against tokens, memory tokens and length; peak memory against the size of a stream; a step of stage 1
    against the vocabulary.
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
            counts=_sizes("--counts", counts),
            memory_tokens=_sizes("--memory-tokens", memory_tokens),
            lengths=_sizes("--lengths", lengths),
            texts=texts,
            corpora=_sizes("--corpora", corpora),
            vocabularies=_sizes("--vocabularies", vocabularies),
            precision=precision,
            threads=threads,
            rounds=rounds,
        )
        record = run_growth_benchmark(settings, tell=tell)
    _report(record, format_growth, json_file)
    if png:
        plot_growth(record, png)


def _sizes(option: str, given: str) -> tuple[int, ...]:
    """Whole numbers with spaces between."""
    if not all(size.isascii() and size.isdigit() for size in given.split()):
        raise typer.BadParameter(f"{option} {given!r}: give whole numbers with spaces between")
    return tuple(map(int, given.split()))


def _report(record: dict[str, Any], show: Callable[[dict[str, Any]], str], json_file: Path | None) -> None:
    import json

    from llm2comp.atomic import write_output

    print(show(record))
    if json_file:
        write_output(json_file, [json.dumps(record, indent=2, ensure_ascii=False), "\n"])
