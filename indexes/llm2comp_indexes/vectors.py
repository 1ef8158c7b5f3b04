"""The vectors of a segment: a FAISS flat index in its own file format, whose header is checked before FAISS reads it."""

import struct
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from llm2comp.errors import IndexFolderError, LLM2CompError
from llm2comp_indexes.checked_files import FileRecord, HashedFile, check_content

if TYPE_CHECKING:
    from faiss import IndexFlatIP

__all__ = ["flat_file_bytes", "import_faiss", "new_flat", "read_flat", "write_flat"]

# Kind, dimension, vectors, two unused numbers, trained, metric (0: inner product), floats that follow.
_HEADER = struct.Struct("<4siqqqBiQ")


def import_faiss() -> ModuleType:
    """The `faiss` module.

    Raises:
        LLM2CompError: It is not installed; the message has the command.
    """
    try:
        import faiss
    except ImportError as error:
        raise LLM2CompError('indexes need FAISS, which is not installed: pip install "llm2comp[cpu]" (or "llm2comp[gpu]", never both)') from error
    return faiss


def new_flat(dimension: int) -> "IndexFlatIP":
    """An empty exact index by inner product."""
    return cast("IndexFlatIP", import_faiss().IndexFlatIP(dimension))


def flat_file_bytes(documents: int, dimension: int) -> int:
    """Size of the file of so many vectors."""
    return _HEADER.size + 4 * documents * dimension


def write_flat(index: "IndexFlatIP", path: Path) -> FileRecord:
    """Record of the new file that holds the index."""
    faiss = import_faiss()
    with HashedFile(path) as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))  # FAISS's own writer does not report a full disk at close
        return file.finish()


def read_flat(path: Path, record: FileRecord, documents: int, dimension: int) -> "IndexFlatIP":
    """The index in the file, after checksum and header say that it is a flat one of this size.

    Raises:
        IndexFolderError: They don't. FAISS itself trusts a file and may crash on a crafted one.
    """
    faiss = import_faiss()
    check_content(path, record)
    with path.open("rb") as file:
        kind, width, count, _, _, trained, metric, floats = _HEADER.unpack(file.read(_HEADER.size))
    if (kind, width, count, trained, metric, floats) != (b"IxFI", dimension, documents, 1, 0, documents * dimension):
        raise IndexFolderError(f"{path}: not a flat FAISS index of {documents:,} vectors of {dimension} numbers; build the index again")
    return cast("IndexFlatIP", faiss.read_index(str(path)))
