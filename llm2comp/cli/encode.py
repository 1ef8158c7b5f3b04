"""`llm2comp encode`: vectors of a corpus, or of one part of it, for an index that is built of them later."""

import sys
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

import typer

from llm2comp import keep_freed_memory
from llm2comp.cli.index import Corpora, Model, OnError, Skips, format_encoded
from llm2comp.cli.output import print_json, wrong_usage
from llm2comp.cli.progress import Progress
from llm2comp.units import format_bytes

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command `encode`."""
    app.command()(encode)


def encode(
    corpora: Corpora,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="Folder for shards; this one goes to DIR/shard-I-of-N."),
    ],
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N",
            help="Encode documents I, I+N, I+2N … of the corpus only; I is 1 to N. Every host reads the same corpus.",
        ),
    ] = "1/1",
    model: Model = None,
    store: Annotated[
        Literal["float32", "float16", "int8"], typer.Option(help="Precision of the stored vectors.")
    ] = "float32",
    chunk_tokens: Annotated[
        int | None, typer.Option(min=1, help="Split documents into chunks of at most so many tokens.")
    ] = None,
    chunk_overlap: Annotated[int, typer.Option(min=0, help="Tokens that neighbouring chunks share.")] = 0,
    on_error: OnError = "raise",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make the shard anew, whatever its folder holds of another one.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Encode a corpus, or one shard of it on each of several hosts or GPUs; `index build --vectors DIR` joins the shards.

    A run that was cut off goes on where it was when it is run again. On a host of several GPUs, run one command for
    each, with another CUDA_VISIBLE_DEVICES and another shard.
    """
    from llm2comp.corpus.size import estimate_documents
    from llm2comp_indexes import IndexOptions, encode_shard, parse_part

    with wrong_usage():
        part = parse_part(shard)
        options = IndexOptions(store=store, chunk_tokens=chunk_tokens, chunk_overlap=chunk_overlap)
    keep_freed_memory()
    skips, known = Skips(), estimate_documents(corpora)
    with Progress("documents", about=None if known is None else known // part.shards) as progress:
        report = encode_shard(
            corpora,
            output,
            part,
            model=model,
            options=options,
            on_error=on_error,
            overwrite=overwrite,
            on_skip=skips.add,
            progress=progress.phase,
        )
    skips.summarize()
    if as_json:
        print_json({**report._asdict(), "folder": str(report.folder)})
        return
    whole = f" of {report.corpus_documents:,}" if part.shards > 1 else ""
    rate = format_encoded(report.encoded, report.rows, report.encode_seconds)
    made = f"{report.documents:,}{whole} documents, dimension {report.dimension}, {format_bytes(report.bytes)}"
    print(f"{part}: {made}, in {report.seconds:.1f} s{rate}: {report.folder}")
    print(f"Once all shards are there: llm2comp index build --vectors {quote(str(output))} -o INDEX", file=sys.stderr)
