"""LlamaIndex's metadata filters, translated to the filter syntax of llm2comp indexes."""

from typing import Any

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from llm2comp.errors import SettingsError

__all__ = ["to_where"]

_FORMS = {
    FilterOperator.EQ: "{field} == {value}",
    FilterOperator.NE: "{field} != {value}",
    FilterOperator.GT: "{field} > {value}",
    FilterOperator.GTE: "{field} >= {value}",
    FilterOperator.LT: "{field} < {value}",
    FilterOperator.LTE: "{field} <= {value}",
    FilterOperator.CONTAINS: "{value} in {field}",
    FilterOperator.TEXT_MATCH: "{value} in {field}",
    FilterOperator.IS_EMPTY: "not {field}",
}
_LIST_FORMS = {FilterOperator.IN: "{field} in ({items})", FilterOperator.NIN: "{field} not in ({items})"}
_JOINED = {FilterOperator.ANY: " or ", FilterOperator.ALL: " and "}


def to_where(filters: MetadataFilters | str | None) -> str | None:
    """The filters as a text for `SearchOptions.where`; None if there are none. A text is returned as it is.

    Groups may contain groups. A key is the name of a field; `journal.name` is a field of a field. As in the store of
    LlamaIndex (since 0.14.23), a document without the field matches only `!=` and `nin`. It also matches `is_empty`, as
    do 0 and False, because `not field` is true for them.

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
    field, operator, value = f"field[{part.key!r}]", part.operator, part.value
    if operator in _FORMS and (operator == FilterOperator.IS_EMPTY or not (value is None or isinstance(value, list))):
        return _FORMS[operator].format(field=field, value=repr(value))
    if operator in _LIST_FORMS and isinstance(value, list):
        return _LIST_FORMS[operator].format(field=field, items="".join(f"{item!r}, " for item in value))
    if operator in _JOINED and isinstance(value, list):
        return _JOINED[operator].join(f"{item!r} in {field}" for item in value) or _empty_list(operator, field)
    raise SettingsError(
        f"the filter on {part.key!r} cannot be expressed: operator {operator.value!r} with the value {_show(value)}"
    )


def _empty_list(operator: FilterOperator, field: str) -> str:
    """The test for an empty list: ANY matches nothing, ALL matches every document that has the field."""
    return f"{field} in ()" if operator == FilterOperator.ANY else f"{field} is not None"


def _show(value: Any) -> str:
    return f"{value!r:.60}"
