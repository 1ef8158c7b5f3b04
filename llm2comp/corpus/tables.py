"""Rows of the files of a folder or pattern, with the partitions that their folders name."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from stat import S_ISREG
from typing import Any
from urllib.parse import unquote

from llm2comp.corpus.columns import Columns, rename_fields
from llm2comp.corpus.kinds import is_pattern, pattern_root
from llm2comp.corpus.records import Record, read_records
from llm2comp.corpus.report import Report
from llm2comp.corpus.share import Share
from llm2comp.corpus.table_format import TableFormat
from llm2comp.corpus.text import readable
from llm2comp.errors import CorpusError

__all__ = ["read_tables"]

_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


def read_tables(
    corpus: Path,
    files: Sequence[Path],
    report: Report,
    columns: Columns,
    layout: TableFormat,
    share: Share | None = None,
) -> Iterator[Record]:
    """Rows of all files in order.

    A folder named `year=2023` in the path of a file is a partition in Hive's way: a field `year` of its rows, unless
    they have one. It may be the corpus itself, or stand before it in the path as it was given.

    Args:
        corpus: The folder or pattern that the files belong to, or the only file.
        files: Files of rows.
        report: As for `read_records`, as are the others.
        columns: Known names.
        layout: How CSV and TSV files are read.
        share: The files that are read; None: all.

    Raises:
        CorpusError: The share is one of another number of files.
    """
    share = share or Share()
    share.check(corpus, files)
    root = pattern_root(corpus) if is_pattern(corpus) else corpus
    for file, fields in share.take(zip(files, _partitions(files), strict=True)):
        records = _check_unchanged(file, read_records(file, report, columns, layout))
        partition = rename_fields(fields, columns, corpus)
        if file == corpus and not partition:
            yield from records
            continue
        folder = Path() if file == corpus else Path(file.relative_to(root).parent)
        for record in records:
            position = (folder / record.default_id).as_posix()
            nested = record.fields.get("metadata")
            there = nested if isinstance(nested, dict) else {}
            added = {name: value for name, value in partition.items() if name not in there}
            yield record._replace(default_id=position, fields={**added, **record.fields})


def _check_unchanged(file: Path, records: Iterator[Record]) -> Iterator[Record]:
    """The records of a file.

    Raises:
        CorpusError: After the last one, if the file is another one by then.
    """
    with readable(file):
        before = file.stat()
    yield from records
    with readable(file):
        after = file.stat()
    if S_ISREG(before.st_mode) and (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise CorpusError(f"{file}: changed while it was read; read it again when nothing writes to it")


def _partitions(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Fields that the folders of each file name, with one type for all values of a field.

    They are whole numbers if all of them are; `month=01` to `month=12` are texts.
    """
    partitions = [_partition(file.parent) for file in files]
    texts = {name for fields in partitions for name, value in fields.items() if not _is_number(value)}
    return [
        {name: value if value is None or name in texts else int(value) for name, value in fields.items()}
        for fields in partitions
    ]


def _partition(folder: Path) -> dict[str, str | None]:
    """Names and values in the names of the folders."""
    named = (part.partition("=") for part in folder.parts)
    pairs = ((unquote(name), unquote(value)) for name, separator, value in named if name and separator)
    return {name: None if value == _NULL_PARTITION else value for name, value in pairs}


def _is_number(text: str | None) -> bool:
    """Whether the text is the usual one of a whole number, as `007` is not; no value speaks against one."""
    return text is None or (text.isascii() and text.removeprefix("-").isdigit() and str(int(text)) == text)
