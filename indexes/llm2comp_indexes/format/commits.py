"""Changes of an index, under the writer's lock.

New segments are written beside the old ones, a new manifest makes them the index, then the old ones are removed.
"""

import errno
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import llm2comp
from llm2comp.atomic import sync_folder, write_file
from llm2comp.errors import IndexFolderError
from llm2comp_indexes.faiss_module import import_faiss
from llm2comp_indexes.format.files import HashedFile
from llm2comp_indexes.format.lock import LOCK_FILES, sole_writer
from llm2comp_indexes.format.manifest import (
    MANIFEST,
    PREVIOUS,
    Manifest,
    manifest_state,
    read_manifest,
    read_previous,
    write_manifest,
)
from llm2comp_indexes.format.memory_vectors import MemoryForm
from llm2comp_indexes.format.origins import Origins, write_origins
from llm2comp_indexes.format.segment import Names, Segment, segment_folder
from llm2comp_indexes.format.segment_writer import (
    JOURNAL,
    SegmentWriter,
    is_segment_folder,
    is_unfinished,
    new_segment_folder,
)

__all__ = [
    "Change",
    "change_index",
    "check_output",
    "create_index",
    "made_folder",
    "versions",
    "with_deleted",
    "with_origins",
]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_SEGMENTS = "segments"


def versions() -> dict[str, str]:
    """Versions of the software that the contents of an index depend on."""
    return {
        "llm2comp": llm2comp.__version__,
        "faiss": import_faiss().__version__,
        "numpy": version("numpy"),
        "python": platform.python_version(),
    }


class Change:
    """A change of the index in `folder`, made by the process that holds its lock.

    Attributes:
        before: The commit it starts from; None for a new index.
        previous: The commit before that; None: it is not kept.
    """

    def __init__(self, folder: Path, before: Manifest | None) -> None:
        self.folder, self.before = folder, before
        self.previous = read_previous(folder, before) if before else None
        self._identity = manifest_state(folder)
        self._taken = list(self.committed)

    @property
    def committed(self) -> set[str]:
        """Names of the segments of the commit that this change starts from, and of the one before that."""
        return {segment.name for manifest in (self.before, self.previous) if manifest for segment in manifest.segments}

    @property
    def commit_number(self) -> int:
        """Number of the commit that this change makes."""
        return self.before.commit + 1 if self.before else 1

    def new_segment(
        self, dimension: int, store: Any, *, header: dict[str, Any], memory: MemoryForm | None = None
    ) -> SegmentWriter:
        """Writer of one more segment. It continues a segment that a killed run left with the same header."""
        segments = self.folder / _SEGMENTS
        segments.mkdir(exist_ok=True)
        sync_folder(self.folder)  # else a power failure could lose everything encoded from now on
        folder = new_segment_folder(segments, self._taken, header, number=self.commit_number)
        self._taken.append(folder.name)
        return SegmentWriter(folder, dimension, store, header=header, memory=memory)

    def commit(self, manifest: Manifest, *, keep: bool = True) -> Manifest:
        """Commits the manifest, with the next number, and removes every file that no commit needs.

        Args:
            manifest: What the index is from now on.
            keep: Whether the commit before, and its files, are kept until the next commit, for `undo_index`.
        """
        numbered = replace(manifest, commit=self.commit_number, created_by=versions())
        before = {segment.name: segment for segment in self.before.segments} if self.before else {}
        for segment in numbered.segments:
            if before.get(segment.name) != segment:
                sync_folder(segment_folder(self.folder, segment))
        for parent in (self.folder / _SEGMENTS, self.folder, self.folder.parent):
            if parent.is_dir():  # an index without documents has no segments
                sync_folder(parent)
        if manifest_state(self.folder) != self._identity:
            raise IndexFolderError(
                f"{self.folder}: was replaced by another index meanwhile, which was not changed; run this again to "
                "change it"
            )
        self.previous = self.before if keep else None
        if self.previous:
            write_file(self.folder / PREVIOUS, [(self.folder / MANIFEST).read_bytes()], draft=f"{PREVIOUS}.new")
        write_manifest(self.folder, numbered)
        self.before, self._identity = numbered, manifest_state(self.folder)
        _sweep(self.folder, numbered, self.previous)
        return numbered


def with_deleted(change: Change, segment: Segment, deleted: NDArray[np.bool_], *, documents: int) -> Segment:
    """The segment with other deleted rows; their bitmap is written and durable.

    Args:
        change: The change that it is part of.
        segment: The segment before.
        deleted: All deleted rows, (rows,).
        documents: Number of documents that remain.
    """
    name = Names.deleted(change.commit_number)
    path = segment_folder(change.folder, segment) / name
    path.unlink(missing_ok=True)  # left by a killed run
    with HashedFile(path) as file:
        file.write(np.packbits(deleted, bitorder="little").tobytes())
        record = file.finish()
    files = {file: kept for file, kept in segment.files.items() if file != segment.deleted_file}
    return replace(segment, deleted=int(deleted.sum()), documents=documents, files={**files, name: record})


def with_origins(change: Change, segment: Segment, origins: Origins) -> Segment:
    """The segment with other origins of its rows; they are written and durable."""
    name = Names.origins(change.commit_number)
    record = write_origins(segment_folder(change.folder, segment) / name, origins)
    files = {file: kept for file, kept in segment.files.items() if file != segment.origins_file}
    return replace(segment, files={**files, name: record})


def check_output(output: Path, *, overwrite: bool) -> None:
    """Raises IndexFolderError unless an index may be written to `output`.

    It may where nothing is, or an empty folder, an unfinished build, or, with `overwrite`, an index.
    """
    if not output.exists():
        return
    _refuse_links(output)
    if not output.is_dir():
        raise IndexFolderError(f"{output}: a file, expected a folder to write the index to; name another with -o")
    if not (output / MANIFEST).exists():
        if {path.name for path in output.iterdir()} - LOCK_FILES - {_SEGMENTS, f"{MANIFEST}.new"} or _foreign(
            output / _SEGMENTS
        ):
            raise IndexFolderError(
                f"{output}: a folder that holds something other than an index, and is kept; name another with -o"
            )
        return
    if not overwrite:
        raise IndexFolderError(
            f"{output}: already holds an index; name another folder with -o, or replace it with --overwrite "
            "(overwrite=True)"
        )
    try:
        read_manifest(output)  # an index that is newer, damaged or not ours must not be deleted
    except IndexFolderError as error:
        raise IndexFolderError(
            f"{error} (what cannot be read is not overwritten: name another folder with -o, or remove this one "
            "yourself)"
        ) from error


def _refuse_links(folder: Path) -> None:
    """Raises IndexFolderError if the folder of segments is a link: files elsewhere would be written and removed."""
    if (folder / _SEGMENTS).is_symlink():
        raise IndexFolderError(
            f"{folder / _SEGMENTS}: a link, expected a folder; copy the index with the files it links to"
        )


def _foreign(segments: Path) -> bool:
    """Whether the folder exists and holds something that a killed build does not leave."""
    return segments.exists() and (not segments.is_dir() or not all(map(is_unfinished, segments.iterdir())))


@contextmanager
def create_index(output: Path, *, overwrite: bool) -> Iterator[Change]:
    """A change that makes a new index or replaces the existing one.

    After an error nothing is left behind, unless a block of rows was finished.

    Raises:
        IndexFolderError: `check_output` raises it, another process writes there, or the disk is full.
    """
    check_output(output, overwrite=overwrite)
    with _explained(output), made_folder(output), sole_writer(output):
        check_output(output, overwrite=overwrite)  # once more, now that no other process can write
        change = Change(output, read_manifest(output) if (output / MANIFEST).exists() else None)
        try:
            yield change
        except BaseException:
            _remove_empty_segments(change)
            _remove_unused(output)  # while the lock is held
            raise


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Makes the folder and its missing parents; those that are empty at the end are removed."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for made in missing:
            sync_folder(made.parent)
        yield
    finally:
        for made in missing:
            with suppress(OSError):
                made.rmdir()


@contextmanager
def change_index(folder: Path, *, wait: float = 0.0) -> Iterator[Change]:
    """A change of an existing index.

    Args:
        folder: Folder of the index.
        wait: Seconds to wait for another writer to finish.

    Raises:
        IndexFolderError: There is no index, it is damaged, another process is writing it, or the disk is full.
    """
    if not (folder / MANIFEST).is_file():
        read_manifest(folder)  # raises before a lock file is left there
    with _explained(folder), sole_writer(folder, wait=wait):
        _refuse_links(folder)
        change = Change(folder, before := read_manifest(folder))
        _sweep(folder, before, change.previous, keep_unfinished=True)  # files of a run that was killed after its commit
        try:
            yield change
        except BaseException:
            _remove_empty_segments(change)
            raise


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turns a full disk or a missing permission into an IndexFolderError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise IndexFolderError(
                f"{folder}: no space left ({error.strerror}); what was committed is whole, and what was encoded is "
                "kept: free some space and run this again"
            ) from error
        if error.errno in _FORBIDDEN and error.filename is not None and _touch(place := Path(error.filename), folder):
            raise IndexFolderError(
                f"{folder}: cannot be written ({place.name}: {error.strerror}); what was committed is whole"
            ) from error
        raise


def _touch(place: Path, folder: Path) -> bool:
    """Whether one path is the other or lies in it."""
    return place == folder or folder in place.parents or place in folder.parents


def _remove_empty_segments(change: Change) -> None:
    """Removes segments without a finished block, which no later run could continue."""
    kept = change.committed
    for folder in _segment_folders(change.folder):
        journal = folder / JOURNAL
        if folder.name not in kept and (not journal.is_file() or journal.read_bytes().count(b"\n") < 2):
            shutil.rmtree(folder, ignore_errors=True)


def _remove_unused(output: Path) -> None:
    """Removes what was made for a new index of which no segment remains."""
    if (output / MANIFEST).exists() or _segment_folders(output):
        return
    for name in (*LOCK_FILES, f"{MANIFEST}.new"):
        with suppress(OSError):
            (output / name).unlink(missing_ok=True)
    with suppress(OSError):
        (output / _SEGMENTS).rmdir()


def _segment_folders(folder: Path) -> list[Path]:
    """Folders of segments, whether the manifest names them or not."""
    parent = folder / _SEGMENTS
    return list(filter(is_segment_folder, parent.iterdir())) if parent.is_dir() else []


def _sweep(
    folder: Path, manifest: Manifest, previous: Manifest | None = None, *, keep_unfinished: bool = False
) -> None:
    """Removes what neither of the manifests names.

    What cannot be removed now (on some systems, while a reader has it open) is removed the next time.
    """
    named: dict[str, set[str]] = {}
    for segment in (*manifest.segments, *(previous.segments if previous else ())):
        named.setdefault(segment.name, set()).update(segment.files)
    if previous is None:
        with suppress(OSError):
            (folder / PREVIOUS).unlink(missing_ok=True)
    for path in _segment_folders(folder):
        if path.name not in named:
            if not (keep_unfinished and (path / JOURNAL).exists()):
                shutil.rmtree(path, ignore_errors=True)
            continue
        files = named[path.name]
        kept = {name.partition("/")[0] for name in files}
        for file in path.iterdir():
            if file.is_dir() and file.name not in kept:
                shutil.rmtree(file, ignore_errors=True)
            elif not file.is_dir() and file.name not in files:
                with suppress(OSError):
                    file.unlink()
