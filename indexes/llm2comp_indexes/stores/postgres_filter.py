"""Filters as SQL over the `jsonb` column of metadata. They mean the same as over an index, to the row."""

import json
import math
from collections.abc import Iterator
from itertools import combinations, product
from typing import Any as Anything
from typing import NamedTuple

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

__all__ = ["Sql", "to_sql"]

_MOST_DOTS = 4
_MOST_FLAGS = 6
_EMPTY = "('null'::jsonb, 'false', '0', '\"\"', '[]', '{}')"


class Sql(NamedTuple):
    """A condition, with `%s` for each of its parameters."""

    text: str
    parameters: list[Anything]


def to_sql(where: Where) -> Sql:
    """The filter as the condition of a WHERE clause.

    Raises:
        SettingsError: It has a number that is not finite, a name with many dots, or a long list of 0, 1, True or False.
    """
    return _condition(where.condition)


def _condition(condition: Condition) -> Sql:
    match condition:
        case All(parts=parts):
            return _joined(" AND ", parts)
        case Any(parts=parts):
            return _joined(" OR ", parts)
        case Not(part=part):
            inner = _condition(part)
            return Sql(f"(NOT COALESCE({inner.text}, false))", inner.parameters)  # a missing field gives NULL
        case _:
            return _test(condition)


def _joined(word: str, parts: tuple[Condition, ...]) -> Sql:
    each = [_condition(part) for part in parts]
    return Sql(f"({word.join(part.text for part in each)})", [value for part in each for value in part.parameters])


def _test(test: FieldTest) -> Sql:
    value = _value(test.field)
    match test:
        case Present():
            return Sql(f"({value.text} <> 'null'::jsonb)", value.parameters)
        case Truth():
            return Sql(f"({value.text} NOT IN {_EMPTY})", value.parameters)
        case Compare(operator="==", value=constant):
            return _compare(value, "= %s::jsonb", _json(constant))
        case Compare(operator=operator, value=str(constant)):
            return Sql(
                f"(jsonb_typeof({value.text}) = 'string' AND ({value.text} #>> '{{}}') COLLATE \"C\" {operator} %s)",
                [*value.parameters, *value.parameters, _text(constant)],
            )
        case Compare(operator=operator, value=constant):
            return Sql(
                f"(jsonb_typeof({value.text}) = 'number' AND {value.text} {operator} %s::jsonb)",
                [*value.parameters, *value.parameters, _json(constant)],
            )
        case Among(values=constants):
            return _compare(value, "= ANY(%s::jsonb[])", [_json(constant) for constant in constants])
        case Contains(value=str(constant)):
            # a substring of a text, an item of a list, or a name in an object
            return Sql(
                f"(CASE jsonb_typeof({value.text}) WHEN 'string' THEN "
                f"strpos(({value.text} #>> '{{}}') COLLATE \"C\", %s) > 0 "
                f"ELSE jsonb_typeof({value.text}) IN ('array', 'object') AND {value.text} ? %s END)",
                [*value.parameters * 2, _text(constant), *value.parameters * 2, _text(constant)],
            )
        case Contains(value=constant):
            return Sql(
                f"(jsonb_typeof({value.text}) = 'array' AND {value.text} @> %s::jsonb)",
                [*value.parameters * 2, _json(constant)],
            )
        case SameList(values=constants):
            return _compare(value, "= ANY(%s::jsonb[])", list(_equal_lists(constants)))
    raise SettingsError(f"PostgreSQL cannot filter by {type(test).__name__} of {test.field}")


def _compare(value: Sql, text: str, parameter: Anything) -> Sql:
    return Sql(f"({value.text} {text})", [*value.parameters, parameter])


def _value(field: str) -> Sql:
    """The value of a field: a name with dots is a field within an object, or has the dots itself."""
    parts = field.split(".")
    if len(parts) == 1:
        return Sql("metadata -> %s::text", [_text(field)])
    if len(parts) > _MOST_DOTS + 1:
        raise SettingsError(f"where: {field!r:.80} has more than {_MOST_DOTS} dots, which PostgreSQL is not asked for")
    paths = [[_text(name) for name in path] for path in _splits(parts)]
    choices = ", ".join("NULLIF(metadata #> %s::text[], 'null'::jsonb)" for _ in paths)
    return Sql(f"COALESCE({choices})", paths)


def _splits(parts: list[str]) -> Iterator[list[str]]:
    """All ways of reading a name with dots as a path."""
    places = range(1, len(parts))
    for count in range(len(parts) - 1, -1, -1):
        for cuts in combinations(places, count):
            bounds = [0, *cuts, len(parts)]
            yield [".".join(parts[start:end]) for start, end in zip(bounds, bounds[1:], strict=False)]


def _json(value: Value) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"where: {value} is not finite, which a store cannot compare with")
    return json.dumps(_text(value) if isinstance(value, str) else value, ensure_ascii=False)


def _text(text: str) -> str:
    """The text as the table holds it."""
    return encodable(text).replace("\0", "\ufffd")


def _equal_lists(values: tuple[Value, ...]) -> Iterator[str]:
    """The lists that are equal in Python, in which 1 and True are the same, and 0 and False."""
    choices = [(value, bool(value)) if not isinstance(value, str) and value in (0, 1) else (value,) for value in values]
    choices = [(int(both[0]), both[1]) if len(both) == 2 else both for both in choices]
    if sum(len(both) == 2 for both in choices) > _MOST_FLAGS:
        raise SettingsError(
            f"where: a list with more than {_MOST_FLAGS} of 0, 1, True and False, which PostgreSQL is not asked for"
        )
    for items in product(*choices):
        yield "[" + ", ".join(_json(item) for item in items) + "]"
