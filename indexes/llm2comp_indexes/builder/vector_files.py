"""Existing vectors in .npy files, with their ids and documents, as blocks of rows."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp.corpus.id_set import IdSet
from llm2comp.corpus.text import open_text
from llm2comp.errors import CorpusError, IndexFolderError, SettingsError, one_line
from llm2comp_indexes.format.ids import IdTable, IdTableWriter

__all__ = ["NpySource", "NpyVectors", "VectorBlock", "VectorSource", "read_ids"]

_BLOCK = 2048
_NAMED = 5
"""Maximum number of ids that a message names."""


class VectorBlock(NamedTuple):
    """A block of rows.

    Attributes:
        rows: Documents or chunks.
        numbers: Number of the document of each row, in the source, (rows,).
        read: Reads their unit vectors (rows, dimension).
    """

    rows: list[Document]
    numbers: NDArray[np.int64]
    read: Callable[[], NDArray[np.float32]]


class VectorSource(Protocol):
    """Source of rows with vectors for `build_from_vectors`."""

    @property
    def documents(self) -> int:
        """Maximum number of documents, numbered from 0."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    @property
    def identity(self) -> Any:
        """JSON value that changes whenever the vectors do; a build is only resumed with the same value."""

    def blocks(self) -> Iterator[VectorBlock]:
        """All rows, in the order of the index; the rows of a document are consecutive."""


class _File(NamedTuple):
    path: Path
    dtype: np.dtype[Any]
    rows: int
    dimension: int
    offset: int
    order: Any

    def map(self) -> NDArray[Any]:
        return np.memmap(self.path, self.dtype, "r", self.offset, (self.rows, self.dimension), self.order)


def _load_array(path: Path) -> NDArray[Any]:
    """The array in the .npy file, mapped. Nothing is unpickled.

    Raises:
        IndexFolderError: It is missing, cut, or no .npy file.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(6)
        if magic != b"\x93NUMPY":
            raise ValueError("it does not begin as one")
        with np.errstate(over="raise"):  # a crafted shape must not wrap around to a small one
            return np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except FileNotFoundError as error:
        raise IndexFolderError(f"{path}: no such file; expected vectors written by numpy.save") from error
    except OSError as error:
        raise IndexFolderError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a crafted header makes numpy raise whatever Python's own parser does
        raise IndexFolderError(
            f"{path}: not a whole .npy file of numbers ({one_line(error)}); write it with numpy.save"
        ) from error


class NpyVectors:
    """The rows of several .npy files, in order. A file is mapped for a single read, so memory holds only rows in use.

    Attributes:
        rows: Number of rows in all files.
        dimension: Length of a row.
        identity: Size and modification time of each file.

    Raises:
        IndexFolderError: A file is missing, cut, or no .npy file of float16, float32 or float64 of shape (n,
            dimension); or dimensions differ.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        if not paths:
            raise SettingsError("no file of vectors is given: --vectors FILE.npy")
        self._files = [_describe(path) for path in paths]
        self.dimension = self._files[0].dimension
        for file in self._files:
            if file.dimension != self.dimension:
                raise IndexFolderError(
                    f"{file.path}: vectors of dimension {file.dimension}, those of {paths[0]} have {self.dimension}; "
                    "give files of one model"
                )
        self._starts = np.cumsum([0, *(file.rows for file in self._files)])
        self.rows = int(self._starts[-1])
        self.identity = [_state(path) for path in paths]

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The rows scaled to unit length, float32 (rows, dimension).

        Raises:
            IndexFolderError: A vector is zero or not finite; the message has its number, counted from 0.
        """
        vectors = np.empty((len(rows), self.dimension), np.float64)
        places = np.searchsorted(self._starts, rows, side="right") - 1
        for place in np.unique(places).tolist():
            chosen = places == place
            vectors[chosen] = self._files[place].map()[rows[chosen] - self._starts[place]]
        lengths = np.linalg.norm(vectors, axis=1)  # in double precision: the squares of large float32 numbers overflow
        usable = np.isfinite(lengths) & (lengths > 0)
        if not usable.all():
            row, place = (int(numbers[int(np.argmin(usable))]) for numbers in (rows, places))
            what = "zero, which has no direction" if np.isfinite(lengths[int(np.argmin(usable))]) else "not finite"
            raise IndexFolderError(
                f"{self._files[place].path}: row {row - int(self._starts[place])} (counted from 0) is {what}; leave "
                "it out, with its id"
            )
        unit: NDArray[np.float32] = (vectors / lengths[:, None]).astype(np.float32)
        return unit


def _state(path: Path) -> list[int]:
    """Size and modification time of the file."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _describe(path: Path) -> _File:
    array = _load_array(path)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8 or array.ndim != 2 or not array.shape[1]:
        raise IndexFolderError(
            f"{path}: holds {array.dtype} of shape {array.shape}, expected float32 (or float16, float64) of shape (n, "
            "dimension)"
        )
    order = "C" if array.flags.c_contiguous else "F"
    rows, dimension = array.shape
    return _File(path, array.dtype, rows, dimension, getattr(array, "offset", 0), order)


def read_ids(path: Path) -> Iterator[str]:
    """Ids from a text file, one per line with its spaces, or from a .npy file of strings or integers.

    Raises:
        CorpusError: The file is missing, or an id is empty, duplicate or not UTF-8; the message has its line, counted
            from 1.
    """
    seen = IdSet()
    for number, identifier in enumerate(_read_names(path), start=1):
        try:
            if not identifier:
                raise ValueError("an empty id; every vector needs one")
            if not seen.add(identifier):
                raise ValueError(f'the id "{identifier[:80]}" occurs twice; ids must be unique')
        except ValueError as error:
            raise CorpusError(f"{path}:{number}: {error}") from error
        yield identifier


def _read_names(path: Path) -> Iterator[str]:
    if path.suffix != ".npy":
        with open_text(path) as file:
            for line in file:
                yield line.removesuffix("\n")
        return
    array = _load_array(path)
    if array.ndim != 1 or array.dtype.kind not in "Uiu":
        raise CorpusError(
            f"{path}: holds {array.dtype} of shape {array.shape}, expected strings or whole numbers of shape (n,), or "
            "a text file of ids"
        )
    yield from map(str, array)


class NpySource:
    """Rows of .npy files with their ids and, if there is a corpus, the title, text and metadata of their documents.

    Without a corpus, a row has only an id, and rows are in the order of the vectors. With a corpus, rows are in the
    order of the documents, and each takes the vector of its id.

    Args:
        paths: The .npy files, in order.
        ids: File with the id of each row.
        corpus: Opens the documents as a stream; None: there are none.
        on_missing: Called with a message for an id without a document or a document without an id; None: either is an
            error.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        ids: Path,
        corpus: Callable[[], Iterable[Document]] | None = None,
        *,
        on_missing: Callable[[str], None] | None = None,
    ) -> None:
        self._vectors, self._ids, self._corpus, self._on_missing = NpyVectors(paths), ids, corpus, on_missing
        self.documents, self.dimension = self._vectors.rows, self._vectors.dimension
        self.identity = [*self._vectors.identity, _state(ids)]
        self._table = IdTableWriter()
        count = 0
        for identifier in read_ids(ids):
            count += 1
            if corpus:
                self._table.add([identifier])
        if count != self.documents:
            names = ", ".join(map(str, paths))
            raise CorpusError(
                f"{ids}: {count:,} ids, expected one for each of the {self.documents:,} vectors in {names}"
            )
        if not count:
            raise CorpusError(f"{ids}: empty: an index needs at least one vector")

    def blocks(self) -> Iterator[VectorBlock]:
        """All rows.

        Raises:
            CorpusError: A vector has no document, or a document no vector.
            IndexFolderError: A vector is zero or not finite.
        """
        return self._join(self._corpus()) if self._corpus else self._without_documents()

    def _block(self, rows: list[Document], numbers: NDArray[np.int64]) -> VectorBlock:
        return VectorBlock(rows, numbers, lambda: self._vectors.read(numbers))

    def _without_documents(self) -> Iterator[VectorBlock]:
        names = _read_names(self._ids)
        for first in range(0, self.documents, _BLOCK):
            rows = [Document(name, "", "") for name in islice(names, _BLOCK)]
            yield self._block(rows, np.arange(first, first + len(rows), dtype=np.int64))

    def _join(self, documents: Iterable[Document]) -> Iterator[VectorBlock]:
        used: NDArray[np.bool_] = np.zeros(self.documents, np.bool_)
        with TemporaryDirectory(prefix="llm2comp-ids-", ignore_cleanup_errors=True) as folder:
            self._table.write(Path(folder) / "ids")
            table = IdTable(Path(folder) / "ids", self.documents)
            remaining = iter(documents)
            while block := list(islice(remaining, _BLOCK)):
                matches = list(zip(block, table.find([document.id for document in block]), strict=True))
                missing = [document.id for document, numbers in matches if not len(numbers)]
                self._report_missing(missing, "a document without a vector")
                rows = [document for document, numbers in matches if len(numbers)]
                firsts = np.array([numbers[0] for _, numbers in matches if len(numbers)], np.int64)
                used[firsts] = True
                if rows:
                    yield self._block(rows, firsts)
        if not used.all():
            names = zip(_read_names(self._ids), used, strict=True)
            self._report_missing((name for name, is_used in names if not is_used), "a vector without a document")

    def _report_missing(self, names: Iterable[str], what: str) -> None:
        if self._on_missing is None:
            if first := list(islice(names, _NAMED + 1)):
                shown = ", ".join(f'"{name[:80]}"' for name in first[:_NAMED])
                shown += " and more" if len(first) > _NAMED else ""
                raise CorpusError(
                    f"{what}: {shown}; give the corpus that the vectors were made of, or leave these out "
                    '(on_error="skip", --on-error skip)'
                )
            return
        for name in names:
            self._on_missing(f'"{name[:80]}": {what}')
