"""`llm2comp index export`: an index as files that other tools read."""

from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from llm2comp.cli.index_options import AsJson, Folder
from llm2comp.cli.output import print_json, printable
from llm2comp.cli.progress import Progress
from llm2comp.errors import SettingsError
from llm2comp.units import format_bytes

__all__ = ["export"]

_FIELDS_SHOWN = 20

FileFormat = Literal["parquet", "npy", "jsonl", "lance"]


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
        FileFormat | None,
        typer.Option("--format", help="Format of TARGET.", show_default="by the ending of its name, or parquet"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write ids, texts, metadata and vectors of an index to a file or folder that other tools read.

    What was written is read back and compared with the index before TARGET appears.
    """
    from llm2comp_indexes import export_index

    file_format = file_format or _format_by_name(output)
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


def _format_by_name(target: Path) -> FileFormat:
    """Format that the ending of a name stands for; parquet of a name without an ending.

    Raises:
        SettingsError: The ending is that of no format, such as .csv.
    """
    ending = target.suffix.removeprefix(".")
    formats: tuple[FileFormat, ...] = get_args(FileFormat)
    for known in formats:
        if ending.lower() in (known, ""):
            return known
    raise SettingsError(
        f"{target}: .{ending} is no format of an export; choose parquet, npy, jsonl or lance with --format"
    )
