"""`llm2comp index add`, `delete`, `undo` and `merge`: changes of an index, each one commit."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from llm2comp import keep_freed_memory
from llm2comp.cli.documents import Skips, format_documents, format_ids, note_cut, read_ids
from llm2comp.cli.index_options import (
    AsJson,
    BatchSize,
    Corpora,
    CsvStrings,
    Device,
    Dtype,
    Encoding,
    Engine,
    Folder,
    Header,
    IdField,
    IdsArePositions,
    MaxLength,
    MetadataFields,
    Model,
    ModelDevice,
    NewLanguage,
    OnError,
    Quotes,
    Separator,
    Source,
    TextField,
    TitleField,
    TruncateDim,
    bm25_changes,
    check_layout,
    encoder_options,
    field_names,
)
from llm2comp.cli.index_sync import DryRun, Full, Yes, print_synced
from llm2comp.cli.output import print_json, wrong_usage
from llm2comp.cli.progress import Progress, note
from llm2comp.errors import quote_path

__all__ = ["add", "delete", "merge", "undo"]

_MANY_SEGMENTS = 20


def add(
    folder: Folder,
    corpora: Corpora,
    model: Model = None,
    dtype: Dtype = None,
    max_length: MaxLength = None,
    truncate_dim: TruncateDim = None,
    batch_size: BatchSize = None,
    engine: Engine = None,
    model_device: ModelDevice = None,
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
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete documents that their source has no more: the same as `index sync`.")
    ] = False,
    dry_run: DryRun = False,
    full: Full = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Add new documents and replace changed ones; unchanged documents are not encoded again."""
    fields = field_names(id_field, title_field, text_field, metadata_fields)
    layout = check_layout(separator, encoding)
    running: dict[str, Any] = {"batch_size": batch_size, "engine": engine, "device": model_device}
    encoder = encoder_options(dtype=dtype, max_length=max_length, truncate_dim=truncate_dim, **running)
    if not prune and (dry_run or full or yes):
        raise typer.BadParameter("--dry-run, --full and --yes go with --prune")
    if prune:
        if ids_are_positions or csv_strings:
            raise typer.BadParameter("--ids-are-positions and --csv-strings are for new sources, not for --prune")
        settings: dict[str, Any] = {
            "model": model,
            "device": device,
            "on_error": on_error,
            "header": header,
            "quotes": quotes,
        }
        settings |= {"dry_run": dry_run, "full": full, "yes": yes}
        print_synced(
            folder,
            corpora,
            {**settings, "fields": fields, "source": source, "encoder": encoder, **layout},
            as_json=as_json,
        )
        return
    from llm2comp_indexes import add_documents
    from llm2comp_indexes.format.manifest import read_manifest

    keep_freed_memory()
    skips = Skips()
    with Progress("documents") as progress:
        report = add_documents(
            folder,
            corpora,
            model=model,
            device=device,
            on_error=on_error,
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
    note_cut(report.cut, report.below)
    if as_json:
        print_json(report._asdict())
        return
    manifest = read_manifest(folder)
    changes = f"{report.added:,} added, {report.changed:,} replaced, {report.unchanged:,} unchanged"
    print(f"{changes}, in {report.seconds:.1f} s; {format_documents(manifest.documents)} now")
    if len(manifest.segments) >= _MANY_SEGMENTS:
        note(
            f"{len(manifest.segments)} segments, and every search visits each of them: `llm2comp index merge "
            f"{quote_path(folder)}` merges them into one"
        )


def delete(
    folder: Folder,
    identifiers: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids of documents.")] = None,
    ids: Annotated[Path | None, typer.Option("--ids", metavar="FILE", help="File of ids, one per line.")] = None,
    where: Annotated[
        str | None,
        typer.Option(metavar="FILTER", help="Delete what passes a filter on metadata, as of `search`, instead of ids."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only count.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete documents by id or by a filter; ids that the index does not hold are reported, the others are deleted."""
    if where is None and not identifiers and ids is None:
        raise typer.BadParameter("give ids, --ids FILE with one per line, or --where FILTER")
    if where is not None and (identifiers or ids is not None):
        raise typer.BadParameter("give ids or --where FILTER, not both")
    identifiers = [*(identifiers or []), *(read_ids(ids) if ids else [])]
    from llm2comp_indexes import delete_documents
    from llm2comp_indexes.format.manifest import read_manifest

    report = delete_documents(folder, identifiers, where=where, dry_run=dry_run)
    manifest = read_manifest(folder)
    if report.missing:
        chunks = manifest.options.has_chunks and any("#" in name for name in report.missing)
        hint = " (documents are deleted whole: give the id without #N)" if chunks else ""
        note(f"not in the index: {format_ids(report.missing)}{hint}")
    if as_json:
        print_json(report._asdict())
        return
    if dry_run:
        print(f"{report.deleted:,} of {format_documents(manifest.documents)} would be deleted; nothing was written")
        return
    merge_hint = (
        f"; `llm2comp index merge {quote_path(folder)}` frees the space" if report.deleted and manifest.segments else ""
    )
    print(f"{report.deleted:,} deleted, {format_documents(manifest.documents)} left{merge_hint}")


def undo(folder: Folder, as_json: AsJson = False) -> None:
    """Go back to the commit before the last change; run again, undo takes back the undo.

    One commit is kept, until the next change. A merge keeps none.
    """
    from llm2comp_indexes import undo_index

    report = undo_index(folder)
    if as_json:
        print_json(report._asdict())
    else:
        print(f"back at the commit before: {format_documents(report.documents)}, {report.before:,} until now")


def merge(
    folder: Folder,
    index_type: Annotated[
        str | None,
        typer.Option("--type", "-t", metavar="NAME", help="Type from now on.", show_default="that of the build"),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Maximum memory of a search, such as 500M, 4G or 16GiB.",
            show_default="that of the build",
        ),
    ] = None,
    latency_ms: Annotated[
        float | None,
        typer.Option(
            metavar="MS", help="Maximum median time of a query, in milliseconds.", show_default="that of the build"
        ),
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(
            help="Minimum share of the true nearest results that a search finds.", show_default="that of the build"
        ),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option(
            "--k",
            min=1,
            max=1000,
            help="Results per query that recall and latency are measured for.",
            show_default="that of the build",
        ),
    ] = None,
    hybrid: Annotated[
        bool | None,
        typer.Option("--hybrid/--no-hybrid", help="With or without a BM25 index from now on.", show_default="as built"),
    ] = None,
    language: NewLanguage = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Rewrite the index as one segment without deleted documents; nothing is encoded again."""
    from llm2comp.units import parse_bytes
    from llm2comp_indexes import merge_index
    from llm2comp_indexes.format.manifest import read_manifest

    before = read_manifest(folder)
    options = before.options
    with wrong_usage():
        size = parse_bytes(memory) if memory else None
        targets = _replace_given(options.targets, memory=size, latency_ms=latency_ms, recall=recall, k=k)
        options = replace(_replace_given(options, targets=targets, type=index_type), **bm25_changes(hybrid, language))
    with Progress("documents", total=before.documents) as progress:
        report = merge_index(folder, options=options, device=device, progress=progress.phase)
    if as_json:
        print_json({**report._asdict(), "measured": report.measured and report.measured.to_json()})
    elif report.measured is None:
        state = "one segment, nothing deleted" if report.segments else "it is empty; what is added will be as asked for"
        print(f"{folder}: nothing to merge: {state}")
    else:
        what = f"{report.segments} segments merged into one" if report.segments > 1 else "rewritten"
        print(
            f"{what}, {report.dropped:,} deleted row{'s' * (report.dropped != 1)} dropped, in {report.seconds:.1f} s; "
            f"{format_documents(before.documents)}"
        )
        print(report.measured.reason)


def _replace_given(settings: Any, **changes: Any) -> Any:
    """The dataclass with those fields changed that are not None."""
    return replace(settings, **{name: value for name, value in changes.items() if value is not None})
