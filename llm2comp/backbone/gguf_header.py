"""The header of a GGUF file: settings, and the size that its tensors need; arrays, such as vocabularies, are skipped.

The package gguf reads headers too, but keeps every word of the vocabulary as an array: seconds for 50,000 words.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

__all__ = ["GgufHeader", "read_header"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Formats of `struct` by the kind of a value."""
_STRING, _ARRAY = 8, 9
_ALIGNMENT = 32


class GgufHeader(NamedTuple):
    """Settings of a file without its arrays, and the size in bytes that its header and tensors take."""

    settings: dict[str, Any]
    size: int


def read_header(path: Path) -> GgufHeader:
    """The header of a file.

    Raises:
        ValueError: If it is no GGUF file, of another version, or damaged.
        EOFError: If it ends within the header.
    """
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("it does not begin with the letters GGUF")
        version, tensors, entries = _numbers(file, "IQQ")
        if version not in _VERSIONS:
            raise ValueError(f"version {version} of the format, expected 2 or 3")
        settings: dict[str, Any] = {}
        for _ in range(entries):
            name = _text(file)
            settings[name] = _value(file, _numbers(file, "I")[0])
        end = max((_end_of_tensor(file) for _ in range(tensors)), default=0)
        alignment = settings.get("general.alignment", _ALIGNMENT)
        return GgufHeader(settings, -(-file.tell() // alignment) * alignment + end)


def _end_of_tensor(file: BinaryIO) -> int:
    """The byte after a tensor, counted from the first byte of all tensors."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    _text(file)  # its name
    (dimensions,) = _numbers(file, "I")
    elements = math.prod(_numbers(file, f"{dimensions}Q"))
    kind, offset = _numbers(file, "IQ")
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    end: int = offset + elements // block * size
    return end


def _value(file: BinaryIO, kind: int) -> Any:
    """A value of a kind; None for an array, which is skipped."""
    if kind == _STRING:
        return _text(file)
    if kind != _ARRAY:
        return _numbers(file, _NUMBERS[kind])[0]
    element, count = _numbers(file, "IQ")
    if element in _NUMBERS:
        _skip(file, count * struct.calcsize(_NUMBERS[element]))
        return None
    for _ in range(count):
        _skip(file, _numbers(file, "Q")[0]) if element == _STRING else _value(file, element)
    return None


def _numbers(file: BinaryIO, kinds: str) -> tuple[Any, ...]:
    layout = struct.Struct(f"<{kinds}")
    return layout.unpack(_bytes(file, layout.size))


def _text(file: BinaryIO) -> str:
    return _bytes(file, _numbers(file, "Q")[0]).decode()


def _bytes(file: BinaryIO, count: int) -> bytes:
    content = file.read(count) if count <= os.fstat(file.fileno()).st_size else b""
    if len(content) < count:
        raise EOFError("it ends within its header")
    return content


def _skip(file: BinaryIO, count: int) -> None:
    file.seek(count, os.SEEK_CUR)
