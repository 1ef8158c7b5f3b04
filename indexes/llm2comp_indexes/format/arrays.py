"""One-dimensional arrays in .npy files; the header is compared byte by byte before a file is mapped."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import IndexFolderError
from llm2comp_indexes.format.files import FileRecord, HashedFile
from llm2comp_indexes.format.mapping import map_file

__all__ = ["ArrayFile", "map_array"]

_HEADER_BYTES = 128


def _to_header(dtype: np.dtype[Any], count: int) -> bytes:
    """The header of numpy's format 1.0, always of one length."""
    fields = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({count},), }}"
    return (
        b"\x93NUMPY\x01\x00"
        + (_HEADER_BYTES - 10).to_bytes(2, "little")
        + fields.ljust(_HEADER_BYTES - 11).encode()
        + b"\n"
    )


class ArrayFile:
    """A new .npy file of `count` numbers, written piece by piece; `np.load` reads it too."""

    def __init__(self, path: Path, dtype: str, count: int) -> None:
        self._dtype = np.dtype(dtype)
        self._remaining = count
        self._file = HashedFile(path)
        self._file.write(_to_header(self._dtype, count))

    def append(self, values: NDArray[Any]) -> None:
        """Writes the next numbers, converted to the file's type."""
        self._remaining -= len(values)
        self._file.write(values.astype(self._dtype, copy=False).tobytes())

    def finish(self) -> FileRecord:
        """Record of the file, after it is on the device."""
        if self._remaining:
            raise ValueError(f"an array is {self._remaining} numbers short of what its header says")
        return self._file.finish()

    def close(self) -> None:
        """Closes the file. Without `finish` it is not durable."""
        self._file.__exit__()


def map_array(path: Path, dtype: str, count: int | None = None) -> NDArray[Any]:
    """The array in the file, mapped read-only; nothing is unpickled or allocated.

    Args:
        path: A file that `ArrayFile` wrote.
        dtype: Type of the numbers.
        count: Number of them; None: as many as the file's size allows.

    Raises:
        IndexFolderError: The file is missing, or is not an array of that type and count.
    """
    kind = np.dtype(dtype)
    try:
        content = map_file(path)
        header, size = content[:_HEADER_BYTES], len(content)
        expected = (size - _HEADER_BYTES) // kind.itemsize if count is None else count
        if size != _HEADER_BYTES + expected * kind.itemsize or header != _to_header(kind, expected):
            raise IndexFolderError(
                f"{path}: not an array of {expected:,} numbers {kind}; the file was cut or altered: build the index "
                "again"
            )
        if not expected:
            return np.empty(0, dtype=kind)
        return np.frombuffer(content, kind, expected, _HEADER_BYTES)
    except OSError as error:
        raise IndexFolderError(f"{path}: {error.strerror or error}; build the index again") from error
