"""Filters as SQL of LanceDB over typed columns of metadata; what lies in JSON texts is refused in words."""

import math
from collections.abc import Mapping

from llm2comp.errors import SettingsError
from llm2comp_indexes.filters.conditions import (
    All,
    Among,
    Any,
    Compare,
    Condition,
    Contains,
    FieldTest,
    Not,
    Present,
    SameList,
    Truth,
    Value,
    encodable,
)
from llm2comp_indexes.filters.parse import Where
from llm2comp_indexes.stores.refusals import refused_filter

__all__ = ["quote_text", "to_sql"]

_NEVER = "false"


def to_sql(where: Where, types: Mapping[str, str] | None) -> str:
    """The filter as the condition of a WHERE clause.

    Args:
        where: The filter.
        types: Types of the metadata columns, as `MetadataTypes` has them; None: the metadata is one JSON text.

    Raises:
        SettingsError: LanceDB cannot filter so.
    """
    if types is None:
        raise SettingsError(
            "where: the metadata of this table is one JSON text, which LanceDB does not look into; push the index to it"
        )
    return _condition(where.condition, types)


def _condition(condition: Condition, types: Mapping[str, str]) -> str:
    match condition:
        case All(parts=parts):
            return f"({' AND '.join(_condition(part, types) for part in parts)})"
        case Any(parts=parts):
            return f"({' OR '.join(_condition(part, types) for part in parts)})"
        case Not(part=part):
            return f"(NOT COALESCE({_condition(part, types)}, false))"  # a missing field gives NULL
        case _:
            return _test(condition, types)


def _test(test: FieldTest, types: Mapping[str, str]) -> str:
    kind = types.get(test.field)
    if kind is None:
        if "." in test.field and types.get(test.field.partition(".")[0]) == "json":
            raise _refused(test, "it lies in an object, which is a JSON text there")
        return _NEVER
    column = f"metadata.`{test.field}`"
    if "`" in test.field or "." in test.field:
        raise _refused(test, "its name has a character that cannot be written there")
    if isinstance(test, Present):
        return f"({column} IS NOT NULL)"
    if kind == "json":
        raise _refused(test, "its values are of several types or objects, so they are JSON texts there")
    match test:
        case Truth():
            return _truth(column, kind)
        case Compare(operator=operator, value=value):
            return _compare(test, column, kind, "=" if operator == "==" else operator, value)
        case Among(values=values):
            tests = [_compare(test, column, kind, "=", value) for value in values]
            return f"({' OR '.join(tests)})" if tests else _NEVER
        case Contains(value=value):
            return _contains(test, column, kind, value)
        case SameList():
            raise _refused(test, "LanceDB does not compare whole lists")
    raise _refused(test, f"{type(test).__name__} is not known to it")


def _truth(column: str, kind: str) -> str:
    if kind.startswith("list:"):
        return f"(COALESCE(array_length({column}), 0) > 0)"
    return {"bool": f"({column})", "string": f"({column} <> '')"}.get(kind, f"({column} <> 0)")


def _compare(test: FieldTest, column: str, kind: str, operator: str, value: Value) -> str:
    if kind == "int64" and isinstance(value, float) and math.isfinite(value) and not value.is_integer():
        if operator == "=":
            return _NEVER
        operator, value = ("<=", math.floor(value)) if operator.startswith("<") else (">=", math.ceil(value))
    literal = _literal(test, kind, value)
    return _NEVER if literal is None else f"({column} {operator} {literal})"


def _literal(test: FieldTest, kind: str, value: Value) -> str | None:
    """The constant in SQL; None if it is of another type than the column."""
    if isinstance(value, bool):
        return str(value).lower() if kind == "bool" else None
    if isinstance(value, str):
        return quote_text(value) if kind == "string" else None
    if kind not in ("int64", "double"):
        return None
    if kind == "int64" and isinstance(value, float) and value.is_integer() and abs(value) < 1 << 63:
        value = int(value)
    exact = isinstance(value, int) and abs(value) < (1 << 63 if kind == "int64" else (1 << 53) + 1)
    if not exact and (isinstance(value, int) or not math.isfinite(value) or kind == "int64"):
        raise _refused(test, f"{value!r:.40} is not a number of the type {kind}")
    return repr(value) if isinstance(value, int) else f"CAST({value!r} AS DOUBLE)"


def _contains(test: FieldTest, column: str, kind: str, value: Value) -> str:
    if kind == "string":
        return f"(strpos({column}, {quote_text(value)}) > 0)" if isinstance(value, str) else _NEVER
    if not kind.startswith("list:"):
        return _NEVER
    literal = _literal(test, kind.removeprefix("list:"), value)
    return _NEVER if literal is None else f"(array_has({column}, {literal}))"


def quote_text(text: str) -> str:
    """The text as a literal of SQL."""
    return "'" + encodable(text).replace("'", "''") + "'"


def _refused(test: FieldTest, why: str) -> SettingsError:
    return refused_filter(test, why, "LanceDB")
