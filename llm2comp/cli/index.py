"""`llm2comp index`: the group of commands, and those that build, describe and verify an index."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm2comp import keep_freed_memory
from llm2comp.cli.documents import Skips, format_documents, format_encoded, note_cut
from llm2comp.cli.index_audit import audit
from llm2comp.cli.index_change import add, delete, merge, undo
from llm2comp.cli.index_export import export
from llm2comp.cli.index_facts import format_facts, list_facts
from llm2comp.cli.index_options import (
    CORPUS,
    AsJson,
    BatchSize,
    ChunkAt,
    ChunkByFidelity,
    ChunkContext,
    ChunkOverlap,
    ChunkReader,
    ChunkTokens,
    CsvStrings,
    Device,
    Dtype,
    Encoding,
    Engine,
    Folder,
    Header,
    Hybrid,
    IdField,
    IdsArePositions,
    Language,
    Latency,
    Limit,
    MaxLength,
    Memory,
    MemoryVectors,
    MetadataFields,
    Model,
    ModelDevice,
    OnError,
    Quotes,
    Recall,
    Results,
    Separator,
    Source,
    Store,
    TextField,
    TitleField,
    TruncateDim,
    Type,
    check_layout,
    encoder_options,
    field_names,
    index_options,
)
from llm2comp.cli.index_plan import plan, print_forecast
from llm2comp.cli.index_push import push
from llm2comp.cli.index_rebuild import rebuild
from llm2comp.cli.index_sync import sync
from llm2comp.cli.index_tune import tune
from llm2comp.cli.output import print_json, printable
from llm2comp.cli.progress import Progress
from llm2comp.cli.recall_plot import draw_recall
from llm2comp.errors import quote_path
from llm2comp.units import format_bytes

if TYPE_CHECKING:
    from llm2comp_indexes import BuildReport

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command group `index`."""
    group = typer.Typer(
        no_args_is_help=True, help="Build, change, describe and verify an index.", rich_markup_mode=None
    )
    summaries: dict[Callable[..., None], str] = {
        plan: "Show what a build will take, before it encodes.",
        build: "Encode documents and index them.",
        add: "Add new documents, replace changed ones.",
        sync: "Follow the sources: add, replace, rename, delete.",
        delete: "Delete documents by id or by a filter.",
        rebuild: "Encode all documents again, with other settings.",
        undo: "Go back to the commit before.",
        merge: "Rewrite the index as one segment.",
        info: "Show what an index holds and how well it searches.",
        tune: "Set the effort of searches by your own questions.",
        audit: "Show how much of its texts a language model can read from their memories.",
        export: "Write ids, texts, metadata and vectors for other tools.",
        push: "Write them to a table of a database.",
        verify: "Check every file against its checksum.",
    }
    for command, summary in summaries.items():
        group.command(short_help=summary)(command)
    app.add_typer(group, name="index")


def build(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write the index to.")],
    corpora: Annotated[
        list[str] | None,
        typer.Argument(metavar="CORPUS", help=f"{CORPUS}; optional with --vectors.", show_default=False),
    ] = None,
    model: Model = None,
    vectors: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE.npy|DIR",
            help="Vectors made elsewhere (.npy, with --ids), or folder of the shards of `encode`; may be repeated.",
        ),
    ] = None,
    ids: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Ids for the rows of --vectors FILE.npy: text, one per line, or .npy."),
    ] = None,
    query_vectors: Annotated[
        Path | None, typer.Option(metavar="FILE.npy", help="With --vectors: queries for measuring recall and latency.")
    ] = None,
    dtype: Dtype = None,
    max_length: MaxLength = None,
    truncate_dim: TruncateDim = None,
    batch_size: BatchSize = None,
    engine: Engine = None,
    model_device: ModelDevice = None,
    index_type: Type = "auto",
    memory: Memory = None,
    latency_ms: Latency = None,
    recall: Recall = 0.95,
    k: Results = 10,
    store: Store = "float32",
    chunk_tokens: ChunkTokens = None,
    chunk_by_fidelity: ChunkByFidelity = None,
    reader: ChunkReader = None,
    chunk_overlap: ChunkOverlap = 0,
    chunk_at: ChunkAt = "sentences",
    chunk_context: ChunkContext = True,
    hybrid: Hybrid = False,
    language: Language = None,
    memory_vectors: MemoryVectors = None,
    device: Device = "auto",
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
    limit: Limit = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the index in DIR.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what the build will take, as `index plan` does, and write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Encode documents and write an index of them.

    Run again after an interruption, the build continues where it stopped. With --vectors nothing is encoded; the
    vectors are scaled to unit length.
    """
    if not corpora and not vectors:
        raise typer.BadParameter("give at least one CORPUS, or --vectors")
    if not vectors and (ids or query_vectors):
        raise typer.BadParameter("--ids and --query-vectors go with --vectors")
    if vectors and (limit or dry_run):
        raise typer.BadParameter("--limit and --dry-run do not go with --vectors, with which nothing is encoded")
    chunks: dict[str, Any] = {"chunk_tokens": chunk_tokens, "chunk_overlap": chunk_overlap}
    chunks |= {"chunk_at": chunk_at, "chunk_context": chunk_context, "memory_vectors": memory_vectors}
    chunks |= {"chunk_fidelity": chunk_by_fidelity, "chunk_reader": reader}
    words: dict[str, Any] = {"hybrid": hybrid, "language": language}
    options = index_options(memory, latency_ms, recall, k, type=index_type, store=store, **words, **chunks)
    running: dict[str, Any] = {"batch_size": batch_size, "engine": engine, "device": model_device}
    settings = {
        "model": model,
        "encoder": encoder_options(dtype=dtype, max_length=max_length, truncate_dim=truncate_dim, **running),
        "options": options,
        "device": device,
        "on_error": on_error,
        "header": header,
        "quotes": quotes,
        "fields": field_names(id_field, title_field, text_field, metadata_fields),
        "overwrite": overwrite,
        "source": source,
        "ids_are_positions": ids_are_positions,
        "csv_strings": csv_strings,
        **check_layout(separator, encoding),
    }
    if dry_run:
        from llm2comp_indexes.format.commits import check_output

        check_output(output.resolve(), overwrite=overwrite)
        del settings["overwrite"]
        print_forecast(corpora or [], settings | {"limit": limit}, output=output, as_json=as_json)
        return
    skips, shards = Skips(), any(Path(path).is_dir() for path in vectors or [])
    report = _build(corpora or [], vectors or [], ids, query_vectors, output, shards, limit, skips, settings)
    skips.summarize()
    note_cut(report.cut, report.below)
    if as_json:
        from dataclasses import asdict

        print_json({"output": str(output), **asdict(report), "measured": report.measured.to_json()})
    else:
        _print_built(report, output, known_model=shards or not vectors)


def _build(
    corpora: list[str],
    vectors: list[str],
    ids: Path | None,
    query_vectors: Path | None,
    output: Path,
    shards: bool,
    limit: int | None,
    skips: Skips,
    settings: dict[str, Any],
) -> "BuildReport":
    """Builds the index of corpora, of vectors with or without their documents, or of shards."""
    from llm2comp.corpus.size import estimate_documents
    from llm2comp_indexes import VectorFiles, build_from_vectors, build_index

    about = estimate_documents(corpora) if corpora and not shards else None
    about = min(about, limit) if about is not None and limit else about
    with Progress("documents", about=about) as progress:
        settings |= {"on_skip": skips.add, "progress": progress.phase}
        if shards:  # --vectors DIR1 DIR2 …: the second folder is parsed as a corpus
            return build_from_vectors(VectorFiles([*vectors, *corpora], ids, query_vectors), output, **settings)
        if vectors:
            return build_from_vectors(VectorFiles(vectors, ids, query_vectors), output, corpora=corpora, **settings)
        keep_freed_memory()
        return build_index(corpora, output, limit=limit, **settings)


def _print_built(report: "BuildReport", output: Path, *, known_model: bool) -> None:
    rate = format_encoded(report.encoded, report.measured.rows, report.encode_seconds)
    print(
        f"{format_documents(report.documents)}, dimension {report.dimension}, {format_bytes(report.bytes)}, in "
        f"{report.seconds:.1f} s{rate}"
    )
    print(report.measured.reason)
    print(f'Search it: llm2comp search {quote_path(output)} "your question"{"" if known_model else " --model MODEL"}')


def info(
    folder: Folder,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="PNG",
            help="Draw recall against latency, as measured by the build, to this file; of an index that compares all "
            "vectors, with the types it could have, which are tried now.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what an index holds, which model made it, and how well it searches."""
    from llm2comp_indexes.format.manifest import read_manifest
    from llm2comp_indexes.format.segment import segment_folder
    from llm2comp_indexes.tuning.report import read_report

    manifest = read_manifest(folder)
    largest = max(manifest.segments, key=lambda segment: segment.rows, default=None)
    file = largest.report_file if largest else None
    report = read_report(segment_folder(folder, largest) / file) if largest and file else None
    if plot is not None:
        draw_recall(folder, manifest, largest, report, plot)
    if as_json:
        print_json({**list_facts(manifest), "measured": report and report.to_json()})
        return
    for name, text in format_facts(manifest, report).items():
        print(f"{name:<12} {printable(text)}")


def verify(folder: Folder) -> None:
    """Check every file of an index against its checksum."""
    from llm2comp_indexes import verify_index

    manifest = verify_index(folder)
    print(
        f"{folder}: whole: {format_documents(manifest.documents)}, {format_bytes(manifest.bytes)}, every checksum "
        "matches"
    )
