"""`llm2comp index sync`, and `index add --prune`: an index follows its sources."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm2comp import keep_freed_memory
from llm2comp.cli.documents import Skips, format_documents, format_ids, note_cut
from llm2comp.cli.index_options import (
    CORPUS,
    AsJson,
    BatchSize,
    Device,
    Dtype,
    Encoding,
    Engine,
    Folder,
    Header,
    IdField,
    MaxLength,
    MetadataFields,
    Model,
    ModelDevice,
    OnError,
    Quotes,
    Separator,
    TextField,
    TitleField,
    TruncateDim,
    check_layout,
    encoder_options,
    field_names,
)
from llm2comp.cli.output import print_json
from llm2comp.cli.progress import Progress, note

if TYPE_CHECKING:
    from llm2comp_indexes import SyncReport

__all__ = ["DryRun", "Full", "Yes", "print_synced", "sync"]

DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Only count; nothing is encoded, written or deleted.")]
Full = Annotated[bool, typer.Option("--full", help="Read all files, also those with the size and time that they had.")]
Yes = Annotated[
    bool,
    typer.Option("--yes", "-y", help="Delete even more than half of a source, and even if rows of it were skipped."),
]


def sync(
    folder: Folder,
    corpora: Annotated[
        list[str] | None,
        typer.Argument(metavar="CORPUS", help=f"{CORPUS}; none: all sources of the index.", show_default=False),
    ] = None,
    dry_run: DryRun = False,
    full: Full = False,
    yes: Yes = False,
    source: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The source of the index that CORPUS is, in a new place."),
    ] = None,
    model: Model = None,
    device: Device = "auto",
    on_error: OnError = "raise",
    header: Header = None,
    quotes: Quotes = None,
    id_field: IdField = None,
    title_field: TitleField = None,
    text_field: TextField = None,
    metadata_fields: MetadataFields = None,
    separator: Separator = None,
    encoding: Encoding = None,
    dtype: Dtype = None,
    max_length: MaxLength = None,
    truncate_dim: TruncateDim = None,
    batch_size: BatchSize = None,
    engine: Engine = None,
    model_device: ModelDevice = None,
    as_json: AsJson = False,
) -> None:
    """Make an index hold what its sources hold now: add, replace, rename and delete documents.

    Only documents of the sources given are compared. What is as it was is not encoded again, and files with the size
    and time that they had are not read.
    """
    fields = field_names(id_field, title_field, text_field, metadata_fields)
    running: dict[str, Any] = {"batch_size": batch_size, "engine": engine, "device": model_device}
    settings = {
        "model": model,
        "device": device,
        "on_error": on_error,
        "header": header,
        "quotes": quotes,
        "fields": fields,
        "source": source,
        "dry_run": dry_run,
        "full": full,
        "yes": yes,
        "encoder": encoder_options(dtype=dtype, max_length=max_length, truncate_dim=truncate_dim, **running),
        **check_layout(separator, encoding),
    }
    print_synced(folder, corpora or [], settings, as_json=as_json)


def print_synced(folder: Path, corpora: list[str], settings: dict[str, Any], *, as_json: bool) -> None:
    """Syncs the index with these arguments of `sync_index`, and prints what was done."""
    from llm2comp_indexes import sync_index
    from llm2comp_indexes.format.manifest import read_manifest

    keep_freed_memory()
    skips = Skips()
    with Progress("documents") as progress:
        report = sync_index(folder, corpora, on_skip=skips.add, progress=progress.phase, **settings)
    skips.summarize()
    note_cut(report.cut, report.below)
    if report.vanished:
        note(f"vanished: {format_ids(report.vanished)}")
    if as_json:
        print_json(report._asdict())
        return
    dry = settings.get("dry_run")
    end = "nothing was written (--dry-run)" if dry else f"{format_documents(read_manifest(folder).documents)} now"
    print(f"{_format_counts(report)}, in {report.seconds:.1f} s; {end}")


def _format_counts(report: "SyncReport") -> str:
    renamed = f"{report.renamed:,} renamed, " if report.renamed else ""
    return (
        f"{report.added:,} new, {report.changed:,} changed, {renamed}{report.unchanged:,} unchanged, "
        f"{len(report.vanished):,} vanished"
    )
