"""`llm2comp index`: build an index of corpora, describe it, verify it."""

import sys
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

import typer

from llm2comp.cli.output import Progress, format_bytes, print_json, printable

__all__ = ["register"]

_SHOWN_SKIPS = 10

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `index build` wrote.")]


def register(app: typer.Typer) -> None:
    """Adds the command group `index`."""
    group = typer.Typer(no_args_is_help=True, help="Build an index, describe it, verify it.", rich_markup_mode=None)
    for command in (build, info, verify):
        group.command()(command)
    app.add_typer(group, name="index")


def build(
    corpora: Annotated[
        list[str],
        typer.Argument(metavar="CORPUS", help="BEIR folder, .jsonl, .parquet, .csv, .tsv (or .gz .xz .zst), folder of texts, hub:NAME, python-docs:"),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write the index to.")],
    model: Annotated[str | None, typer.Option("--model", "-m", help="Model folder or Hub name; left out: the bundled model.")] = None,
    on_error: Annotated[Literal["raise", "skip"], typer.Option(help="Stop at a malformed row, or skip and count it.")] = "raise",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the index that DIR holds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Encode documents and write an exact index of them."""
    from llm2comp_indexes import build_index

    skips = _Skips()
    with Progress("documents") as progress:
        report = build_index(corpora, output, model=model, on_error=on_error, overwrite=overwrite, on_skip=skips.add, on_block=progress.update)
    skips.summarize()
    if as_json:
        print_json({"output": str(output), **asdict(report)})
        return
    rate = report.documents / report.encode_seconds
    print(
        f"{report.documents:,} documents, dimension {report.dimension}, {format_bytes(report.bytes)}, in {report.seconds:.1f} s ({rate:,.0f} encoded a second)"
    )
    print(f'Search it: llm2comp search {quote(str(output))} "your question"')


def info(folder: Folder) -> None:
    """Say what an index holds, and which model made it."""
    from llm2comp_indexes.manifest import read_manifest

    manifest = read_manifest(folder)
    rows = {
        "documents": f"{manifest.documents:,} in {len(manifest.segments)} segment{'s' * (len(manifest.segments) > 1)}",
        "dimension": str(manifest.dimension),
        "type": "Flat (exact), inner product",
        "size": format_bytes(manifest.bytes),
        "model": manifest.model or "bundled with llm2comp, or given as an object",
        "fingerprint": manifest.fingerprint,
        "created by": ", ".join(f"{name} {version}" for name, version in manifest.created_by.items()),
    }
    for name, value in rows.items():
        print(f"{name:<12} {printable(value)}")


def verify(folder: Folder) -> None:
    """Compare every byte of an index with its checksums."""
    from llm2comp_indexes import verify_index

    manifest = verify_index(folder)
    print(f"{folder}: whole: {manifest.documents:,} documents, {format_bytes(manifest.bytes)}, every checksum matches")


class _Skips:
    """Prints the first messages of skipped rows and counts all."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, message: str) -> None:
        self._count += 1
        if self._count <= _SHOWN_SKIPS:
            print(f"skipped: {printable(message)}", file=sys.stderr)

    def summarize(self) -> None:
        if self._count:
            unshown = f" (the first {_SHOWN_SKIPS} are named above)" if self._count > _SHOWN_SKIPS else ""
            print(f"skipped {self._count:,} row{'s' * (self._count > 1)} in all{unshown}", file=sys.stderr)
