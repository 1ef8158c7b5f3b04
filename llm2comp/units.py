"""Sizes and durations as people write and read them."""

import re

from llm2comp.errors import SettingsError

__all__ = ["format_bytes", "format_ms", "parse_bytes"]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """Number of bytes in a size such as `500M` (10^6), `4G` (10^9), `4GiB` (2^30) or a plain number.

    Raises:
        SettingsError: The text is none of these, or zero.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match or not (size := _bytes(*match.groups())):
        raise SettingsError(f"memory is {text!r}, expected a size such as 500M, 4G or 16GiB")
    return size


def _bytes(number: str, unit: str, binary: str) -> int:
    power = "KMGT".find(unit.upper()) + 1 if unit else 0
    return int(float(number) * ((1024 if binary else 1000) ** power))


def format_bytes(count: float) -> str:
    """Size in decimal units with two to four digits: 512 bytes, 64 MB, 1.31 GB."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 999.5 * size else f"{count / size:,.0f} {unit}"
    return f"{count:.0f} bytes"


def format_ms(milliseconds: float) -> str:
    """Duration in milliseconds: 0.41 ms, 12 ms, 1,240 ms."""
    return f"{milliseconds:.2g} ms" if milliseconds < 10 else f"{milliseconds:,.0f} ms"
