"""Segments of an index: the names of their files, and their entries in the manifest."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm2comp.checked_json import take, take_count
from llm2comp.errors import IndexFolderError
from llm2comp_indexes.format.documents import ROW_BYTES
from llm2comp_indexes.format.files import FileRecord, parse_records
from llm2comp_indexes.format.ids import ID_BYTES
from llm2comp_indexes.format.memory_vectors import MemoryForm, memory_bytes
from llm2comp_indexes.format.origins import ORIGIN_BYTES
from llm2comp_indexes.format.vectors import storage_bytes
from llm2comp_indexes.options import IndexOptions

__all__ = ["Names", "Segment", "check_folders", "parse_segment", "segment_folder"]

_MOST_ROWS = (1 << 32) - 1  # of a segment, whose id table holds rows in four bytes


class Names:
    """Names of files in a segment's folder."""

    VECTORS = "vectors.faiss"
    STRUCTURE = "index.faiss"
    DOCUMENTS = "documents.jsonl"
    OFFSETS = "documents.offsets"
    IDS = "documents.ids"
    METADATA = "metadata.arrow"
    MEMORY = "memory.vectors"
    REPORT = "report.json"
    QUERIES = "queries.npy"
    LEXICAL = "bm25"
    JOURNAL = "journal.jsonl"
    """Only in an unfinished segment."""
    ALWAYS = frozenset({VECTORS, DOCUMENTS, OFFSETS, IDS})

    @staticmethod
    def deleted(commit: int) -> str:
        """The bitmap of deleted rows that the commit of this number wrote."""
        return f"deleted-{commit:06d}"

    @staticmethod
    def origins(commit: int = 0) -> str:
        """The origins of rows that the commit of this number wrote for the segment; 0: with the segment."""
        return f"origins-{commit:06d}"

    @staticmethod
    def report(commit: int) -> str:
        """The report that the commit of this number wrote, with new measurements of an old segment."""
        return f"report-{commit:06d}.json"

    @staticmethod
    def queries(commit: int) -> str:
        """The queries of these measurements."""
        return f"queries-{commit:06d}.npy"


_SEGMENT_NAME = re.compile(r"[0-9]{6}")
_OPTIONAL = re.compile(
    "|".join(map(re.escape, (Names.STRUCTURE, Names.METADATA, Names.MEMORY, Names.REPORT, Names.QUERIES)))
    + r"|(?:deleted|origins)-[0-9]{6,13}|report-[0-9]{6,13}\.json|queries-[0-9]{6,13}\.npy"
    + rf"|{Names.LEXICAL}/[A-Za-z0-9_][\w.]{{0,99}}",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Segment:
    """One folder under `segments/`.

    Attributes:
        name: Six digits.
        rows: Number of vectors and of documents (or chunks of documents) in its files, deleted ones included.
        deleted: Number of deleted rows.
        documents: Number of documents that are not deleted; fewer than rows where documents are split into chunks.
        type: FAISS factory string of its structure. `Flat` has no structure: all vectors are compared.
        files: Records by file name, relative to the folder.
    """

    name: str
    rows: int
    deleted: int
    documents: int
    type: str
    files: Mapping[str, FileRecord]

    @property
    def deleted_file(self) -> str | None:
        """Name of the bitmap of deleted rows."""
        return next((name for name in self.files if name.startswith("deleted-")), None)

    @property
    def report_file(self) -> str | None:
        """Name of the file of measurements."""
        return self._one_of("report")

    @property
    def queries_file(self) -> str | None:
        """Name of the file of the queries of these measurements."""
        return self._one_of("queries")

    def _one_of(self, kind: str) -> str | None:
        return next((name for name in self.files if name.startswith((f"{kind}.", f"{kind}-"))), None)

    @property
    def origins_file(self) -> str | None:
        """Name of the file of origins; None: older versions, and builds of vectors, recorded none."""
        return next((name for name in self.files if name.startswith("origins-")), None)


def segment_folder(folder: Path, segment: Segment | str) -> Path:
    """The folder of the segment's files."""
    return folder / "segments" / (segment if isinstance(segment, str) else segment.name)


def check_folders(folder: Path, segment: Segment) -> None:
    """Raises IndexFolderError if a folder of the segment is a link."""
    inside = segment_folder(folder, segment)
    for parent in (inside.parent, inside, inside / Names.LEXICAL):
        if parent.is_symlink():
            raise IndexFolderError(f"{parent}: a link, expected a folder; copy the index with the files it links to")


def parse_segment(content: Any, dimension: int, options: IndexOptions, memory: MemoryForm | None = None) -> Segment:
    """The segment of an entry of the manifest, whose sizes fit one another.

    Args:
        content: JSON values.
        dimension: Length of a vector.
        options: Options of the index.
        memory: How vectors of memory tokens are stored; None: they are not.

    Raises:
        ValueError: The entry is malformed.
    """
    if not isinstance(content, dict) or not _SEGMENT_NAME.fullmatch(take(content, "name", str)):
        raise ValueError("a segment's name is not six digits")
    name = content["name"]
    rows = take_count(content, "rows", 1, _MOST_ROWS)
    deleted = take_count(content, "deleted", 0, rows)
    documents = take_count(content, "documents", 0, rows - deleted)
    files = parse_records(content)
    for file in files:
        if file not in Names.ALWAYS and not _OPTIONAL.fullmatch(file):
            raise ValueError(f"segment {name} has a file {file[:80]!r}, which no segment has")
    segment = Segment(name, rows, deleted, documents, take(content, "type", str), files)
    if missing := Names.ALWAYS - set(files):
        raise ValueError(f"segment {name} is without {', '.join(sorted(missing))}")
    if (segment.type == "Flat") == (Names.STRUCTURE in files):
        raise ValueError(f"segment {name} is of type {segment.type[:80]!r}, which does not fit its files")
    _check_sizes(
        segment,
        {
            Names.VECTORS: storage_bytes(rows, dimension, options.store),
            Names.OFFSETS: ROW_BYTES * rows,
            Names.IDS: ID_BYTES * rows,
        },
    )
    if (memory is not None) != (Names.MEMORY in files):
        raise ValueError(f"segment {name} does not fit options with memory_vectors {options.memory_vectors}")
    if memory is not None:
        _check_sizes(segment, {Names.MEMORY: memory_bytes(rows, memory)})
    if (deleted > 0) != (segment.deleted_file is not None) or sum(file.startswith("deleted-") for file in files) > 1:
        raise ValueError(f"segment {name} has {deleted} deleted rows, which does not fit its files")
    if segment.deleted_file:
        _check_sizes(segment, {segment.deleted_file: -(-rows // 8)})
    if sum(file.startswith("origins-") for file in files) > 1:
        raise ValueError(f"segment {name} has two files of origins")
    for kind in ("report", "queries"):
        if sum(file.startswith((f"{kind}.", f"{kind}-")) for file in files) > 1:
            raise ValueError(f"segment {name} has two files of {kind}")
    if (origins := segment.origins_file) and files[origins].bytes not in [size * rows for size in ORIGIN_BYTES]:
        raise ValueError(f"{origins} of segment {name} has {files[origins].bytes:,} bytes, which does not fit its rows")
    return segment


def _check_sizes(segment: Segment, expected: Mapping[str, int]) -> None:
    for name, size in expected.items():
        if segment.files[name].bytes != size:
            raise ValueError(
                f"{name} of segment {segment.name} has {segment.files[name].bytes:,} bytes, which does not fit "
                f"{segment.rows:,} rows"
            )
