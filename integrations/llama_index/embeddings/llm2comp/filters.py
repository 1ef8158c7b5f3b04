"""LlamaIndex's metadata filters, translated to the filter syntax of llm2comp indexes."""

import math
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from llm2comp.errors import SettingsError
from llm2comp_indexes.filters.parse import Where, parse_where

__all__ = ["to_filter", "to_where"]

_COMPARE: dict[FilterOperator, Callable[[Any, Any], bool]] = {
    FilterOperator.GT: operator.gt,
    FilterOperator.GTE: operator.ge,
    FilterOperator.LT: operator.lt,
    FilterOperator.LTE: operator.le,
}
_JOINED = {FilterOperator.ANY: " or ", FilterOperator.ALL: " and "}
_MOST_DECIMALS = 10**4000
"""Python writes and reads no larger number in decimal digits."""
_EXPECTED: dict[FilterOperator, str] = {
    **dict.fromkeys(_COMPARE, "a number or a text"),
    **dict.fromkeys((FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL), "a list"),
    FilterOperator.CONTAINS: "a number or a text; for several, take any or all",
    FilterOperator.TEXT_MATCH: "a text",
    FilterOperator.TEXT_MATCH_INSENSITIVE: "text_match, which is case-sensitive",
}


def to_filter(filters: MetadataFilters | str | None) -> Where | str | None:
    """As `to_where`, parsed: messages show LlamaIndex's filters, and a field that no document has is no error.

    Raises:
        SettingsError: As `to_where`.
    """
    if not isinstance(filters, MetadataFilters):
        return to_where(filters)
    where = to_where(filters)
    return where and replace(parse_where(where), text=_describe(filters), name="filters", allow_unknown=True)


def _describe(filters: MetadataFilters) -> str:
    parts = [
        f"({_describe(part)})"
        if isinstance(part, MetadataFilters)
        else f"{part.key} {part.operator.value} {_show(part.value)}"
        for part in filters.filters
    ]
    if filters.condition == FilterCondition.NOT:
        return f"not ({' or '.join(parts)})"
    return (" or " if filters.condition == FilterCondition.OR else " and ").join(parts)


def to_where(filters: MetadataFilters | str | None) -> str | None:
    """The filters as a text for `SearchOptions.where`; None if there are none. A text is returned as it is.

    Groups may contain groups. A key is the name of a field; `journal.name` is a field of a field. As in the store of
    LlamaIndex (since 0.14.23), a document without the field matches only `!=`, `nin` and `is_empty`, 1 and 0 are equal
    to true and false, in lists too (its filters have no truth values), and nothing is equal to NaN. A value that no
    document can be equal to, such as a text on a field of truth values, matches none. A document whose value cannot be
    compared by `<` or looked into, where that store raises TypeError, does not match; if that is so for all documents,
    the search refuses the filter.

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
            return f"({field} in ('',) or {field} == [] or {field} in ()) or {field} is None"
        case FilterOperator.EQ if isinstance(value, list):
            return _to_list_equality(field, value)
        case FilterOperator.NE if isinstance(value, list):
            return f"not ({_to_list_equality(field, value)})"
        case FilterOperator.EQ | FilterOperator.IN if (values := _to_list(part)) is not None:
            return _to_equality(field, values)
        case FilterOperator.NE | FilterOperator.NIN if (values := _to_list(part)) is not None:
            return f"not ({_to_equality(field, values)})"
        case FilterOperator.GT | FilterOperator.GTE | FilterOperator.LT | FilterOperator.LTE if isinstance(
            value, str | int | float
        ):
            return _to_comparison(field, part.operator, value)
        case FilterOperator.TEXT_MATCH if isinstance(value, str):
            return f'{_to_membership(field, value)} and {field} >= ""'
        case FilterOperator.CONTAINS if isinstance(value, str | int | float):
            return _to_membership(field, value)
        case FilterOperator.ANY | FilterOperator.ALL if isinstance(value, list | str):
            members = (f"({_to_membership(field, item)})" for item in value)
            return _JOINED[part.operator].join(members) or _empty_list(part.operator, field)
    raise SettingsError(
        f"the filter on {part.key!r} cannot be expressed: operator {part.operator.value!r} with the value "
        f"{_show(value)}; expected {_EXPECTED.get(part.operator, 'another operator')}"
    )


def _to_list(part: MetadataFilter) -> list[Any] | None:
    """The values of which a document must have one, or none; None if the filter's value is of another type."""
    if part.operator in (FilterOperator.IN, FilterOperator.NIN):
        return part.value if isinstance(part.value, list) else None
    return [] if part.value is None else [part.value]


def _to_list_equality(field: str, items: list[Any]) -> str:
    """The test, which is accepted on fields that hold no lists too; no list with NaN is equal to another."""
    if any(_is_nan(item) for item in items):
        return f"{field} in ()"
    return f"{field} == [{', '.join(map(_literal, items))}] or {field} in ()"


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
        return repr(value) if abs(value) < _MOST_DECIMALS else hex(value)
    return repr(value).replace("inf", "1e999")


def _empty_list(joined: FilterOperator, field: str) -> str:
    """The test for an empty list: ANY matches nothing, ALL matches every document that has the field."""
    return f"{field} in ()" if joined == FilterOperator.ANY else f"{field} is not None"


def _show(value: Any) -> str:
    try:
        return f"{value!r:.60}"
    except ValueError:  # a number that Python does not write in decimal digits
        return f"{type(value).__name__} of over 4,000 digits"
