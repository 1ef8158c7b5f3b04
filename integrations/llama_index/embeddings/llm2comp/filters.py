"""LlamaIndex's metadata filters, translated to the filter syntax of llm2comp indexes."""

import math
import operator
from collections.abc import Callable
from typing import Any

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from llm2comp.errors import SettingsError

__all__ = ["to_where"]

_COMPARE: dict[FilterOperator, Callable[[Any, Any], bool]] = {
    FilterOperator.GT: operator.gt,
    FilterOperator.GTE: operator.ge,
    FilterOperator.LT: operator.lt,
    FilterOperator.LTE: operator.le,
}
_JOINED = {FilterOperator.ANY: " or ", FilterOperator.ALL: " and "}
_FARTHEST = 10**309
"""Beyond all doubles, and so beyond all numbers of an index; Python writes no number of over 4,300 digits."""


def to_where(filters: MetadataFilters | str | None) -> str | None:
    """The filters as a text for `SearchOptions.where`; None if there are none. A text is returned as it is.

    Groups may contain groups. A key is the name of a field; `journal.name` is a field of a field. As in the store of
    LlamaIndex (since 0.14.23), a document without the field matches only `!=`, `nin` and `is_empty`, 1 and 0 are equal
    to true and false, in lists too (its filters have no truth values), and nothing is equal to NaN. A value that no
    document can be equal to, such as a text on a field of truth values, matches none; one that cannot be compared by
    `<` or sought by `contains` is refused by the search, where that store raises TypeError.

    Raises:
        SettingsError: An operator or its value has no counterpart (the message names the key), or `filters` is of
            another type.
    """
    if filters is None or isinstance(filters, str):
        return filters
    if not isinstance(filters, MetadataFilters):
        raise SettingsError(
            f"filters is {type(filters).__name__} {_show(filters)}; expected MetadataFilters, or a text such as year "
            ">= 2020"
        )
    parts = [part for part in (_to_part(part) for part in filters.filters) if part is not None]
    if not parts:
        return None
    if filters.condition == FilterCondition.NOT:
        return f"not ({' or '.join(parts)})"
    return f"({(' or ' if filters.condition == FilterCondition.OR else ' and ').join(parts)})"


def _to_part(part: MetadataFilter | MetadataFilters) -> str | None:
    return to_where(part) if isinstance(part, MetadataFilters) else f"({_to_test(part)})"


def _to_test(part: MetadataFilter) -> str:
    field, value = f"field[{part.key!r}]", part.value
    match part.operator:
        case FilterOperator.IS_EMPTY:
            return f"not ({field} or {field} in (0, False))"
        case FilterOperator.EQ | FilterOperator.IN if (values := _to_list(part)) is not None:
            return _to_equality(field, values)
        case FilterOperator.NE | FilterOperator.NIN if (values := _to_list(part)) is not None:
            return f"not ({_to_equality(field, values)})"
        case FilterOperator.GT | FilterOperator.GTE | FilterOperator.LT | FilterOperator.LTE if isinstance(
            value, str | int | float
        ):
            return _to_comparison(field, part.operator, value)
        case FilterOperator.TEXT_MATCH if isinstance(value, str):
            return _to_membership(field, value)
        case FilterOperator.CONTAINS if isinstance(value, str | int | float):
            return _to_membership(field, value)
        case FilterOperator.ANY | FilterOperator.ALL if isinstance(value, list):
            members = (f"({_to_membership(field, item)})" for item in value)
            return _JOINED[part.operator].join(members) or _empty_list(part.operator, field)
    raise SettingsError(
        f"the filter on {part.key!r} cannot be expressed: operator {part.operator.value!r} with the value "
        f"{_show(value)}"
    )


def _to_list(part: MetadataFilter) -> list[Any] | None:
    """The values of which a document must have one, or none; None if the filter's value is of another type."""
    if part.operator in (FilterOperator.IN, FilterOperator.NIN):
        return part.value if isinstance(part.value, list) else None
    return [part.value] if isinstance(part.value, str | int | float) else None


def _to_equality(field: str, values: list[Any]) -> str:
    """The test; `in ()`, which is never true, has it accepted on fields that hold other types of values only."""
    return f"{field} in {_among(values)} or {field} in ()"


def _to_comparison(field: str, compare: FilterOperator, value: str | float) -> str:
    """The test; a number is compared with true and false as with 1 and 0."""
    if _is_nan(value):
        return f"{field} in ()"
    test = f"{field} {compare.value} {_literal(value)}"
    if isinstance(value, str):
        return test
    flags = [flag for flag in (False, True) if _COMPARE[compare](flag, value)]
    if flags:
        return f"{test} or {field} in {tuple(flags)}"
    # accepted on fields of truth values, though none of them fulfils it
    return f"({test} or {field} in (False, True)) and not ({field} in (False, True) or {field} in ())"


def _to_membership(field: str, value: str | float) -> str:
    """The test; 1 and 0 are sought as True and False too."""
    if _is_nan(value):
        return f"{field} in ()"
    test = f"{_literal(value)} in {field}"
    return f"{test} or {bool(value)} in {field}" if value in (0, 1) else test


def _among(values: list[Any]) -> str:
    """The values in brackets: 1 and 0 followed by True and False, NaN left out because nothing is equal to it."""
    items = [value for value in values if not _is_nan(value)]
    flags = [bool(value) for value in items if value in (0, 1)]
    return f"({''.join(f'{_literal(item)}, ' for item in (*items, *flags))})"


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _literal(value: str | float) -> str:
    """The value as a literal of Python, which has none for infinity: a number beyond all doubles stands for it."""
    if isinstance(value, str | bool):
        return repr(value)
    if isinstance(value, int):
        return repr(max(-_FARTHEST, min(_FARTHEST, value)))
    return repr(value).replace("inf", "1e999")


def _empty_list(joined: FilterOperator, field: str) -> str:
    """The test for an empty list: ANY matches nothing, ALL matches every document that has the field."""
    return f"{field} in ()" if joined == FilterOperator.ANY else f"{field} is not None"


def _show(value: Any) -> str:
    return f"{value!r:.60}"
