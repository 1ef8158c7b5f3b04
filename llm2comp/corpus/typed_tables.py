"""A first pass over the CSV and TSV files of a source, which decides the types of their metadata columns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llm2comp.corpus.column_types import ColumnType, find_types, note_types
from llm2comp.corpus.columns import normalise
from llm2comp.corpus.sources import Source
from llm2comp.corpus.table import delimiter_of, read_table
from llm2comp.corpus.table_format import TableFormat

__all__ = ["decide_types", "types_of"]


def decide_types(corpus: str, files: Sequence[Path], source: Source, layout: TableFormat) -> Source:
    """The source with a type for each metadata column of its CSV and TSV files; one line names the new ones.

    Columns keep the type that the source has for them. What may be an id, a title or a text is none of them.

    Args:
        corpus: Name of the corpus, for the line.
        files: All files of the source.
        source: Where `strings` is set, all columns are text, and nothing is read. It is set for a pipe.
        layout: As for reading.
    """
    delimited = [file for file in files if delimiter_of(file)]
    if source.strings or not delimited:
        return source
    if not all(file.is_file() for file in delimited):  # a pipe, which can be read once
        return replace(source, strings=not source.columns)
    known, names = dict(source.columns), source.fields
    roles = set(map(normalise, (*names.ids(), *names.titles(), *names.texts())))

    def is_open(name: str) -> bool:
        return name not in known and normalise(name) not in roles and (names.metadata is None or name in names.metadata)

    tables = (_read_cells(file, source, layout) for file in delimited)
    types = find_types(tables, is_open)
    note_types(corpus, tuple(types.items()))
    return replace(source, columns=source.columns + tuple((name, str(type_)) for name, type_ in types.items()))


def types_of(source: Source) -> Mapping[str, ColumnType]:
    """The type of each column by name."""
    return {name: ColumnType(type_) for name, type_ in source.columns}


def _read_cells(file: Path, source: Source, layout: TableFormat) -> Iterator[Mapping[str, str | None]]:
    delimiter = delimiter_of(file) or ""
    return (fields for _, fields in read_table(file, delimiter, _ignore, source.known_columns(), layout))


def _ignore(message: str) -> None:
    """Malformed rows are reported when the documents are read."""
