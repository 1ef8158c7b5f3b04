"""Filters as Qdrant's conditions on the payload, where those mean the same; the others are refused in words.

A condition of Qdrant on a list is true if any item fulfils it, so the types of a field decide what can be asked.
"""

import math
from collections.abc import Mapping
from typing import Any as Anything

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

__all__ = ["to_filter"]

_NUMBERS = {"integer", "number"}
_LISTS = {"texts", "numbers", "flags", "items"}


def to_filter(where: Where, fields: Mapping[str, tuple[Kind, ...]] | None, models: Anything) -> Anything:
    """The filter as a `models.Filter`.

    Args:
        where: The filter.
        fields: Types of the values of each metadata field; None: not known.
        models: The module `qdrant_client.models`.

    Raises:
        SettingsError: Qdrant has no condition of the same meaning.
    """
    if fields is None:
        raise SettingsError(
            "where: Qdrant cannot filter a table that does not say which types its fields have; push the index to it"
        )
    return models.Filter(must=[_Translator(fields, models).condition(where.condition)])


class _Translator:
    def __init__(self, fields: Mapping[str, tuple[Kind, ...]], models: Anything) -> None:
        self._fields, self._models = fields, models

    def condition(self, condition: Condition) -> Anything:
        """The condition of Qdrant."""
        match condition:
            case All(parts=parts):
                return self._models.Filter(must=[self.condition(part) for part in parts])
            case Any(parts=parts):
                return self._models.Filter(should=[self.condition(part) for part in parts])
            case Not(part=part):
                return self._models.Filter(must_not=[self.condition(part)])
            case _:
                return self._test(condition)

    def _test(self, test: FieldTest) -> Anything:
        kinds = set(self._fields.get(test.field, ()))
        if not kinds:
            return self._never(test.field)
        if "object" in kinds:
            raise _refused(test, "it holds objects, whose names Qdrant does not look into")
        match test:
            case Present():
                if kinds & _LISTS:
                    raise _refused(test, "of lists, Qdrant takes an empty one for a missing one")
                return self._models.Filter(must_not=[self._empty(test.field)])
            case Truth():
                return self._truth(test, kinds)
            case Compare(operator=operator, value=value):
                self._check_scalar(test, kinds, value)
                return self._compare(test, operator, value)
            case Among(values=values):
                for value in values:
                    self._check_scalar(test, kinds, value)
                if not values:
                    return self._never(test.field)  # an empty `should` would let all rows through
                return self._models.Filter(should=[self._compare(test, "==", value) for value in values])
            case Contains(value=value):
                return self._contains(test, kinds, value)
            case SameList():
                raise _refused(test, "Qdrant does not compare whole lists")
        raise _refused(test, f"{type(test).__name__} is not known to it")

    def _check_scalar(self, test: FieldTest, kinds: set[Kind], value: Value) -> None:
        if kinds & _LISTS:
            raise _refused(test, "it holds lists too, of which Qdrant compares the items")
        if not isinstance(value, str) and "flag" in kinds and kinds & _NUMBERS:
            raise _refused(test, "it holds numbers beside True and False, which Qdrant does not tell apart")
        if not isinstance(value, str | bool) and "large" in kinds:
            raise _refused(test, "it holds whole numbers of more than 64 bits")

    def _compare(self, test: FieldTest, operator: str, value: Value) -> Anything:
        if isinstance(value, str) and operator != "==":
            raise _refused(test, "Qdrant does not order texts")
        if isinstance(value, str | bool):
            return self._match(test.field, value)
        number = _to_double(test, value)
        names = {"==": ("gte", "lte"), "<": ("lt",), "<=": ("lte",), ">": ("gt",), ">=": ("gte",)}[operator]
        return self._field(test.field, range=self._models.Range(**dict.fromkeys(names, number)))

    def _truth(self, test: FieldTest, kinds: set[Kind]) -> Anything:
        if kinds & _LISTS and kinds - _LISTS:
            raise _refused(test, "it holds lists beside other values")
        falsehoods = [self._empty(test.field)]
        if "flag" in kinds:
            falsehoods.append(self._match(test.field, False))
        if kinds & _NUMBERS:
            falsehoods.append(self._field(test.field, range=self._models.Range(gte=0, lte=0)))
        if "text" in kinds:
            falsehoods.append(self._match(test.field, ""))
        return self._models.Filter(must_not=falsehoods)

    def _contains(self, test: FieldTest, kinds: set[Kind], value: Value) -> Anything:
        if kinds - _LISTS:
            if "text" in kinds and isinstance(value, str):
                raise _refused(test, "Qdrant finds words in texts, not any part of them to the letter")
            raise _refused(test, "it holds other values than lists, in which Qdrant would look too")
        if isinstance(value, str):
            return self._match(test.field, value)
        if {"flags", "numbers"} <= kinds:
            raise _refused(test, "its lists hold numbers beside True and False, which Qdrant does not tell apart")
        if isinstance(value, bool):
            return self._match(test.field, value)
        number = _to_double(test, value)
        return self._field(test.field, range=self._models.Range(gte=number, lte=number))

    def _match(self, field: str, value: str | bool) -> Anything:
        plain = encodable(value).replace("\0", "\ufffd") if isinstance(value, str) else value
        return self._field(field, match=self._models.MatchValue(value=plain))

    def _field(self, field: str, **condition: Anything) -> Anything:
        return self._models.FieldCondition(key=self._key(field), **condition)

    def _never(self, field: str) -> Anything:
        """A condition that no row fulfils."""
        return self._models.Filter(must=[self._empty(field)], must_not=[self._empty(field)])

    def _empty(self, field: str) -> Anything:
        return self._models.IsEmptyCondition(is_empty=self._models.PayloadField(key=self._key(field)))

    def _key(self, field: str) -> str:
        """The path of a field in the payload; a name with dots is a field within an object, if there is that object."""
        path, name = ["metadata"], ""
        for part in field.split("."):
            name = f"{name}.{part}" if name else part
            if "object" in self._fields.get(".".join([*path[1:], name]), ()):
                path.append(name)
                name = ""
        return ".".join(map(_quote, [*path, name] if name else path))


def _to_double(test: FieldTest, value: Value) -> float:
    number = float(value) if not isinstance(value, int) or abs(value) < 1 << 1000 else math.inf
    if not math.isfinite(number) or number != value:
        raise _refused(test, f"{value!r:.40} is not a number that Qdrant compares exactly")
    return number


def _quote(name: str) -> str:
    if name and all(letter.isascii() and (letter.isalnum() or letter in "_-") for letter in name):
        return name
    if '"' in name or not name:
        raise SettingsError(f"where: the field {name!r:.80} cannot be named in Qdrant")
    return f'"{name}"'


def _refused(test: FieldTest, why: str) -> SettingsError:
    return refused_filter(test, why, "Qdrant")
