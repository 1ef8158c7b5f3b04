"""Filters as expressions of Milvus over the JSON field of metadata, for fields of one type; others are refused.

In Milvus a comparison with a missing field is neither true nor false, so each asks whether the field is there first.
"""

import json
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
from llm2comp_indexes.format.columns import Kind
from llm2comp_indexes.stores.refusals import refused_filter

__all__ = ["quote_text", "to_expression"]

_CLASSES: dict[Kind, str] = {"integer": "number", "number": "number", "flag": "flag", "text": "text"}
_LISTS = {"texts", "numbers", "flags"}
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_NEVER = 'id == ""'
"""No row has an empty id that is also none."""


def to_expression(where: Where, fields: Mapping[str, tuple[Kind, ...]] | None) -> str:
    """The filter as an expression.

    Args:
        where: The filter.
        fields: Types of the values of each metadata field; None: not known.

    Raises:
        SettingsError: Milvus has no expression of the same meaning.
    """
    if fields is None:
        raise SettingsError(
            "where: Milvus cannot filter a table that does not say its fields' types; push the index to it"
        )
    return _condition(where.condition, fields)


def _condition(condition: Condition, fields: Mapping[str, tuple[Kind, ...]]) -> str:
    match condition:
        case All(parts=parts):
            return f"({' and '.join(_condition(part, fields) for part in parts)})"
        case Any(parts=parts):
            return f"({' or '.join(_condition(part, fields) for part in parts)})"
        case Not(part=part):
            return f"(not {_condition(part, fields)})"
        case _:
            return _test(condition, fields)


def _test(test: FieldTest, fields: Mapping[str, tuple[Kind, ...]]) -> str:
    kinds = set(fields.get(test.field, ()))
    if not kinds:
        return f"(exists metadata[{_quote(test.field)}])"  # no row has it
    if "." in test.field:
        raise _refused(test, "it lies in an object, or has a dot in its name")
    value = f"metadata[{_quote(test.field)}]"
    if isinstance(test, Present):
        return f"(exists {value})"
    classes = {_CLASSES.get(kind, kind) for kind in kinds}
    if len(classes) > 1 or classes & {"object", "items", "large"}:
        raise _refused(test, "it holds values of several types, or objects, or whole numbers of more than 64 bits")
    return f"(exists {value} and {_inner(test, value, classes.pop())})"


def _inner(test: FieldTest, value: str, kind: str) -> str:
    match test:
        case Truth():
            if kind in _LISTS:
                raise _refused(test, "Milvus does not ask for the length of a list")
            return {"flag": f"{value} == true", "text": f'{value} != ""'}.get(kind, f"{value} != 0")
        case Compare(operator=operator, value=constant):
            return _compare(test, value, kind, operator, constant)
        case Among(values=constants):
            each = [_compare(test, value, kind, "==", constant) for constant in constants]
            return f"({' or '.join(each) or _NEVER})"
        case Contains(value=constant):
            return _contains(test, value, kind, constant)
        case SameList():
            raise _refused(test, "Milvus does not compare whole lists")
    raise _refused(test, f"{type(test).__name__} is not known to it")


def _compare(test: FieldTest, value: str, kind: str, operator: str, constant: Value) -> str:
    return f"{value} {operator} {_literal(test, constant)}" if _class_of(constant) == kind else _NEVER


def _contains(test: FieldTest, value: str, kind: str, constant: Value) -> str:
    if kind == "text":
        if not isinstance(constant, str):
            return _NEVER
        if not constant or any(letter in constant for letter in '%_\\"'):
            raise _refused(test, "Milvus finds no part of a text with a %, _, quote or backslash in it")
        return f"{value} like {_quote(f'%{constant}%')}"
    return f"json_contains({value}, {_literal(test, constant)})" if f"{_class_of(constant)}s" == kind else _NEVER


def _class_of(constant: Value) -> str:
    return "flag" if isinstance(constant, bool) else "text" if isinstance(constant, str) else "number"


def _literal(test: FieldTest, constant: Value) -> str:
    if isinstance(constant, str):
        return _quote(constant)
    if not isinstance(constant, bool) and (abs(constant) >= 1 << 63 or not math.isfinite(constant)):
        raise _refused(test, f"{constant!r:.40} is no number of 64 bits")
    return json.dumps(constant)


def quote_text(text: str) -> str:
    """The text as a literal: Milvus Lite knows fewer escapes than JSON has, and takes other characters as they are."""
    return f'"{encodable(text).translate(_ESCAPES)}"'


def _quote(text: str) -> str:
    """A literal of a name or value of metadata, which has no null characters in the table."""
    return quote_text(text.replace("\0", "\ufffd"))


def _refused(test: FieldTest, why: str) -> SettingsError:
    return refused_filter(test, why, "Milvus")
