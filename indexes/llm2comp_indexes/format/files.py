"""Files hashed while they are written, and checks of a file against its recorded size and SHA-256."""

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from llm2comp.checked_json import take, take_count, take_digest
from llm2comp.errors import IndexFolderError
from llm2comp_indexes.format.mapping import Bytes

__all__ = ["FileRecord", "HashedFile", "check_content", "check_mapped", "check_size", "parse_records"]

_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Size in bytes and SHA-256 (hex) of a file."""

    bytes: int
    sha256: str


def parse_records(content: Mapping[str, Any]) -> dict[str, FileRecord]:
    """Records by file name, from the field "files" of a manifest.

    Raises:
        ValueError: The field is missing or holds something else.
    """
    files = take(content, "files", dict)
    records = {name: take(files, name, dict) for name in files}
    return {
        name: FileRecord(take_count(record, "bytes"), take_digest(record, "sha256")) for name, record in records.items()
    }


class HashedFile:
    """A new file, hashed as it is written, and durable after `finish`."""

    def __init__(self, path: Path, *, keep: int = 0) -> None:
        """Starts a new file, or continues one that a killed process left.

        Args:
            path: The file.
            keep: Number of bytes to keep of the existing file; the rest is cut off. 0: a new file.

        Raises:
            IndexFolderError: The existing file is shorter than `keep`.
        """
        self._hash = hashlib.sha256()
        self._bytes = keep
        self._file = path.open("r+b") if keep else path.open("wb")
        remaining = keep
        while remaining and (block := self._file.read(min(remaining, _READ_BYTES))):
            self._hash.update(block)
            remaining -= len(block)
        if remaining:
            self._file.close()
            raise IndexFolderError(
                f"{path}: shorter than the {keep:,} bytes that were written; remove the unfinished build and start "
                "again"
            )
        self._file.truncate(keep)
        self._file.seek(keep)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        """Appends the bytes."""
        self._file.write(data)
        self._hash.update(data)
        self._bytes += len(data)

    def sync(self) -> None:
        """Flushes what was written to the device."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self) -> FileRecord:
        """Record of the file, after its last byte is on the device."""
        self.sync()
        self._file.close()
        return FileRecord(self._bytes, self._hash.hexdigest())


def check_size(path: Path, record: FileRecord) -> None:
    """Raises IndexFolderError unless `path` is a plain file (no link) of the recorded size. Does not open it."""
    try:
        status = path.lstat()
    except FileNotFoundError as error:
        raise IndexFolderError(f"{path}: missing; build the index again") from error
    if not stat.S_ISREG(status.st_mode):
        raise IndexFolderError(f"{path}: not a plain file; build the index again")
    if status.st_size != record.bytes:
        raise IndexFolderError(
            f"{path}: {status.st_size:,} bytes, expected {record.bytes:,}; the file was cut or altered: build the "
            "index again"
        )


def check_content(path: Path, record: FileRecord) -> None:
    """Raises IndexFolderError unless the file has the recorded size and SHA-256. Reads it once."""
    check_size(path, record)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    if digest.hexdigest() != record.sha256:
        raise IndexFolderError(f"{path}: altered (its SHA-256 is not the recorded one); build the index again")


def check_mapped(path: Path, content: Bytes, record: FileRecord) -> None:
    """Raises IndexFolderError unless mapped content has the recorded size and SHA-256; its file may be gone by now."""
    if len(content) != record.bytes or hashlib.sha256(content).hexdigest() != record.sha256:
        raise IndexFolderError(f"{path}: altered (its SHA-256 is not the recorded one); build the index again")
