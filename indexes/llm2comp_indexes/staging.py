"""Where an index is written before it appears: a hidden folder beside it, committed by renames or removed."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from llm2comp.errors import IndexFolderError
from llm2comp_indexes.checked_files import sync_folder
from llm2comp_indexes.manifest import MANIFEST, read_manifest

__all__ = ["Staging", "check_output", "staged"]

_LOCK = "LOCK"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Staging:
    """A hidden folder that holds one new segment, and becomes the index `output`, or the next commit of it, in `commit`."""

    def __init__(self, output: Path, folder: Path) -> None:
        self._output = output
        self.folder = folder
        taken = [int(path.name) for path in (output / "segments").glob("[0-9]*") if path.name.isdigit()]
        self.segment_name = f"{max(taken, default=0) + 1:06d}"
        self.segment = folder / "segments" / self.segment_name
        self.segment.mkdir(parents=True)
        self.moved = False

    def commit(self) -> None:
        """Makes the staged index the one at `output`, at once: a reader sees the old one or the new one, whole."""
        for folder in (self.segment, self.segment.parent, self.folder):
            sync_folder(folder)
        if not (self._output / MANIFEST).exists():
            os.rename(self.folder, self._output)
            self.moved = True
        else:
            segments = self._output / "segments"
            os.rename(self.segment, segments / self.segment_name)
            sync_folder(segments)
            os.replace(self.folder / MANIFEST, self._output / MANIFEST)
            sync_folder(self._output)
            for old in segments.iterdir():
                if old.name != self.segment_name:
                    shutil.rmtree(old, ignore_errors=True)  # the new index stands; what stays is removed next time
        sync_folder(self._output.parent)


def check_output(output: Path, *, overwrite: bool) -> None:
    """Raises IndexFolderError unless an index may be written to `output`: nothing there, an empty folder, or an index to overwrite."""
    if not output.exists():
        return
    if not output.is_dir():
        raise IndexFolderError(f"{output}: a file, expected a folder to write the index to; name another with -o")
    if not any(output.iterdir()):
        return
    if not (output / MANIFEST).exists():
        raise IndexFolderError(f"{output}: a folder that holds something else than an index, which is left alone; name another with -o")
    if not overwrite:
        raise IndexFolderError(f"{output}: already holds an index; name another folder with -o, or replace it with --overwrite (overwrite=True)")
    read_manifest(output)  # what is not ours, or newer, or damaged is not ours to delete


@contextmanager
def staged(output: Path, *, overwrite: bool) -> Iterator[Staging]:
    """A staging folder for `output`, removed at the end unless it was committed, whatever happens meanwhile.

    Raises:
        IndexFolderError: Another process is building the same index, `check_output` refuses, or the device is full.
    """
    folder = output.parent / f".{output.name}.building"
    new_parents = [parent for parent in output.parents if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, output):
            staging = None
            try:
                check_output(output, overwrite=overwrite)  # once more, now that no other builder can come in between
                _clear(folder)  # what a killed build left
                staging = Staging(output, folder)
                yield staging
            finally:
                if staging is None or not staging.moved:
                    shutil.rmtree(folder, ignore_errors=True)
    except BaseException as error:
        for parent in new_parents:
            with suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError) and error.errno in _FULL:
            raise IndexFolderError(f"{output}: no space left for the index ({error.strerror}); nothing stays behind: free some, or name another -o") from error
        raise


@contextmanager
def _locked(folder: Path, output: Path) -> Iterator[None]:
    try:
        with filelock.FileLock(folder / _LOCK, timeout=0):
            yield
    except filelock.Timeout as error:
        raise IndexFolderError(f"{output}: another process is building this index; wait for it or name another folder with -o") from error


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()
