"""`llm2comp index export`: an index as files that other tools read."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from llm2comp.cli.index_options import AsJson, Folder
from llm2comp.cli.output import print_json, printable
from llm2comp.cli.progress import Progress
from llm2comp.units import format_bytes

__all__ = ["export"]

_FIELDS_SHOWN = 20


def export(
    folder: Folder,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="TARGET",
            help="File (parquet, jsonl) or folder (npy, lance) to write; it must not exist.",
        ),
    ],
    file_format: Annotated[
        Literal["parquet", "npy", "jsonl", "lance"], typer.Option("--format", help="Format of TARGET.")
    ] = "parquet",
    as_json: AsJson = False,
) -> None:
    """Write ids, texts, metadata and vectors of an index to a file or folder that other tools read.

    What was written is read back and compared with the index before TARGET appears.
    """
    from llm2comp_indexes import export_index

    with Progress("rows exported") as progress:
        report = export_index(folder, output, format=file_format, progress=progress.phase)
    if as_json:
        print_json({"output": str(output), "format": file_format, **report._asdict()})
        return
    print(
        f"{output}: {report.rows:,} row{'s' * (report.rows != 1)}, vectors of dimension {report.dimension}, "
        f"{format_bytes(report.bytes)}, in {report.seconds:.1f} s; read back and compared"
    )
    if report.fields and file_format in ("parquet", "lance"):
        shown = [f"{name} {kind}" if name else "one JSON text" for name, kind in report.fields.items()]
        more = [f"{len(shown) - _FIELDS_SHOWN} more"] * (len(shown) > _FIELDS_SHOWN)
        print(f"metadata: {printable(', '.join(shown[:_FIELDS_SHOWN] + more))}")
