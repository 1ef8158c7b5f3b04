"""Writer of a new segment, block by block: a process killed at any moment loses at most one block.

After each block, when its bytes are on the device, a line of the journal records how long the files are. A later run
that brings the same blocks skips those in the journal and continues after them; at the first block that differs it cuts
the files there and goes on writing.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from llm2comp.atomic import sync_folder, write_file
from llm2comp.corpus.documents import Document
from llm2comp_indexes.format.chunks import parent_id
from llm2comp_indexes.format.documents import ROW_BYTES, DocumentWriter, document_line
from llm2comp_indexes.format.files import FileRecord
from llm2comp_indexes.format.ids import IdTableWriter
from llm2comp_indexes.format.memory_vectors import MemoryForm, MemoryWriter, memory_bytes
from llm2comp_indexes.format.metadata import MetadataWriter
from llm2comp_indexes.format.origins import Origin, OriginWriter
from llm2comp_indexes.format.segment import Names
from llm2comp_indexes.format.vectors import StorageWriter, storage_bytes
from llm2comp_indexes.options import Store

__all__ = ["JOURNAL", "SegmentWriter", "is_segment_folder", "is_unfinished", "new_segment_folder"]

JOURNAL = Names.JOURNAL
_NAME = re.compile(r"[0-9]{6}")
_NAMES = 999_999
_logger = logging.getLogger(__name__)


class _Block(NamedTuple):
    """State of the files after a block: number of rows, bytes of lines, and SHA-256 of the block's lines."""

    rows: int
    end: int
    digest: str


def is_segment_folder(path: Path) -> bool:
    """Whether the path is a folder with the name of a segment, in use or not."""
    return bool(_NAME.fullmatch(path.name)) and path.is_dir() and not path.is_symlink()


def new_segment_folder(segments: Path, taken: Iterable[str], header: dict[str, Any], *, number: int = 1) -> Path:
    """The folder of an unfinished segment with this header, or else a new one.

    Unfinished segments with another header are removed.

    Args:
        segments: The folder of all segments.
        taken: Names of the segments that are in use.
        header: What the vectors depend on; blocks written with another header cannot be used.
        number: Lowest number of a new folder, so that a reader of an earlier commit never finds new files under the
            name of an old segment.
    """
    used = set(taken)
    unfinished = None
    for folder in sorted(filter(is_segment_folder, segments.iterdir())):
        if folder.name in used:
            continue
        if unfinished is None and _read_journal(folder / JOURNAL, header) is not None:
            unfinished = folder
            continue
        if (folder / JOURNAL).exists():
            _logger.warning("%s: an unfinished segment that this command cannot continue is removed", folder)
        shutil.rmtree(folder, ignore_errors=True)  # files that are open stay, on some systems, until the next time
    if unfinished:
        return unfinished
    used |= {path.name for path in segments.iterdir()}
    first = max([number, *(int(name) + 1 for name in used if _NAME.fullmatch(name))])
    names = (f"{1 + (candidate - 1) % _NAMES:06d}" for candidate in range(first, first + _NAMES))
    folder = segments / next(name for name in names if name not in used)
    folder.mkdir()
    return folder


def is_unfinished(folder: Path) -> bool:
    """Whether a killed run left the folder: it has a journal, or no files but temporary ones."""
    if not is_segment_folder(folder):
        return False
    return (folder / JOURNAL).is_file() or {path.name for path in folder.iterdir()} <= {
        f"{JOURNAL}.new",
        f"{Names.METADATA}.spool",
    }


def _read_journal(path: Path, header: dict[str, Any]) -> list[_Block] | None:
    """Blocks of the journal up to a line that was cut; None if no journal has this header, or a link is beside it."""
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


class _Files(NamedTuple):
    """The open files of a segment that is being written."""

    documents: DocumentWriter
    storage: StorageWriter
    memory: MemoryWriter | None


class SegmentWriter:
    """The files of a new segment; a context manager that closes them.

    Attributes:
        rows: Number of rows so far.
        documents: Number of documents so far.
        memory: How the vectors of memory tokens are stored; None: they are not.
    """

    def __init__(
        self,
        folder: Path,
        dimension: int,
        store: Store,
        *,
        header: dict[str, Any],
        memory: MemoryForm | None = None,
    ) -> None:
        """Continues what a killed run left in the folder, if its journal has this header (JSON values)."""
        self.folder, self.dimension, self.store, self.memory = folder, dimension, store, memory
        self.rows = 0
        self.documents = 0
        self._header = header
        self._chunked = header.get("chunks", [None])[0] is not None or "chunk_fidelity" in header
        self._earlier = [block for block in _read_journal(folder / JOURNAL, header) or [] if self._holds(block)]
        self._resuming = True
        self._blocks: list[_Block] = []
        _remove_all_but(folder, {JOURNAL, Names.DOCUMENTS, Names.OFFSETS, Names.VECTORS, Names.MEMORY})
        self._ids, self._metadata = IdTableWriter(), MetadataWriter(folder / Names.METADATA)
        self._origins = OriginWriter()
        self._followers: list[Callable[[Sequence[Document]], None]] = []
        self._last_parent: str | None = None
        self._files: _Files | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with ExitStack() as files:  # closes each, even if others raise: on a full disk closing fails too
            for file in (self._metadata, *(self._files or ())):
                if file is not None:
                    files.push(file)

    def follow(self, take: Callable[[Sequence[Document]], None]) -> None:
        """Calls `take` with the rows of every block, in order: blocks written now, and those an earlier run wrote."""
        self._followers.append(take)

    def has(self, rows: Sequence[Document], origins: Sequence[Origin] = ()) -> bool:
        """Whether an earlier run wrote these rows as the next block; they are then counted and need no vectors."""
        done = len(self._blocks)
        self._resuming = (
            self._resuming
            and done < len(self._earlier)
            and self._earlier[done] == self._block(list(map(document_line, rows)))
        )
        if self._resuming:
            self._blocks.append(self._earlier[done])
            self._note(rows, origins)
        return self._resuming

    def append(
        self,
        rows: Sequence[Document],
        vectors: NDArray[np.float32],
        origins: Sequence[Origin] = (),
        *,
        memory: NDArray[np.uint8] | None = None,
        resumable: bool = True,
    ) -> None:
        """Writes a block of rows with their unit vectors (rows, dimension); it is durable on return.

        Args:
            rows: Documents or chunks.
            vectors: Unit vectors, (rows, dimension).
            origins: Where each row came from; empty: unknown.
            memory: Codes of the vectors of memory tokens, (rows, bytes of a row), if the segment has them.
            resumable: Whether a later run may continue after the block. Otherwise it is durable after `finish` only.

        Raises:
            CorpusError: JSON cannot hold the metadata.
        """
        assert (memory is None) == (self.memory is None)
        documents, storage, memory_file = self._opened()
        lines = [document_line(row) for row in rows]
        block = self._block(lines)
        documents.add(lines)
        storage.append(vectors)
        if memory_file is not None and memory is not None:
            memory_file.append(memory)
        self._note(rows, origins)
        self._blocks.append(block)
        if not resumable:
            return
        documents.sync()
        storage.sync()
        if memory_file is not None:
            memory_file.sync()
        with (self.folder / JOURNAL).open("ab") as journal:
            journal.write(_journal_line(block._asdict()))
            journal.flush()
            os.fsync(journal.fileno())

    def finish(self) -> dict[str, FileRecord]:
        """Records of the files, after all are on the device. The journal stays until the segment is committed."""
        documents, storage, memory = self._opened()
        lines, offsets = documents.finish()
        files = {
            Names.DOCUMENTS: lines,
            Names.OFFSETS: offsets,
            Names.VECTORS: storage.finish(),
            Names.IDS: self._ids.write(self.folder / Names.IDS),
        }
        if memory is not None:
            files[Names.MEMORY] = memory.finish()
        if metadata := self._metadata.finish():
            files[Names.METADATA] = metadata
        if origins := self._origins.write(self.folder / Names.origins()):
            files[Names.origins()] = origins
        sync_folder(self.folder)
        return files

    def _opened(self) -> _Files:
        """The files, open at the end of the blocks that are kept."""
        if self._files is None:
            rows, end = (self._blocks[-1].rows, self._blocks[-1].end) if self._blocks else (0, 0)
            self._start_journal()  # before the files are cut, so that it never lists more than they hold
            documents = DocumentWriter(self.folder / Names.DOCUMENTS, self.folder / Names.OFFSETS, rows=rows, end=end)
            storage = StorageWriter(self.folder / Names.VECTORS, self.dimension, self.store, rows=rows)
            memory = MemoryWriter(self.folder / Names.MEMORY, self.memory, rows=rows) if self.memory else None
            self._files = _Files(documents, storage, memory)
            sync_folder(self.folder)  # names of files are durable before the journal lists their content
        return self._files

    def _block(self, lines: Sequence[bytes]) -> _Block:
        """State of the files after one more block of these lines."""
        end = self._blocks[-1].end if self._blocks else 0
        return _Block(self.rows + len(lines), end + sum(map(len, lines)), _digest(lines))

    def _holds(self, block: _Block) -> bool:
        """Whether the files are long enough for the block; else it is written again.

        They may be shorter if some were removed, or if the device lost what it had confirmed.
        """
        expected = {
            Names.DOCUMENTS: block.end,
            Names.OFFSETS: block.rows * ROW_BYTES,
            Names.VECTORS: storage_bytes(block.rows, self.dimension, self.store),
            **({Names.MEMORY: memory_bytes(block.rows, self.memory)} if self.memory else {}),
        }
        return all(
            (self.folder / name).is_file() and (self.folder / name).stat().st_size >= size
            for name, size in expected.items()
        )

    def _start_journal(self) -> None:
        entries = [self._header, *(block._asdict() for block in self._blocks)]
        write_file(self.folder / JOURNAL, map(_journal_line, entries), draft=f"{JOURNAL}.new")
        sync_folder(self.folder.parent)

    def _note(self, rows: Sequence[Document], origins: Sequence[Origin]) -> None:
        self._origins.add(origins, len(rows))
        parents = [parent_id(row.id, row.metadata) if self._chunked else row.id for row in rows]
        self._ids.add(parents)
        self._metadata.add(rows)
        for take in self._followers:
            take(rows)
        for parent in parents:
            self.documents += parent != self._last_parent  # the chunks of a document follow one another
            self._last_parent = parent
        self.rows += len(rows)


def _remove_all_but(folder: Path, kept: set[str]) -> None:
    """Removes what a killed run made from the rows, which is made again."""
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
