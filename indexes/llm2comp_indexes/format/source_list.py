"""The sources of documents, as a manifest or a shard lists them."""

from collections.abc import Mapping
from typing import Any

from llm2comp.checked_json import take, take_optional
from llm2comp.corpus.column_types import ColumnType
from llm2comp.corpus.fields import FieldNames
from llm2comp.corpus.sources import Source
from llm2comp.errors import SettingsError

__all__ = ["parse_sources"]


def parse_sources(content: Mapping[str, Any]) -> tuple[Source, ...] | None:
    """The sources of a manifest or a shard; None: version 0.1.0 wrote it.

    Raises:
        ValueError: The list is malformed, or two sources have the same name.
    """
    if "sources" not in content:
        return None
    entries = take(content, "sources", list)
    if not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("a source is not an object")
    sources = tuple(
        Source(
            take(entry, "name", str),
            take_optional(entry, "root", str),
            take(entry, "positions", bool),
            take(entry, "paths", bool) if "paths" in entry else True,  # unknown: they may be
            _parse_fields(take(entry, "fields", dict)) if "fields" in entry else FieldNames(),
            take(entry, "strings", bool) if "strings" in entry else True,  # before types were kept
            _parse_columns(take(entry, "columns", list)) if "columns" in entry else (),
            take(entry, "files", bool) if "files" in entry else False,
        )
        for entry in entries
    )
    if len({source.name for source in sources}) != len(sources):
        raise ValueError("two sources have the same name")
    return sources


def _parse_fields(content: dict[str, Any]) -> FieldNames:
    """The fields of a source's rows.

    Raises:
        ValueError: They are malformed.
    """
    text, metadata = take(content, "text", list), take_optional(content, "metadata", list)
    if not all(isinstance(name, str) for name in (*text, *(metadata or ()))):
        raise ValueError("the name of a field is no string")
    try:
        return FieldNames(
            take_optional(content, "id", str),
            take_optional(content, "title", str),
            tuple(text),
            None if metadata is None else tuple(metadata),
        )
    except SettingsError as error:
        raise ValueError(str(error)) from None


def _parse_columns(content: list[Any]) -> tuple[tuple[str, str], ...]:
    """Names and types of a source's columns.

    Raises:
        ValueError: They are malformed.
    """
    types = frozenset(ColumnType)
    if not all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and pair[1] in types for pair in content
    ):
        raise ValueError("the columns of a source are no pairs of a name and a type")
    return tuple((name, type_) for name, type_ in content)
