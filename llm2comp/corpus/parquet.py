"""Rows of parquet files and Arrow tables, without loss of nanoseconds and of the shortest text of floats."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm2comp.corpus.report import Report, list_names
from llm2comp.corpus.text import readable
from llm2comp.errors import CorpusError, one_line

if TYPE_CHECKING:
    from pyarrow import Array, RecordBatch

__all__ = ["read_parquet", "to_rows"]

_ROWS = 256
_BUFFER_BYTES = 2**20
_NANOSECONDS = re.compile(r"(?:time64|duration)\[ns\]")  # in the name of a type, at any depth
_UNFIT = (ArithmeticError, LookupError, ValueError)  # what pyarrow raises for values that Python cannot hold


def read_parquet(path: Path, report: Report) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows as (number from 1, values by column name).

    Floats of 16 and 32 bits are numpy's, which know their shortest text. Times and durations of nanoseconds that
    Python's types would cut to microseconds are text.

    Args:
        path: The file.
        report: Receives a message for each row with a value that Python cannot hold.

    Raises:
        CorpusError: The file cannot be read, or a column name occurs twice.
    """
    from pyarrow import ArrowException, parquet

    number = 0
    try:
        # Without these two settings, pyarrow keeps every row group that it has read
        with (
            readable(path),
            path.open("rb") as file,  # pyarrow itself takes names in UTF-8 only
            parquet.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES) as table,
        ):
            names = table.schema_arrow.names
            if len(set(names)) < len(names):
                raise CorpusError(f"{path}: a column name occurs twice: {list_names(names)}")
            for batch in table.iter_batches(batch_size=_ROWS):
                yield from to_rows(batch, path, number, report)
                number += batch.num_rows
    except (ArrowException, UnicodeDecodeError) as error:
        raise CorpusError(
            f"{path}: not a readable parquet file, after row {number} ({str(error).splitlines()[0]})"
        ) from error


def to_rows(
    batch: "RecordBatch", source: str | Path, before: int, report: Report
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a batch as (number from 1, fields); a row with a value that Python cannot hold is reported.

    Args:
        batch: Of a file or data set.
        source: Its path or name, for messages.
        before: Number of rows before the batch.
        report: Receives messages.
    """
    names = batch.schema.names
    try:
        columns = [_to_list(column) for column in batch.columns]
    except _UNFIT:
        yield from _to_rows_one_by_one(batch, source, before, report)
        return
    for number, values in enumerate(zip(*columns, strict=True), start=before + 1):
        yield number, dict(zip(names, values, strict=True))


def _to_rows_one_by_one(
    batch: "RecordBatch", source: str | Path, before: int, report: Report
) -> Iterator[tuple[int, dict[str, Any]]]:
    for row in range(batch.num_rows):
        fields, number = dict[str, Any](), before + row + 1
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                [fields[name]] = _to_list(column[row : row + 1], nanoseconds=True)
            except _UNFIT as error:
                fault = _describe_fault(str(column.type), error)
                report(f'{source}:{number}: the value of "{name}", of type {column.type}, cannot be held: {fault}')
                break
        else:
            yield number, fields


def _to_list(column: "Array[Any]", *, nanoseconds: bool = False) -> list[Any]:
    """Values of a column; `nanoseconds`: whether any value may be one that only text holds."""
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_float16(column.type) or types.is_float32(column.type):
        values = column.to_numpy(zero_copy_only=False)
        return [value if valid else None for value, valid in zip(values, column.is_valid(), strict=True)]
    if nanoseconds or _NANOSECONDS.search(str(column.type)):
        return [_to_python(value) for value in column]
    rows: list[Any] = column.to_pylist()
    return rows


def _to_python(scalar: Any) -> Any:
    from pyarrow import types

    kind = scalar.type
    if not scalar.is_valid:
        return None
    if types.is_struct(kind):
        return {name: _to_python(value) for name, value in scalar.items()}
    if types.is_map(kind):
        return [tuple(_to_python(entry).values()) for entry in scalar.values]
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return [_to_python(value) for value in scalar.values]
    if types.is_dictionary(kind):
        return _to_python(scalar.value)
    return _from_nanoseconds(scalar) if getattr(kind, "unit", "") == "ns" else scalar.as_py()


def _from_nanoseconds(scalar: Any) -> Any:
    """A time, duration or timestamp as Python's types hold it, or else as text with nine decimals."""
    from pyarrow import string, types

    microseconds, rest = divmod(scalar.value, 1_000)
    if types.is_duration(scalar.type):
        whole = timedelta(microseconds=microseconds)
        text = str(whole) if whole.microseconds else f"{whole}.000000"
        return f"{text}{rest:03}" if rest else whole
    if types.is_time(scalar.type) and rest:
        return scalar.cast(string()).as_py()
    try:
        return scalar.as_py()
    except ValueError:
        if not types.is_timestamp(scalar.type):
            raise
        return str(scalar.cast(string()).as_py()).replace(" ", "T")  # nanoseconds, which only pandas holds


def _describe_fault(kind: str, error: Exception) -> str:
    """What is wrong with a value of this Arrow type; for an unknown time zone, Arrow asks for packages to install."""
    zone = re.search(r"tz=([^\]]*)", kind)
    if zone and (isinstance(error, LookupError) or re.search("zoneinfo|timezone", str(error))):
        return (
            f"this system knows no time zone {zone[1]!r:.60}, expected a name such as Europe/Paris or an offset such "
            "as +01:00"
        )
    return one_line(error)
