"""Filters on metadata as dicts, in the form that most stores of LangChain take."""

from collections.abc import Callable, Mapping
from typing import Any as AnyValue

from llm2comp.corpus.scalars import to_json
from llm2comp.errors import SettingsError
from llm2comp_indexes.filters.conditions import (
    All,
    Among,
    Any,
    Compare,
    Condition,
    Contains,
    Not,
    Operator,
    Present,
    SameList,
    Value,
    encodable,
)
from llm2comp_indexes.filters.parse import Where

__all__ = ["to_filter"]

_ORDER: dict[str, Operator] = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


def to_filter(filter: Mapping[str, AnyValue] | str | None) -> Where | str | None:
    """The filter for a search; None if there is none. A text is returned as it is.

    - `{"lang": "en", "year": 2020}`: equal, in all fields; `{"author": {"name": "Ada"}}` or `{"author.name": "Ada"}`
      for a field of a field; None for a missing value
    - `{"year": {"$gte": 2000, "$lt": 2010}}`; also `$eq`, `$ne`, `$gt`, `$lte`
    - `{"lang": {"$in": ["en", "de"]}}`, `$nin`; `{"tags": {"$contains": "sea"}}` in a list, or in a text as a substring
    - `{"note": {"$exists": True}}`
    - `{"$and": [...]}`, `{"$or": [...]}`, `{"$not": {...}}`, to any depth

    A field that no document has counts as missing in all. A document without the field fulfils only `$ne`, `$nin`,
    `$not` and `{"$exists": False}`.

    Raises:
        SettingsError: The filter is of another form; the message names the part.
    """
    if filter is None or isinstance(filter, str):
        return filter
    if not isinstance(filter, Mapping):
        raise SettingsError(
            f"filter is {type(filter).__name__} {filter!r:.60}; expected a dict such as {{'year': 2020}}, or "
            "a text such as year >= 2020"
        )
    return Where(repr(filter), _to_condition(filter), name="filter", allow_unknown=True) if filter else None


def _to_condition(filter: AnyValue) -> Condition:
    if not isinstance(filter, Mapping):
        raise SettingsError(f"filter: {filter!r:.60} is not a dict of conditions")
    return All(tuple(_to_part(str(name), value) for name, value in filter.items()) or (Not(_never("")),))


def _to_part(name: str, value: AnyValue) -> Condition:
    match name:
        case "$and":
            return All(_to_parts(name, value))
        case "$or":
            return Any(_to_parts(name, value))
        case "$not":
            return Not(_to_condition(value))
    if name.startswith("$"):
        raise SettingsError(f"filter: {name!r:.60} is no field; operators that join conditions are $and, $or and $not")
    return _to_test(name, value)


def _to_parts(name: str, values: AnyValue) -> tuple[Condition, ...]:
    if not isinstance(values, list | tuple) or not values:
        raise SettingsError(f"filter: {name} takes a list of at least one condition, got {values!r:.60}")
    return tuple(map(_to_condition, values))


def _to_test(field: str, value: AnyValue) -> Condition:
    if not isinstance(value, Mapping):
        return _to_equality(field, value)
    operators = [str(name).startswith("$") for name in value]
    if any(operators) and not all(operators):
        raise SettingsError(f"filter: {field!r:.60} is compared with operators and fields at once: {value!r:.60}")
    if not value:
        raise SettingsError(f"filter: {field!r:.60} is compared with an empty dict")
    if all(operators):
        return All(tuple(_to_operation(field, str(name), operand) for name, operand in value.items()))
    return All(tuple(_to_test(f"{field}.{name}", inner) for name, inner in value.items()))


def _to_operation(field: str, name: str, operand: AnyValue) -> Condition:
    make: dict[str, Callable[[], Condition]] = {
        "$eq": lambda: _to_equality(field, operand),
        "$ne": lambda: Not(_to_equality(field, operand)),
        "$in": lambda: Any(
            tuple(_to_equality(field, item) for item in _to_list(field, name, operand)) or (_never(field),)
        ),
        "$nin": lambda: Not(_to_operation(field, "$in", operand)),
        "$contains": lambda: Contains(encodable(field), _to_value(field, operand)),
        "$exists": lambda: Present(encodable(field)) if operand else Not(Present(encodable(field))),
        "$not": lambda: Not(_to_test(field, operand)),
    }
    if name in _ORDER:
        return Compare(encodable(field), _ORDER[name], _to_value(field, operand, ordered=True))
    if name not in make:
        raise SettingsError(
            f"filter: {field!r:.60} has the operator {name!r:.40}; expected {', '.join((*make, *_ORDER))}"
        )
    return make[name]()


def _to_equality(field: str, value: AnyValue) -> Condition:
    """Equality; a value of another type than the field's equals none, which is no error."""
    if value is None:
        return Not(Present(encodable(field)))
    if isinstance(value, list | tuple):
        items = tuple(_to_value(field, item) for item in value)
        return Any((SameList(encodable(field), items), _never(field)))
    return Any((Compare(encodable(field), "==", _to_value(field, value)), _never(field)))


def _never(field: str) -> Among:
    """A test that no document fulfils, whatever the type of the field."""
    return Among(encodable(field), ())


def _to_list(field: str, name: str, operand: AnyValue) -> list[AnyValue]:
    if not isinstance(operand, list | tuple | set | frozenset):
        raise SettingsError(f"filter: {name} of {field!r:.60} takes a list, got {operand!r:.60}")
    return list(operand)


def _to_value(field: str, value: AnyValue, *, ordered: bool = False) -> Value:
    """The value as metadata holds it: dates as ISO text."""
    plain = to_json(value, field)
    if not isinstance(plain, str | int | float) or (ordered and isinstance(plain, bool)):
        kind = "a number, a text or a date" if ordered else "a number, a text, True or False, or a date"
        raise SettingsError(f"filter: {field!r:.60} is compared with {value!r:.60}; expected {kind}")
    return plain
