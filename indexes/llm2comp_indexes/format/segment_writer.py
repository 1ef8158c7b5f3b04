"""Writes the rows of a new segment block by block, so that a process killed at any moment loses one block at most.

After each block, when its bytes are on the device, a line of the journal says how far the files are good. A later run
that brings the same blocks finds them there and goes on behind the last; at the first block that differs it cuts the
files and writes anew.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from llm2comp.atomic import sync_folder, write_file
from llm2comp.corpus.documents import Document
from llm2comp_indexes.format.documents import ROW_BYTES, DocumentWriter, document_line
from llm2comp_indexes.format.files import FileRecord
from llm2comp_indexes.format.ids import IdTableWriter
from llm2comp_indexes.format.manifest import Names
from llm2comp_indexes.format.metadata import MetadataWriter
from llm2comp_indexes.format.vectors import StorageWriter, storage_bytes
from llm2comp_indexes.options import Store

__all__ = ["JOURNAL", "SegmentWriter", "is_segment_folder", "is_unfinished", "new_segment_folder", "parent_id"]

JOURNAL = Names.JOURNAL
_NAME = re.compile(r"[0-9]{6}")
_NAMES = 999_999
_logger = logging.getLogger(__name__)


def parent_id(identifier: str, metadata: Mapping[str, Any]) -> str:
    """Id of the document that the row with this id and metadata is, or is a chunk of."""
    parent = metadata.get("document")
    return parent if isinstance(parent, str) and identifier == f"{parent}#{metadata.get('chunk')}" else identifier


class _Block(NamedTuple):
    """State of the files after a block: rows, bytes of lines, and SHA-256 of the block's own lines."""

    rows: int
    end: int
    digest: str


def is_segment_folder(path: Path) -> bool:
    """Whether the path is a folder named as a segment is, in use or not; what else lies beside segments is none of ours."""
    return bool(_NAME.fullmatch(path.name)) and path.is_dir() and not path.is_symlink()


def new_segment_folder(segments: Path, taken: Iterable[str], header: dict[str, Any], *, number: int = 1) -> Path:
    """The folder of an unfinished segment with this header, or else a new one; unfinished ones with another header are removed.

    Args:
        segments: The folder of all segments.
        taken: Names of the segments that are in use.
        header: What the vectors depend on; blocks written under another one are of no use.
        number: A new folder has this number or a later one, so that a reader of an earlier commit never finds it in
            another's place.
    """
    used = set(taken)
    found = None
    for folder in sorted(filter(is_segment_folder, segments.iterdir())):
        if folder.name in used:
            continue
        if found is None and _read_journal(folder / JOURNAL, header) is not None:
            found = folder
            continue
        if (folder / JOURNAL).exists():
            _logger.warning("%s: an unfinished segment, which this command cannot go on with, is removed", folder)
        shutil.rmtree(folder, ignore_errors=True)  # what is held open, on some systems, goes the next time
    if found:
        return found
    used |= {path.name for path in segments.iterdir()}
    first = max([number, *(int(name) + 1 for name in used if _NAME.fullmatch(name))])
    names = (f"{1 + (candidate - 1) % _NAMES:06d}" for candidate in range(first, first + _NAMES))
    folder = segments / next(name for name in names if name not in used)
    folder.mkdir()
    return folder


def is_unfinished(folder: Path) -> bool:
    """Whether the folder is one that a killed run of ours left: with a journal, or with nothing that would be a loss."""
    if not is_segment_folder(folder):
        return False
    return (folder / JOURNAL).is_file() or {path.name for path in folder.iterdir()} <= {
        f"{JOURNAL}.new",
        f"{Names.METADATA}.spool",
    }


def _read_journal(path: Path, header: dict[str, Any]) -> list[_Block] | None:
    """Blocks of the journal; None if there is none with this header, or a link beside it. What follows a line that was cut is not counted."""
    if not path.is_file() or any(file.is_symlink() for file in path.parent.iterdir()):
        return None
    blocks: list[_Block] = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1]):
        try:
            entry = json.loads(line)
        except ValueError:
            break
        if number == 0 and entry != header:
            return None
        if number:
            if not _is_block(entry):
                break
            blocks.append(_Block(**entry))
    else:
        return blocks if path.stat().st_size else None
    return blocks or None


def _is_block(entry: Any) -> bool:
    return isinstance(entry, dict) and {name: type(value) for name, value in entry.items()} == {
        "rows": int,
        "end": int,
        "digest": str,
    }


class SegmentWriter:
    """The files of one new segment; a context manager that closes them."""

    def __init__(self, folder: Path, dimension: int, store: Store, *, header: dict[str, Any]) -> None:
        """Takes up what a killed run left in the folder, if its journal has this header (JSON values)."""
        self.folder, self.dimension, self.store = folder, dimension, store
        self.rows = 0
        self.documents = 0
        self._header = header
        self._chunked = header.get("chunks", [None])[0] is not None
        self._earlier = [block for block in _read_journal(folder / JOURNAL, header) or [] if self._holds(block)]
        self._taking_up = True
        self._blocks: list[_Block] = []
        _remove_all_but(folder, {JOURNAL, Names.DOCUMENTS, Names.OFFSETS, Names.VECTORS})
        self._ids, self._metadata = IdTableWriter(), MetadataWriter(folder / Names.METADATA)
        self._last_parent: str | None = None
        self._files: tuple[DocumentWriter, StorageWriter] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with ExitStack() as files:  # closes each, whatever the others raise: on a full device, closing fails too
            for file in (self._metadata, *(self._files or ())):
                files.push(file)

    def has(self, rows: Sequence[Document]) -> bool:
        """Whether the next block is these rows, written by an earlier run; they are then counted and need no vectors."""
        done = len(self._blocks)
        self._taking_up = (
            self._taking_up
            and done < len(self._earlier)
            and self._earlier[done] == self._block(list(map(document_line, rows)))
        )
        if self._taking_up:
            self._blocks.append(self._earlier[done])
            self._note(rows)
        return self._taking_up

    def append(self, rows: Sequence[Document], vectors: NDArray[np.float32]) -> None:
        """Writes a block of rows with their unit vectors (rows, dimension); it is durable on return.

        Raises:
            CorpusError: Metadata that JSON cannot hold.
        """
        documents, storage = self._begun()
        lines = [document_line(row) for row in rows]
        block = self._block(lines)
        documents.add(lines)
        storage.append(vectors)
        self._note(rows)
        documents.sync()
        storage.sync()
        self._blocks.append(block)
        with (self.folder / JOURNAL).open("ab") as journal:
            journal.write(_journal_line(block._asdict()))
            journal.flush()
            os.fsync(journal.fileno())

    def finish(self) -> dict[str, FileRecord]:
        """Records of the files, all on the device. The journal stays until the segment is part of a commit."""
        documents, storage = self._begun()
        lines, offsets = documents.finish()
        files = {
            Names.DOCUMENTS: lines,
            Names.OFFSETS: offsets,
            Names.VECTORS: storage.finish(),
            Names.IDS: self._ids.write(self.folder / Names.IDS),
        }
        if metadata := self._metadata.finish():
            files[Names.METADATA] = metadata
        sync_folder(self.folder)
        return files

    def _begun(self) -> tuple[DocumentWriter, StorageWriter]:
        """The files, opened behind the blocks that are kept."""
        if self._files is None:
            rows, end = (self._blocks[-1].rows, self._blocks[-1].end) if self._blocks else (0, 0)
            self._start_journal()  # before the files are cut, so that it never promises more than they hold; without a line that was cut
            documents = DocumentWriter(self.folder / Names.DOCUMENTS, self.folder / Names.OFFSETS, rows=rows, end=end)
            self._files = documents, StorageWriter(self.folder / Names.VECTORS, self.dimension, self.store, rows=rows)
            sync_folder(
                self.folder
            )  # the names of these files too are durable before the journal speaks of what is in them
        return self._files

    def _block(self, lines: Sequence[bytes]) -> _Block:
        """The files after a next block of these lines."""
        end = self._blocks[-1].end if self._blocks else 0
        return _Block(self.rows + len(lines), end + sum(map(len, lines)), _digest(lines))

    def _holds(self, block: _Block) -> bool:
        """Whether the files are as long as the journal says; else (they were removed in part, or a device lied) the block is written again."""
        expected = {
            Names.DOCUMENTS: block.end,
            Names.OFFSETS: block.rows * ROW_BYTES,
            Names.VECTORS: storage_bytes(block.rows, self.dimension, self.store),
        }
        return all(
            (self.folder / name).is_file() and (self.folder / name).stat().st_size >= size
            for name, size in expected.items()
        )

    def _start_journal(self) -> None:
        entries = [self._header, *(block._asdict() for block in self._blocks)]
        write_file(self.folder / JOURNAL, map(_journal_line, entries), draft=f"{JOURNAL}.new")
        sync_folder(self.folder.parent)

    def _note(self, rows: Sequence[Document]) -> None:
        parents = [parent_id(row.id, row.metadata) if self._chunked else row.id for row in rows]
        self._ids.add(parents)
        self._metadata.add(rows)
        for parent in parents:
            self.documents += parent != self._last_parent  # the chunks of a document follow one another
            self._last_parent = parent
        self.rows += len(rows)


def _remove_all_but(folder: Path, kept: set[str]) -> None:
    """Removes what a killed run had begun to make of the rows: it is made anew."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in kept:
            path.unlink()


def _journal_line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _digest(lines: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line)
    return digest.hexdigest()
