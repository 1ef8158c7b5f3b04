"""Documents that earlier runs encoded, as a mapped file of sorted hashes: 16 bytes a document, on disk."""

import io
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

import numpy as np

from llm2comp.atomic import write_file

__all__ = ["DoneDocuments", "write_done"]

_BYTES = 16


def _hash(identifier: str) -> bytes:
    return blake2b(identifier.encode("utf-8", "surrogatepass"), digest_size=_BYTES).digest()


def write_done(path: Path, identifiers: Iterable[str]) -> int:
    """Number of the documents whose hashes were written to the file."""
    hashes = np.fromiter(map(_hash, identifiers), dtype=f"S{_BYTES}")
    hashes.sort()
    content = io.BytesIO()
    np.save(content, hashes)
    write_file(path, [content.getvalue()])
    return len(hashes)


class DoneDocuments:
    """The documents in a file that `write_done` wrote."""

    def __init__(self, path: Path) -> None:
        self._hashes = np.load(path, mmap_mode="r")

    def __contains__(self, identifier: str) -> bool:
        key = np.array(_hash(identifier), self._hashes.dtype)
        place = int(np.searchsorted(self._hashes, key))
        return place < len(self._hashes) and bool(self._hashes[place] == key)
