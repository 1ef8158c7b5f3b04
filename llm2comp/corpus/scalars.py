"""Scalar values of rows: which are missing, the text of an id, and what JSON can hold."""

import math
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

__all__ = ["id_text", "is_missing", "to_json"]

_EXACT_FLOATS = 2**53  # whole numbers below it are exact as floats


def is_missing(value: object) -> bool:
    """Whether the value says that there is none: None, NaN of any type, NaT of pandas and numpy, and pandas' NA."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, Decimal):
        return value.is_nan()
    if isinstance(value, float):
        return math.isnan(value)
    return _is_numpy(value) and str(value) in ("NaT", "nan")


def id_text(value: object) -> str:
    """Text of an id of any scalar type but bool.

    Floats that are whole numbers lose their fraction, as pandas makes them of whole numbers in a column with gaps:
    12.0 is the id "12". Bytes are UTF-8, or else written in hexadecimal digits.

    Raises:
        ValueError: The value is no scalar, a bool, an infinite number or an empty string.
    """
    value = None if is_missing(value) else _from_numpy(value)
    text = ""
    if isinstance(value, str):
        text = value
    elif isinstance(value, bytes):
        text = _bytes_text(value)
    elif isinstance(value, float) and math.isfinite(value):
        text = str(int(value)) if value.is_integer() and abs(value) < _EXACT_FLOATS else str(value)
    elif isinstance(value, Decimal) and value.is_finite():
        text = format(value, "f")
    elif isinstance(value, date | time):
        text = value.isoformat()
    elif isinstance(value, int | UUID | timedelta) and not isinstance(value, bool):
        text = str(value)
    if not text:
        raise ValueError(f"{value!r:.40}, expected a string or a number")
    return text


def _bytes_text(value: bytes) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return value.hex()
    return text if text.isprintable() else value.hex()


def to_json(value: Any) -> Any:
    """The value in JSON types, without entries of other types; missing values are null."""
    value = None if is_missing(value) else _from_numpy(value)
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items() if _fits_json(item)}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value if _fits_json(item)]
    if isinstance(value, float) and math.isinf(value):
        return None
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal | UUID | timedelta) else value


def _fits_json(value: object) -> bool:
    return is_missing(value) or isinstance(
        _from_numpy(value), dict | list | tuple | str | int | float | date | time | timedelta | Decimal | UUID
    )


def _is_numpy(value: object) -> bool:
    return type(value).__module__ == "numpy" and hasattr(value, "dtype")


def _from_numpy(value: Any) -> Any:
    """The value with Python's types in place of numpy's; dates of numpy become ISO text."""
    if not _is_numpy(value):
        return value
    return str(value) if value.dtype.kind in "mM" and not value.shape else value.tolist()
