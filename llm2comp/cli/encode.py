"""`llm2comp encode`: vectors of a corpus, or of one shard of it, for `index build --vectors`."""

import sys
from pathlib import Path
from typing import Annotated, Any

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
from llm2comp.cli.output import print_json, wrong_usage
from llm2comp.cli.progress import Progress
from llm2comp.errors import quote_path
from llm2comp.units import format_bytes

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
    as_json: AsJson = False,
) -> None:
    """Encode a corpus, or one shard of it; `index build --vectors DIR` joins the shards.

    Run again after an interruption, it continues where it stopped. Shards can be encoded on several hosts. On a host
    with several GPUs, run one command per GPU, each with its own CUDA_VISIBLE_DEVICES and shard.
    """
    from llm2comp.corpus.size import estimate_documents
    from llm2comp_indexes import IndexOptions, encode_shard, parse_part

    fields = field_names(id_field, title_field, text_field, metadata_fields)
    layout = check_layout(separator, encoding)
    with wrong_usage():
        part = parse_part(shard)
        chunks: dict[str, Any] = {"chunk_tokens": chunk_tokens, "chunk_overlap": chunk_overlap}
        options = IndexOptions(store=store, chunk_at=chunk_at, chunk_context=chunk_context, **chunks)
    running: dict[str, Any] = {"batch_size": batch_size, "engine": engine, "device": device}
    encoder = encoder_options(dtype=dtype, max_length=max_length, truncate_dim=truncate_dim, **running)
    keep_freed_memory()
    skips, documents = Skips(), estimate_documents(corpora)
    with Progress("documents", about=None if documents is None else documents // part.shards) as progress:
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
            header=header,
            quotes=quotes,
            fields=fields,
            source=source,
            ids_are_positions=ids_are_positions,
            csv_strings=csv_strings,
            encoder=encoder,
            **layout,
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
