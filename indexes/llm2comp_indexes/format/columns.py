"""Types of the columns that hold metadata, and a value as each type holds it."""

import math
from collections.abc import Iterator
from typing import Any, Literal

__all__ = ["Kind", "encodable", "encode_item", "encode_whole", "to_double", "to_kinds"]

Kind = Literal["integer", "number", "large", "flag", "text", "texts", "numbers", "flags", "items", "object"]
"""Types of a column. A field has one column for each type its values have."""


def to_kinds(value: Any) -> Iterator[tuple[Kind, Any]]:
    """Types of the columns that hold the value, with what they hold; none for null and NaN."""
    if isinstance(value, bool):
        yield "flag", value
    elif isinstance(value, int) and -(2**63) <= value < 2**63:
        yield "integer", value
    elif isinstance(value, int | float):
        if (number := to_double(value)) == value:
            yield "number", number
        elif isinstance(value, int):
            yield "large", encode_whole(value)
    elif isinstance(value, str):
        yield "text", encodable(value)
    elif isinstance(value, list | tuple):
        yield from _to_list_kinds(value)
    elif isinstance(value, dict):
        yield "object", [encodable(str(name)) for name in value]


def _to_list_kinds(items: list[Any] | tuple[Any, ...]) -> Iterator[tuple[Kind, list[Any]]]:
    texts, numbers, others = [], [], []
    rounded = False
    for item in items:
        if isinstance(item, str):
            texts.append(encodable(item))
        elif isinstance(item, int | float) and not isinstance(item, bool):
            number = to_double(item)
            if isinstance(item, float) or number == item:
                numbers.append(number)
            else:
                rounded = True
        else:
            others.append(item if isinstance(item, bool) else None)
    if numbers:
        yield "numbers", numbers
    if texts or not items:
        yield "texts", texts
    if others:
        yield "flags", others
    if rounded or bool(numbers) + bool(texts) + bool(others) > 1:
        yield "items", [encode_item(item) for item in items]


def encode_item(item: Any) -> str:
    """An item of a list as a text, the same for values that are equal in Python (1, 1.0 and True), else different.

    What filters have no values for (nulls, objects, lists) is a text that is that of no value.
    """
    if isinstance(item, str):
        return f"t{encodable(item)}"
    if isinstance(item, int | float):
        whole = isinstance(item, int) or item.is_integer()
        return f"i{encode_whole(int(item))}" if whole else f"f{float(item).hex()}"
    return "-"


def encode_whole(number: int) -> str:
    """A whole number of any size as hexadecimal digits, which Python writes and reads in linear time."""
    return f"{number:x}"


def to_double(value: float) -> float:
    """The nearest double; infinity beyond all doubles."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def encodable(text: str) -> str:
    """The text without half surrogate pairs, which JSON can escape but UTF-8 cannot encode."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
