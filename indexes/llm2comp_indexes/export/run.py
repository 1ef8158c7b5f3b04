"""Writes an index to a file or folder that other tools read: streamed, read back, and whole or not at all."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from llm2comp.atomic import sync_folder, sync_tree
from llm2comp.errors import LLM2CompError, SettingsError, one_line
from llm2comp_indexes.export.arrow import MetadataTypes, make_schema
from llm2comp_indexes.export.files import FORMATS, Format
from llm2comp_indexes.export.rows import Block, check_vectors, read_blocks
from llm2comp_indexes.format.columns import encodable
from llm2comp_indexes.progress import Phase, Progress, silent
from llm2comp_indexes.search.checks import report_left_out
from llm2comp_indexes.search.index import Index, open_index

__all__ = ["ExportFormat", "ExportReport", "export_index"]

ExportFormat = Literal["parquet", "npy", "jsonl", "lance"]


class ExportReport(NamedTuple):
    """Result of an export.

    Attributes:
        rows: Number of rows: documents, or chunks of them.
        dimension: Length of a vector.
        fields: Type of each metadata field: `int64`, `double`, `bool`, `string`, `list:` and one of these, or `json`,
            which is JSON text in the formats parquet and lance.
        bytes: Size of what was written.
        seconds: Duration of the export, reading back included.
    """

    rows: int
    dimension: int
    fields: dict[str, str]
    bytes: int
    seconds: float


def export_index(
    folder: str | Path, target: str | Path, *, format: ExportFormat = "parquet", progress: Progress | None = None
) -> ExportReport:
    """Report of the rows written to the target: ids, titles, texts, metadata and vectors (float32) of all documents.

    Vectors of memory tokens are left out, which the log says.

    The index is read in blocks, three times: for the types of its metadata, to be written, and to be compared with what
    was written. The target appears once that is done; until then, and after an error, nothing is there.

    Args:
        folder: Folder of the index.
        target: A file (parquet, jsonl) or folder (npy, lance) that does not exist, in a folder that does.
        format: Format of the target.
        progress: Called with the phase and the number of its rows done.

    Raises:
        IndexFolderError: There is no index, or it was altered.
        SettingsError: There is no such format, the index is empty, or an id does not fit the format.
        LLM2CompError: The target exists or cannot be written, or what was read back is not what was written.
    """
    if format not in get_args(ExportFormat):
        raise SettingsError(f"format is {format!r}, expected one of {', '.join(get_args(ExportFormat))}")
    path, show, start = Path(target).absolute(), progress or silent, time.perf_counter()
    _check_target(path, Path(folder))
    with open_index(folder) as index:
        if not index.manifest.rows:
            raise SettingsError(f"{folder}: holds no documents, so there is nothing to export")
        check_vectors(index)
        report_left_out(index.manifest, "an export")
        types = MetadataTypes()
        for block in read_blocks(index):
            types.add(block.rows)
        schema = make_schema(types, index.manifest.dimension)
        with _staged(path) as draft:
            FORMATS[format].write(
                draft, _count(read_blocks(index), show, Phase.ROWS_EXPORTED), schema, index.manifest.rows
            )
            _compare(index, FORMATS[format], draft, schema, show)
            size = sum(file.stat().st_size for file in (draft, *draft.rglob("*")) if file.is_file())
    fields = {"": "json"} if types.is_json else dict(types.fields)
    return ExportReport(index.manifest.rows, index.manifest.dimension, fields, size, time.perf_counter() - start)


def _check_target(path: Path, folder: Path) -> None:
    if os.path.lexists(path):
        raise LLM2CompError(f"{path}: exists, and is kept; name another target with -o")
    if not path.parent.is_dir():
        raise LLM2CompError(f"{path}: there is no folder {path.parent}; create it first")
    if folder.resolve() in path.resolve().parents:
        raise LLM2CompError(f"{path}: lies in the folder of the index, whose files are its own; name another target")


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """A place beside the target, in a hidden folder; at the end what is there takes the target's name.

    Raises:
        LLM2CompError: It cannot be written.
    """
    stage = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        stage.mkdir()
        yield stage / target.name
        sync_tree(stage)
        if os.path.lexists(target):
            raise LLM2CompError(f"{target}: was made by something else meanwhile, and is kept; name another target")
        (stage / target.name).rename(target)
        sync_folder(target.parent)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise LLM2CompError(
            f"{target}: cannot be written ({reason}); nothing is left behind: free some space, or name another target"
        ) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _count(blocks: Iterator[Block], progress: Progress, phase: Phase) -> Iterator[Block]:
    done = 0
    for block in blocks:
        yield block
        done += len(block.rows)
        progress(phase, done)


def _compare(index: Index, format: Format, place: Path, schema: Any, progress: Progress) -> None:
    """Raises LLM2CompError unless what was written reads back as the rows of the index."""
    written = _rows(_count(format.read(place, schema), progress, Phase.ROWS_READ_BACK))
    number = 0
    for number, (row, other) in enumerate(zip(_rows(read_blocks(index)), written, strict=False), start=1):
        if _plain(row[0]) != _plain(other[0]) or not np.array_equal(row[1], other[1]):
            raise LLM2CompError(
                f"{place.name}: row {number:,} (id {row[0].id!r:.60}) reads back as another one; nothing is left "
                "behind. Please report this"
            )
    if number != index.manifest.rows or next(written, None) is not None:
        raise LLM2CompError(
            f"{place.name}: {number:,} of {index.manifest.rows:,} rows read back; nothing is left behind"
        )


def _rows(blocks: Iterator[Block]) -> Iterator[tuple[Any, Any]]:
    for block in blocks:
        yield from zip(block.rows, block.vectors, strict=True)


def _plain(row: Any) -> tuple[Any, ...]:
    """What a row reads back as: without half surrogate pairs, and without metadata fields that have no value."""
    metadata = {encodable(name): value for name, value in row.metadata.items() if value is not None}
    return encodable(row.id), encodable(row.title), encodable(row.text), _encodable(metadata)


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, dict):
        return {encodable(str(name)): _encodable(item) for name, item in value.items()}
    return [_encodable(item) for item in value] if isinstance(value, list | tuple) else value
