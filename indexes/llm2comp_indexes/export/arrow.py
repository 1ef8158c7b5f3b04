"""Rows of an index as Arrow record batches, and back: metadata as a struct whose fields have types of their own."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

import numpy as np

from llm2comp.corpus.documents import Document
from llm2comp_indexes.export.rows import Block
from llm2comp_indexes.format.columns import encodable
from llm2comp_indexes.format.metadata import MOST_COLUMNS

__all__ = ["MetadataTypes", "from_batches", "make_schema", "to_batches"]

_EXACT = 1 << 53
"""Whole numbers up to which every one is a double."""
_LIMITS = -(1 << 63), (1 << 63) - 1
_JSON = "json"
_EMPTY = "list:nothing"
"""Type of a list without items, which fits any list; a field that has no other becomes a list of texts."""
_IS_JSON = {b"llm2comp": b"json"}
"""Marks a field whose values are JSON texts."""


class MetadataTypes:
    """Types of metadata fields, from all their values.

    A field whose values are all whole numbers (of 64 bits), numbers, truth values or texts, or lists of one of these,
    has that type. Any other, such as one with objects or with values of several types, is JSON text. If there are more
    than 1,000 fields, there is one JSON text for all of them.
    """

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}
        self._large: set[str] = set()

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> Self:
        """The types that `fields` gave before."""
        types = cls()
        types._fields = dict(fields)
        return types

    def add(self, rows: Iterable[Document]) -> None:
        """Takes the metadata of rows into account."""
        for row in rows:
            for name, value in row.metadata.items():
                if value is not None:
                    self._add(encodable(name), value)

    def _add(self, name: str, value: Any) -> None:
        kind = _kind(value)
        if kind in ("int64", "list:int64"):
            numbers = value if isinstance(value, list) else [value]
            if any(abs(number) > _EXACT for number in numbers):
                self._large.add(name)
        known = self._fields.setdefault(name, kind)
        self._fields[name] = kind if known == kind else _join(known, kind)
        if self._fields[name].endswith("double") and name in self._large:
            self._fields[name] = _JSON

    @property
    def fields(self) -> dict[str, str]:
        """Type by field: `int64`, `double`, `bool`, `string`, `list:` and one of these, or `json`."""
        return {name: "list:string" if kind == _EMPTY else kind for name, kind in self._fields.items()}

    @property
    def is_json(self) -> bool:
        """Whether all fields are in one JSON text, as they are too many for a column each."""
        return len(self._fields) > MOST_COLUMNS


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64" if _LIMITS[0] <= value <= _LIMITS[1] else _JSON
    if isinstance(value, float):
        return "double"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list | tuple):
        if not value:
            return _EMPTY
        kinds = {_kind(item) for item in value}
        kind = next(iter(kinds))
        for other in kinds:
            kind = _join(kind, other) if other != kind else kind
        large = kind == "double" and any(isinstance(item, int) and abs(item) > _EXACT for item in value)
        return _JSON if kind == _JSON or kind.startswith("list:") or large else f"list:{kind}"
    return _JSON


def _join(one: str, other: str) -> str:
    """The type that holds values of both."""
    if _EMPTY in (one, other) and one.startswith("list:") and other.startswith("list:"):
        return other if one == _EMPTY else one
    for prefix in ("", "list:"):
        if {one, other} == {f"{prefix}int64", f"{prefix}double"}:
            return f"{prefix}double"
    return _JSON


def make_schema(types: MetadataTypes | None, dimension: int) -> Any:
    """The Arrow schema: id, title, text, metadata unless no row has any, and vector.

    Without types, the metadata is one JSON text.
    """
    import pyarrow as pa

    columns = [pa.field(name, pa.string(), nullable=False) for name in ("id", "title", "text")]
    if types is None or types.is_json:
        columns.append(pa.field("metadata", pa.string(), metadata=_IS_JSON))
    elif types.fields:
        fields = [
            pa.field(name, _arrow_type(kind), metadata=_IS_JSON if kind == _JSON else None)
            for name, kind in types.fields.items()
        ]
        columns.append(pa.field("metadata", pa.struct(fields)))
    vector = pa.list_(pa.field("item", pa.float32()), dimension)
    return pa.schema([*columns, pa.field("vector", vector, nullable=False)])


def _arrow_type(kind: str) -> Any:
    import pyarrow as pa

    if kind.startswith("list:"):
        return pa.list_(_arrow_type(kind.removeprefix("list:")))
    return {"int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_()}.get(kind, pa.string())


def to_batches(blocks: Iterable[Block], schema: Any) -> Iterator[Any]:
    """A record batch of each block."""
    import pyarrow as pa

    for rows, vectors in blocks:
        columns = [
            pa.array([encodable(getattr(row, name)) for row in rows], pa.string()) for name in ("id", "title", "text")
        ]
        if "metadata" in schema.names:
            columns.append(_metadata_array([row.metadata for row in rows], schema.field("metadata")))
        flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
        columns.append(pa.FixedSizeListArray.from_arrays(flat, type=schema.field("vector").type))
        yield pa.record_batch(columns, schema=schema)


def _metadata_array(metadata: list[dict[str, Any]], field: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_string(field.type):
        return pa.array([json.dumps(fields) for fields in metadata], pa.string())
    encoded = [{encodable(name): value for name, value in fields.items()} for fields in metadata]
    columns = [_field_array([fields.get(part.name) for fields in encoded], part) for part in field.type]
    return pa.StructArray.from_arrays(columns, fields=list(field.type))


def _field_array(values: list[Any], field: Any) -> Any:
    import pyarrow as pa

    if field.metadata == _IS_JSON:
        return pa.array([None if value is None else json.dumps(value) for value in values], pa.string())
    return pa.array([_clean(value) for value in values], field.type)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return encodable(value)
    return [_clean(item) for item in value] if isinstance(value, list | tuple) else value


def from_batches(batches: Iterable[Any], schema: Any) -> Iterator[Block]:
    """The rows of record batches that `to_batches` made. Metadata fields without a value are left out.

    Args:
        batches: The batches, as a file gave them.
        schema: The schema that they were made with.
    """
    for batch in batches:
        ids, titles, texts = (batch.column(name).to_pylist() for name in ("id", "title", "text"))
        metadata: list[dict[str, Any]] = [{}] * len(ids)
        if "metadata" in schema.names:
            metadata = [_read(value, schema.field("metadata")) for value in batch.column("metadata").to_pylist()]
        column = batch.column("vector")
        vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(ids), -1)
        yield Block([Document(*row) for row in zip(ids, titles, texts, metadata, strict=True)], vectors)


def _read(value: Any, field: Any) -> dict[str, Any]:
    if isinstance(value, str):
        fields: dict[str, Any] = json.loads(value)
        return fields
    return {
        part.name: json.loads(value[part.name]) if part.metadata == _IS_JSON else value[part.name]
        for part in field.type
        if value[part.name] is not None
    }
