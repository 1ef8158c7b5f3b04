"""One segment of an open index: vectors, structure, documents, metadata and BM25 index."""

from collections.abc import Callable
from functools import cached_property
from operator import gt
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import IndexFolderError, SettingsError
from llm2comp_indexes.filters.parse import Where
from llm2comp_indexes.format.arrays import map_array
from llm2comp_indexes.format.chunks import parent_id
from llm2comp_indexes.format.documents import DocumentReader
from llm2comp_indexes.format.files import check_content, check_mapped
from llm2comp_indexes.format.ids import IdTable
from llm2comp_indexes.format.manifest import Manifest
from llm2comp_indexes.format.mapping import Bytes, map_file
from llm2comp_indexes.format.memory_vectors import MemoryVectors, open_memory
from llm2comp_indexes.format.metadata import Metadata, open_metadata
from llm2comp_indexes.format.origins import Origins, read_origins
from llm2comp_indexes.format.segment import Names, Segment, segment_folder
from llm2comp_indexes.format.vectors import Neighbors, lowest, open_storage
from llm2comp_indexes.lexical.searcher import Lexical, open_lexical
from llm2comp_indexes.structures.structure import Effort, Structure, open_structure
from llm2comp_indexes.structures.types import IndexType, parse_type
from llm2comp_indexes.tuning.report import Report, read_report

__all__ = ["OpenSegment"]

_T = TypeVar("_T")
_NO_EFFORT = Effort()
_EXACT_ROWS = 50_000
"""Number of rows up to which all rows that pass a filter are compared, without the structure."""
_EXACT_SHARE = 0.02
"""Share of rows up to which all rows that pass a filter, or are not deleted, are compared."""
_EXACT_ANSWERS = 4
"""Number of rows per answer up to which all of them are compared."""
_GATHERED_SHARE = 1 / 256
"""Share of rows up to which they are read one by one; above it, FAISS skips the others faster."""
_FEW = 32
"""Number of candidates up to which a check whether they are in order already saves more time than it takes."""


class OpenSegment:
    """A segment for reading; a context manager that closes it. Any number of threads may use it.

    Attributes:
        rows: Number of rows in its files, deleted ones included.
        storage: The vectors.
        memory: The vectors of the memory tokens; None if the index does not store them.
        structure: The search structure; None if all vectors are compared, or the segment is not `searchable`.
        documents: Documents by row.
        alive: Mask of the rows that are not deleted, (rows,); None: no row is.
        ids: Rows by document id.
        report: Measurements made when the segment was built.
        lexical: The BM25 index; None if there is none, or the segment is not `searchable`.
    """

    def __init__(self, folder: Path, manifest: Manifest, segment: Segment, *, searchable: bool = True) -> None:
        """Opens the files; with `searchable=False`, for a change of the index, without those only needed to search."""
        self.folder, self.segment = segment_folder(folder, segment), segment
        self._source = folder.absolute(), manifest, segment, searchable
        self.rows = segment.rows
        self._chunked = manifest.options.has_chunks
        self.storage = open_storage(
            self.folder / Names.VECTORS, rows=segment.rows, dimension=manifest.dimension, store=manifest.options.store
        )
        memory = manifest.memory
        self.memory: MemoryVectors | None = (
            open_memory(self.folder / Names.MEMORY, memory, rows=segment.rows) if memory else None
        )
        record = segment.files.get(Names.STRUCTURE) if searchable else None
        self.structure = (
            open_structure(self.folder / Names.STRUCTURE, self._parse_type(), self.storage, record=record)
            if record
            else None
        )
        check_content(self.folder / Names.OFFSETS, segment.files[Names.OFFSETS])
        self.documents = DocumentReader(self.folder / Names.DOCUMENTS, self.folder / Names.OFFSETS, segment.rows)
        self.alive = self._read_alive()
        # All files are opened now: a writer may remove those of this commit, but an open file stays readable.
        if not searchable:
            check_content(self.folder / Names.IDS, segment.files[Names.IDS])  # a writer adds ids that it does not find
        self.ids = IdTable(self.folder / Names.IDS, self.rows)
        self.report: Report | None = self._checked(segment.report_file, read_report)
        lexical = searchable and any(name.startswith(f"{Names.LEXICAL}/") for name in segment.files)
        self.lexical: Lexical | None = (
            open_lexical(self.folder / Names.LEXICAL, self.rows, manifest.options.language) if lexical else None
        )
        self._columns: Bytes | None = (
            map_file(self.folder / Names.METADATA) if Names.METADATA in segment.files else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, self._source

    def use_gpus(self) -> None:
        """Copies the structure (of a flat segment, the vectors in float16) to the GPUs, which search it from now on.

        Raises:
            SettingsError: FAISS has no such index for GPUs, or they have too little memory.
        """
        structure = self.structure or Structure(IndexType("Flat"), self.rows, self.storage, None)
        structure.use_gpus()
        self.structure = structure

    def close(self) -> None:
        """Unmaps the documents; other files are closed with the object."""
        self.documents.close()

    def _parse_type(self) -> IndexType:
        """The type in the manifest, once its numbers are checked: FAISS would allocate memory for any."""
        try:
            return parse_type(self.segment.type, rows=self.rows, dimension=self.storage.dimension)
        except SettingsError as error:
            raise IndexFolderError(f"{self.folder}: damaged or altered: its {error}; build the index again") from error

    @cached_property
    def metadata(self) -> Metadata | None:
        """Columns of the metadata; None if no document has any."""
        if self._columns is None:
            return None
        path = self.folder / Names.METADATA
        check_mapped(path, self._columns, self.segment.files[Names.METADATA])
        return open_metadata(path, self.rows, content=self._columns)

    def read_queries(self) -> NDArray[np.float32] | None:
        """The query vectors (queries, dimension) that the segment was measured with; None if there are none.

        Raises:
            IndexFolderError: The file was altered.
        """
        queries = self._checked(self.segment.queries_file, lambda path: map_array(path, "<f4"))
        return None if queries is None else np.asarray(queries, np.float32).reshape(-1, self.storage.dimension)

    def read_origins(self) -> Origins:
        """Where each row came from; unknown if that was not recorded.

        Raises:
            IndexFolderError: The file was altered.
        """
        name = self.segment.origins_file
        recorded = None if name is None else self._checked(name, lambda path: read_origins(path, self.rows))
        return recorded or Origins.unknown(self.rows)

    def find_rows(self, identifiers: list[str]) -> list[list[int]]:
        """Rows of each document id that are not deleted, ascending."""
        candidates = self.ids.find(identifiers)
        return [
            [
                int(row)
                for row in rows
                if (self.alive is None or self.alive[row]) and self.document_id(int(row)) == identifier
            ]
            for identifier, rows in zip(identifiers, candidates, strict=True)
        ]

    def find_id_below(self, name: str, mark: str = "/") -> str | None:
        """The first document id that is the name or begins with the name and the mark, and is not deleted."""
        rows = (row for row in self.documents.rows_by_prefix(name) if self.alive is None or self.alive[row])
        ids = (self.document_id(row) for row in rows)
        return next(
            (identifier for identifier in ids if identifier == name or identifier.startswith(f"{name}{mark}")), None
        )

    def document_id(self, row: int) -> str:
        """Id of the document that the row is, or is a chunk of."""
        document = self.documents[row]
        return parent_id(document.id, document.metadata) if self._chunked else document.id

    def allowed(self, where: Where | None) -> NDArray[np.bool_] | None:
        """Mask of the rows that pass the filter and are not deleted, (rows,); None: all rows."""
        if where is None:
            return self.alive
        mask = where.mask(self.metadata, self.rows)
        return mask if self.alive is None else mask & self.alive

    def search(self, queries: NDArray[np.float32], k: int, *, effort: Effort, where: Where | None = None) -> Neighbors:
        """The k best rows for each query (queries, dimension) that pass the filter and are not deleted; else row -1.

        Scores are exact, those of the stored vectors. If few rows are left, all of them are compared. Otherwise the
        structure is searched, with an effort that grows as the share of rows left shrinks, since answers are then
        farther away. It also grows if fewer than k rows are found, as few lists hold few rows.
        """
        allowed = self.allowed(where)
        left = self.rows if allowed is None else int(np.count_nonzero(allowed))
        filtered = where is not None and left < self.rows and left <= _EXACT_ROWS
        if self.structure is None or filtered or left <= max(_EXACT_SHARE * self.rows, _EXACT_ANSWERS * k):
            return self._compare(queries, k, allowed, left)
        tuned = self.report.point.effort if self.report else _NO_EFFORT
        chosen = _scaled(_overlaid(effort, tuned), self.rows / left)
        best = self._try(queries, k, chosen, allowed)
        while lowest(best.rows[:, -1]) < 0:
            lacking = best.rows[:, -1] < 0
            harder = _scaled(chosen, 4) if max(chosen.nprobe or 0, chosen.ef_search or 0) < self.rows else chosen
            more = (
                self._compare(queries[lacking], k, allowed, left)
                if harder == chosen
                else self._try(queries[lacking], k, harder, allowed)
            )
            best.scores[lacking], best.rows[lacking] = more
            if harder == chosen:
                break
            chosen = harder
        return best

    def _try(
        self, queries: NDArray[np.float32], k: int, effort: Effort, allowed: NDArray[np.bool_] | None
    ) -> Neighbors:
        """The k best rows that the structure finds with this effort."""
        assert self.structure is not None
        count = min(k * (effort.rerank or 1), self.rows)
        return self._rescore(queries, k, self.structure.find(queries, count, effort=effort, allowed=allowed).rows)

    def _compare(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None, left: int) -> Neighbors:
        if allowed is None or left > _GATHERED_SHARE * self.rows:
            return self.storage.search(queries, k, allowed=allowed)
        return self._rescore(queries, k, np.broadcast_to(np.flatnonzero(allowed), (len(queries), left)))

    def _rescore(self, queries: NDArray[np.float32], k: int, candidates: NDArray[np.int64]) -> Neighbors:
        """The k best of each query's candidates (queries, any number), by the stored vectors."""
        if len(queries) == 1:  # a single query needs no padding
            scores, rows = self._order(queries[0], candidates[0], k)
            if len(rows) == k:
                return Neighbors(scores[None], rows[None])
        best = Neighbors(np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64))
        for query, its_candidates, scores_out, rows_out in zip(queries, candidates, *best, strict=True):
            scores, rows = self._order(query, its_candidates, k)
            scores_out[: len(rows)], rows_out[: len(rows)] = scores, rows
        return best

    def _order(self, query: NDArray[np.float32], rows: NDArray[np.int64], k: int) -> Neighbors:
        """The k best of the query's candidates, without those below 0."""
        if lowest(rows) < 0:
            rows = rows[rows >= 0]
        scores = self.storage.scores(query, rows)
        if len(rows) <= _FEW and all(map(gt, (listed := scores.tolist()), listed[1:])):  # FAISS's mostly are
            return Neighbors(scores[:k], rows[:k])
        best = np.lexsort((rows, -scores))[:k]
        return Neighbors(scores[best], rows[best])

    def _read_alive(self) -> NDArray[np.bool_] | None:
        name = self.segment.deleted_file
        if name is None:
            return None
        check_content(self.folder / name, self.segment.files[name])
        bits = np.fromfile(self.folder / name, np.uint8)
        return ~np.unpackbits(bits, count=self.rows, bitorder="little").astype(np.bool_)

    def _checked(self, name: str | None, read: Callable[[Path], _T]) -> _T | None:
        record = None if name is None else self.segment.files.get(name)
        if name is None or record is None:
            return None
        check_content(self.folder / name, record)
        return read(self.folder / name)


def _reopen(folder: Path, manifest: Manifest, segment: Segment, searchable: bool) -> OpenSegment:
    """The segment that was pickled or copied, opened again; files that a later commit removed are an error."""
    return OpenSegment(folder, manifest, segment, searchable=searchable)


def _overlaid(effort: Effort, tuned: Effort) -> Effort:
    """The effort, with the tuned one in place of every None."""
    if effort == _NO_EFFORT:
        return tuned
    return Effort(effort.nprobe or tuned.nprobe, effort.ef_search or tuned.ef_search, effort.rerank or tuned.rerank)


def _scaled(effort: Effort, factor: float) -> Effort:
    """The effort with nprobe and ef_search times the factor; a structure limits them to its size."""
    if factor <= 1:
        return effort
    nprobe, ef_search = (
        None if part is None else int(np.ceil(part * factor)) for part in (effort.nprobe, effort.ef_search)
    )
    return Effort(nprobe, ef_search, effort.rerank)
