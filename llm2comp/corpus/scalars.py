"""Values of rows: which are missing, the text of an id, what JSON can hold, and which are the same."""

import math
import re
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

__all__ = ["id_text", "is_missing", "is_same", "to_json"]

_FLOAT_BITS = 53  # whole numbers below 2**53 are exact in Python's floats
_NO_TEXT = re.compile(r"hex:|.*[\x00-\x1f\x7f-\x9f]", re.DOTALL)  # of bytes as an id: control characters, or our prefix


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

    Floats and decimals that are whole numbers lose their fraction, for pandas makes floats of whole numbers in a column
    with gaps: 12.0 is the id "12", as 12 is. Bytes are their UTF-8 text; those that are not UTF-8, have a control
    character, or begin with "hex:" are "hex:" and hexadecimal digits, so that no two values have the same text.

    Raises:
        ValueError: The value is no scalar, an infinite number, an empty string, or a bool: a column of truth values
            cannot tell documents apart, and "true" could be another document's id. Or a whole number as a float of a
            size (2**53, 2**24 in 32 bits) at which one float stands for several whole numbers.
    """
    value = None if is_missing(value) else value
    if _is_numpy(value) and not _is_numpy_float(value):
        value = _from_numpy(value)
    text = ""
    if isinstance(value, str):
        text = value
    elif isinstance(value, bytes):
        text = _bytes_text(value)
    elif (isinstance(value, float) or _is_numpy_float(value)) and math.isfinite(value):  # type: ignore[arg-type]
        text = _float_text(value)
    elif isinstance(value, Decimal) and value.is_finite():
        text = _decimal_text(value)
    elif isinstance(value, date | time):
        text = value.isoformat()
    elif isinstance(value, bool):
        raise ValueError(f"a truth value ({str(value).lower()}), expected a string or a number")
    elif isinstance(value, int | UUID | timedelta):
        text = str(value)
    if not text:
        raise ValueError(f"{value!r:.40}, expected a string or a number")
    return text


def _float_text(value: Any) -> str:
    """The shortest text of a finite float of Python or numpy; a whole number has no fraction."""
    if value != math.floor(value):
        return str(value)
    limit = 2 ** (_finfo(value).nmant + 1 if _is_numpy(value) else _FLOAT_BITS)
    if abs(value) >= limit:
        raise ValueError(
            f"the floating-point number {value}, which stands for several whole numbers, expected one below {limit:,}; "
            "write it as an integer or a string"
        )
    return str(int(value))


def _finfo(value: Any) -> Any:
    import numpy

    return numpy.finfo(value.dtype)


def _decimal_text(value: Decimal) -> str:
    whole = value.to_integral_value()
    return format(value if whole != value else whole or abs(whole), "f")  # of zero, the one without a sign


def _bytes_text(value: bytes) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return f"hex:{value.hex()}"
    return f"hex:{value.hex()}" if _NO_TEXT.match(text) else text


def to_json(value: Any, name: str = "value", left_out: set[str] | None = None) -> Any:
    """The value in JSON types, without entries of other types; missing values are null.

    Args:
        value: Of any type.
        name: Field that it is in, for the error.
        left_out: Gets the names of fields that are left out, or have values left out, with their types.

    Raises:
        ValueError: A number is infinite, which JSON cannot hold.
    """
    value = None if is_missing(value) else _from_numpy(value)
    if isinstance(value, dict):
        return {
            str(key): to_json(item, str(key), left_out)
            for key, item in value.items()
            if _fits_json(item, key, left_out)
        }
    if isinstance(value, list | tuple):
        return [to_json(item, name, left_out) for item in value if _fits_json(item, name, left_out)]
    if (isinstance(value, float) and math.isinf(value)) or (isinstance(value, Decimal) and value.is_infinite()):
        raise ValueError(f"{name!r:.40} is {float(value)}, which metadata cannot hold; write null or a finite number")
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal | UUID | timedelta) else value


def is_same(first: Any, second: Any) -> bool:
    """Whether two JSON values are the same: 1 is 1.0, but neither is true, also within lists and objects."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(is_same(item, second[key]) for key, item in first.items())
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(is_same, first, second))
    return isinstance(first, bool) == isinstance(second, bool) and bool(first == second)


def _fits_json(value: object, name: object, left_out: set[str] | None) -> bool:
    fits = is_missing(value) or isinstance(
        _from_numpy(value), dict | list | tuple | str | int | float | date | time | timedelta | Decimal | UUID
    )
    if not fits and left_out is not None:
        left_out.add(f"{name!s:.40} ({type(value).__name__})")
    return fits


def _is_numpy(value: object) -> bool:
    return type(value).__module__ == "numpy" and hasattr(value, "dtype")


def _is_numpy_float(value: Any) -> bool:
    return _is_numpy(value) and value.dtype.kind == "f" and not value.shape


def _from_numpy(value: Any) -> Any:
    """The value with Python's types in place of numpy's; dates of numpy become ISO text."""
    if not _is_numpy(value):
        return value
    return str(value) if value.dtype.kind in "mM" and not value.shape else value.tolist()
