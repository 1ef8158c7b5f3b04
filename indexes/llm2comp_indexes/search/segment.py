"""One segment of an open index: its vectors, structure, documents, metadata and BM25 index, each mapped or loaded when first needed."""

from collections.abc import Callable
from functools import cached_property
from operator import gt
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import IndexFolderError, SettingsError
from llm2comp_indexes.filters.parse import Where
from llm2comp_indexes.format.arrays import map_array
from llm2comp_indexes.format.documents import DocumentReader
from llm2comp_indexes.format.files import check_content, check_mapped
from llm2comp_indexes.format.ids import IdTable
from llm2comp_indexes.format.manifest import Manifest, Names, Segment, segment_folder
from llm2comp_indexes.format.mapping import Bytes, map_file
from llm2comp_indexes.format.metadata import Metadata, open_metadata
from llm2comp_indexes.format.segment_writer import parent_id
from llm2comp_indexes.format.vectors import Neighbors, lowest, open_storage
from llm2comp_indexes.lexical.searcher import Lexical, open_lexical
from llm2comp_indexes.structures.structure import Effort, Structure, open_structure
from llm2comp_indexes.structures.types import IndexType, parse_type
from llm2comp_indexes.tuning.report import Report, read_report

__all__ = ["OpenSegment"]

_T = TypeVar("_T")
_NONE = Effort()
_EXACT_ROWS = 50_000
_EXACT_SHARE = 0.02
"""Where a filter leaves at most so many rows, or so small a share of them, all that are left are compared; deletions alone must leave so small a share."""
_EXACT_ANSWERS = 4
"""Where at most so many times as many rows are left as answers are wanted, all are compared."""
_GATHERED_SHARE = 1 / 256
"""Up to so small a share, rows are read one by one; above, FAISS passes over the others faster."""
_FEW = 32
"""Of up to so many candidates it is seen whether they are in order already before they are sorted, which takes longer."""


class OpenSegment:
    """A segment for reading; a context manager that closes it. Any number of threads may use it.

    Attributes:
        rows: In its files, deleted ones too.
        storage: The vectors.
        structure: None where all vectors are compared, or it was opened by a writer.
        documents: By row.
        alive: Rows that are not deleted, (rows,); None: all.
        ids: Rows by document id.
        report: What was measured when the segment was built.
        lexical: The BM25 index, if the index has one, and a reader opened it.
    """

    def __init__(self, folder: Path, manifest: Manifest, segment: Segment, *, searchable: bool = True) -> None:
        """Opens its files; without those that only searching needs, where it is to be changed and not `searchable`."""
        self.folder, self.segment = segment_folder(folder, segment), segment
        self.rows = segment.rows
        self._chunked = manifest.options.chunk_tokens is not None
        self.storage = open_storage(
            self.folder / Names.VECTORS, rows=segment.rows, dimension=manifest.dimension, store=manifest.options.store
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
        # Opened now: a writer may remove the files of this commit, and what is open stays.
        if not searchable:
            check_content(self.folder / Names.IDS, segment.files[Names.IDS])  # a writer adds what it does not find
        self.ids = IdTable(self.folder / Names.IDS, self.rows)
        self.report: Report | None = self._checked(Names.REPORT, read_report)
        lexical = searchable and any(name.startswith(f"{Names.LEXICAL}/") for name in segment.files)
        self.lexical: Lexical | None = open_lexical(self.folder / Names.LEXICAL, self.rows) if lexical else None
        self._columns: Bytes | None = (
            map_file(self.folder / Names.METADATA) if searchable and Names.METADATA in segment.files else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def use_gpus(self) -> None:
        """Searches on GPUs from now on: a copy of the structure goes there, of a flat segment its vectors in float16.

        Raises:
            SettingsError: FAISS has no such index for GPUs, or they have too little memory.
        """
        structure = self.structure or Structure(IndexType("Flat"), self.rows, self.storage, None)
        structure.use_gpus()
        self.structure = structure

    def close(self) -> None:
        """Unmaps the documents; the rest goes with the object."""
        self.documents.close()

    def _parse_type(self) -> IndexType:
        """The type as the manifest has it, after its numbers are found to suit the segment: FAISS would take memory for any."""
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
        """The query vectors it was measured with, (queries, dimension), if they were kept.

        Raises:
            IndexFolderError: The file was altered.
        """
        queries = self._checked(Names.QUERIES, lambda path: map_array(path, "<f4"))
        return None if queries is None else np.asarray(queries, np.float32).reshape(-1, self.storage.dimension)

    def find_rows(self, identifiers: list[str]) -> list[list[int]]:
        """Living rows of each document id, ascending."""
        candidates = self.ids.find(identifiers)
        return [
            [
                int(row)
                for row in rows
                if (self.alive is None or self.alive[row]) and self._parent(int(row)) == identifier
            ]
            for identifier, rows in zip(identifiers, candidates, strict=True)
        ]

    def _parent(self, row: int) -> str:
        document = self.documents[row]
        return parent_id(document.id, document.metadata) if self._chunked else document.id

    def allowed(self, where: Where | None) -> NDArray[np.bool_] | None:
        """Living rows that the filter lets through, (rows,); None: all rows."""
        if where is None:
            return self.alive
        mask = where.mask(self.metadata, self.rows)
        return mask if self.alive is None else mask & self.alive

    def search(self, queries: NDArray[np.float32], k: int, *, effort: Effort, where: Where | None = None) -> Neighbors:
        """The k best living rows that the filter lets through, for each query (queries, dimension); -1 where there are no more.

        Scores are exact, those of the stored vectors. Few rows left are all compared, also few for so many answers.
        Many are searched in the structure, with an effort that grows as their share shrinks: the answers lie as much
        farther away. It grows too where fewer than k are found, as few lists hold few rows.
        """
        allowed = self.allowed(where)
        left = self.rows if allowed is None else int(np.count_nonzero(allowed))
        filtered = where is not None and left < self.rows and left <= _EXACT_ROWS
        if self.structure is None or filtered or left <= max(_EXACT_SHARE * self.rows, _EXACT_ANSWERS * k):
            return self._compare(queries, k, allowed, left)
        tuned = self.report.point.effort if self.report else _NONE
        chosen = _scaled(_overlaid(effort, tuned), self.rows / left)
        found = self._try(queries, k, chosen, allowed)
        while lowest(found.rows[:, -1]) < 0:
            lacking = found.rows[:, -1] < 0
            harder = _scaled(chosen, 4) if max(chosen.nprobe or 0, chosen.ef_search or 0) < self.rows else chosen
            more = (
                self._compare(queries[lacking], k, allowed, left)
                if harder == chosen
                else self._try(queries[lacking], k, harder, allowed)
            )
            found.scores[lacking], found.rows[lacking] = more
            if harder == chosen:
                break
            chosen = harder
        return found

    def _try(
        self, queries: NDArray[np.float32], k: int, effort: Effort, allowed: NDArray[np.bool_] | None
    ) -> Neighbors:
        """The k best rows that the structure finds with this effort."""
        assert self.structure is not None
        wanted = min(k * (effort.rerank or 1), self.rows)
        return self._rescore(queries, k, self.structure.find(queries, wanted, effort=effort, allowed=allowed).rows)

    def _compare(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None, left: int) -> Neighbors:
        if allowed is None or left > _GATHERED_SHARE * self.rows:
            return self.storage.search(queries, k, allowed=allowed)
        return self._rescore(queries, k, np.broadcast_to(np.flatnonzero(allowed), (len(queries), left)))

    def _rescore(self, queries: NDArray[np.float32], k: int, candidates: NDArray[np.int64]) -> Neighbors:
        """The best k of each query's candidates (queries, any number), by the stored vectors."""
        if len(queries) == 1:  # asked alone, it need not wait for what filling up takes
            scores, rows = self._order(queries[0], candidates[0], k)
            if len(rows) == k:
                return Neighbors(scores[None], rows[None])
        found = Neighbors(np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64))
        for query, some, scores_out, rows_out in zip(queries, candidates, *found, strict=True):
            scores, rows = self._order(query, some, k)
            scores_out[: len(rows)], rows_out[: len(rows)] = scores, rows
        return found

    def _order(self, query: NDArray[np.float32], rows: NDArray[np.int64], k: int) -> Neighbors:
        """The best k of the query's candidates, those below 0 left out."""
        if lowest(rows) < 0:
            rows = rows[rows >= 0]
        scores = self.storage.scores(query, rows)
        if len(rows) <= _FEW and all(map(gt, (listed := scores.tolist()), listed[1:])):  # as FAISS's mostly are
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

    def _checked(self, name: str, read: Callable[[Path], _T]) -> _T | None:
        record = self.segment.files.get(name)
        if record is None:
            return None
        check_content(self.folder / name, record)
        return read(self.folder / name)


def _overlaid(asked: Effort, tuned: Effort) -> Effort:
    if asked == _NONE:
        return tuned
    return Effort(asked.nprobe or tuned.nprobe, asked.ef_search or tuned.ef_search, asked.rerank or tuned.rerank)


def _scaled(effort: Effort, factor: float) -> Effort:
    """The effort times the factor, where it is stated; a structure bounds it by what it has."""
    if factor <= 1:
        return effort
    nprobe, ef_search = (
        None if part is None else int(np.ceil(part * factor)) for part in (effort.nprobe, effort.ef_search)
    )
    return Effort(nprobe, ef_search, effort.rerank)
