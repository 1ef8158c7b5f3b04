"""`llm2comp encode`: vectors of a corpus, or of one shard of it, for `index build --vectors`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llm2comp import keep_freed_memory
from llm2comp.cli.documents import Skips, format_encoded, note_cut
from llm2comp.cli.index_options import (
    AsJson,
    BatchSize,
    ChunkAt,
    ChunkContext,
    ChunkOverlap,
    ChunkTokens,
    Corpora,
    CsvStrings,
    Dtype,
    Encoding,
    Engine,
    Header,
    IdField,
    IdsArePositions,
    MaxLength,
    MetadataFields,
    Model,
    OnError,
    OnlyModelDevice,
    Quotes,
    Separator,
    Source,
    Store,
    TextField,
    TitleField,
    TruncateDim,
    check_layout,
    encoder_options,
    field_names,
)
from llm2comp.cli.index_push import note_others
from llm2comp.cli.output import print_json, wrong_usage
from llm2comp.cli.progress import Progress
from llm2comp.errors import quote_path
from llm2comp.units import format_bytes

if TYPE_CHECKING:
    from llm2comp_indexes import ClusterReport

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command `encode`."""
    app.command(short_help="Encode a corpus, or one shard of it, for an index.")(encode)


def encode(
    corpora: Corpora,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder of the shards; this one is written to DIR/shard-I-of-N."
        ),
    ],
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N",
            help="Encode documents I, I+N, I+2N … of the corpus, I from 1 to N. Every host reads the same corpus.",
        ),
    ] = "1/1",
    model: Model = None,
    dtype: Dtype = None,
    max_length: MaxLength = None,
    truncate_dim: TruncateDim = None,
    batch_size: BatchSize = None,
    engine: Engine = None,
    device: OnlyModelDevice = None,
    store: Store = "float32",
    chunk_tokens: ChunkTokens = None,
    chunk_overlap: ChunkOverlap = 0,
    chunk_at: ChunkAt = "sentences",
    chunk_context: ChunkContext = True,
    on_error: OnError = "raise",
    header: Header = None,
    quotes: Quotes = None,
    id_field: IdField = None,
    title_field: TitleField = None,
    text_field: TextField = None,
    metadata_fields: MetadataFields = None,
    source: Source = None,
    ids_are_positions: IdsArePositions = False,
    csv_strings: CsvStrings = False,
    separator: Separator = None,
    encoding: Encoding = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start the shard again, even if its folder holds another one.")
    ] = False,
    on: Annotated[
        Literal["ray"] | None,
        typer.Option(
            metavar="ray",
            help="Encode on a cluster of Ray (extra `ray`): one that this command starts on this machine and ends, or "
            "that of --ray-address. All its hosts must see CORPUS, -o and the model.",
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(metavar="auto|HOST:PORT|ray://HOST:PORT", help="With --on ray: a cluster that runs already."),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="With --on ray: processes with a model each [default: one for each GPU, or for four CPUs].",
        ),
    ] = None,
    gpus_per_actor: Annotated[
        float | None,
        typer.Option(metavar="N", help="With --on ray: GPUs of each process [default: 1 if the cluster has any]."),
    ] = None,
    output_format: Annotated[
        Literal["shards", "parquet"],
        typer.Option(
            "--format",
            help="With --on ray: a shard for `index build --vectors`, or Parquet files of id, vector and metadata.",
        ),
    ] = "shards",
    to: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="With --on ray: a table that gets the rows too, as `index push` writes it. Actors write what they "
            "encode to postgresql:// and qdrant://; the command itself writes lancedb://, qdrant+file:// and milvus:// "
            "at the end.",
        ),
    ] = None,
    sync: Annotated[
        bool, typer.Option("--sync", help="With --to: delete rows from the table that the corpus does not have.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Encode a corpus, or one shard of it; `index build --vectors DIR` joins the shards.

    Run again after an interruption, it continues where it stopped. Shards can be encoded on several hosts. On a host
    with several GPUs, run one command per GPU, each with its own CUDA_VISIBLE_DEVICES and shard; or let a cluster of
    Ray divide the work (--on ray).
    """
    from llm2comp.corpus.size import estimate_documents
    from llm2comp_indexes import ClusterOptions, IndexOptions, encode_on_ray, encode_shard, parse_part
    from llm2comp_indexes.stores.url import parse_store_url

    fields = field_names(id_field, title_field, text_field, metadata_fields)
    layout = check_layout(separator, encoding)
    _check_cluster_options(on, ray_address, actors, gpus_per_actor, output_format, shard, to, sync=sync)
    with wrong_usage():
        url = parse_store_url(to) if to is not None else None
        part = parse_part(shard)
        cluster = ClusterOptions(ray_address, actors, gpus_per_actor)
        chunks: dict[str, Any] = {"chunk_tokens": chunk_tokens, "chunk_overlap": chunk_overlap}
        options = IndexOptions(store=store, chunk_at=chunk_at, chunk_context=chunk_context, **chunks)
    running: dict[str, Any] = {"batch_size": batch_size, "engine": engine, "device": device}
    encoder = encoder_options(dtype=dtype, max_length=max_length, truncate_dim=truncate_dim, **running)
    keep_freed_memory()
    skips, documents = Skips(), estimate_documents(corpora)
    reading: dict[str, Any] = {
        "on_error": on_error,
        "overwrite": overwrite,
        "on_skip": skips.add,
        "header": header,
        "quotes": quotes,
        "fields": fields,
        "source": source,
        "ids_are_positions": ids_are_positions,
        "csv_strings": csv_strings,
        "encoder": encoder,
        **layout,
    }
    if on == "ray":
        with Progress("documents", about=documents) as progress:
            made = encode_on_ray(
                corpora,
                output,
                cluster=cluster,
                format=output_format,
                model=model,
                options=options,
                progress=progress.phase,
                to=url,
                sync=sync,
                **reading,
            )
        skips.summarize()
        note_cut(made.cut)
        _print_cluster_report(made, output, output_format, as_json=as_json)
        return
    with Progress("documents", about=None if documents is None else documents // part.shards) as progress:
        report = encode_shard(
            corpora,
            output,
            part,
            model=model,
            options=options,
            progress=progress.phase,
            **reading,
        )
    skips.summarize()
    note_cut(report.cut)
    if as_json:
        print_json({**report._asdict(), "folder": str(report.folder)})
        return
    whole = f" of {report.corpus_documents:,}" if part.shards > 1 else ""
    rate = format_encoded(report.encoded, report.rows, report.encode_seconds)
    encoded = f"{report.documents:,}{whole} documents, dimension {report.dimension}, {format_bytes(report.bytes)}"
    print(f"{part}: {encoded}, in {report.seconds:.1f} s{rate}: {report.folder}")
    print(f"Once all shards are encoded: llm2comp index build --vectors {quote_path(output)} -o INDEX", file=sys.stderr)


def _check_cluster_options(
    on: str | None,
    ray_address: str | None,
    actors: int | None,
    gpus_per_actor: float | None,
    output_format: str,
    shard: str,
    to: str | None,
    *,
    sync: bool,
) -> None:
    """Reports options of a cluster without `--on ray`, and a shard with it, as wrong usage (exit code 2)."""
    if on == "ray":
        if shard != "1/1":
            raise typer.BadParameter("--shard has no use with --on ray, which divides the corpus itself; leave it out")
        if sync and to is None:
            raise typer.BadParameter("--sync deletes rows from a table: name it with --to URL, or leave --sync out")
        if to is not None and output_format == "parquet":
            raise typer.BadParameter("--to needs texts, which --format parquet leaves out; take --format shards")
        return
    if to is not None:
        raise typer.BadParameter(
            "--to is for a cluster: give --on ray too, or build an index and push it (llm2comp index push)"
        )
    given = {"--ray-address": ray_address, "--actors": actors, "--gpus-per-actor": gpus_per_actor}
    given["--sync"] = sync or None
    names = [name for name, value in given.items() if value is not None]
    if output_format != "shards":
        names.append("--format parquet")
    if names:
        raise typer.BadParameter(f"{names[0]} is for a cluster: give --on ray too, or leave it out")


def _print_cluster_report(
    report: "ClusterReport", output: Path, output_format: Literal["shards", "parquet"], *, as_json: bool
) -> None:
    from llm2comp.corpus.report import count_rows

    pushed = report.pushed
    if as_json:
        print_json({**report._asdict(), "folder": str(report.folder), "pushed": pushed and pushed._asdict()})
        return
    if not report.actors:
        print(f"{report.documents:,} documents, finished already: {report.folder}")
    else:
        lost = f" ({report.processes} processes, as some ended)" if report.processes > report.actors else ""
        spilled = f", {format_bytes(report.spilled)} spilled by Ray" if report.spilled else ""
        parts = f"start {report.start_seconds:.1f} s, joining {report.join_seconds:.1f} s{spilled}"
        encoded = f"{report.documents:,} documents, dimension {report.dimension}, {format_bytes(report.bytes)}"
        number = f", {report.encoded:,} rows encoded now" if report.encoded < report.rows else ""
        print(
            f"{encoded}, by {report.actors} actor{'s' * (report.actors != 1)}{lost} in {report.seconds:.1f} s ({parts})"
            f"{number}: {report.folder}"
        )
    if pushed:
        print(
            f"{pushed.store}: {count_rows(pushed.rows)}, {pushed.added + pushed.changed:,} of them written and "
            f"{pushed.deleted:,} others deleted at the end, in {pushed.seconds:.1f} s; counted and compared"
        )
        note_others(pushed, "corpus")
    elif output_format == "shards":
        print(f"Build an index: llm2comp index build --vectors {quote_path(output)} -o INDEX", file=sys.stderr)
