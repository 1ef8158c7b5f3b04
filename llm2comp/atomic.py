"""Files and folders written whole or not at all, and durable on return: a temporary name beside them, fsync, rename."""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock
from safetensors import SafetensorError

from llm2comp.errors import LLM2CompError, ModelFolderError, one_line

__all__ = ["staged_folder", "sync_folder", "sync_tree", "write_file", "write_output"]

_LOCK = ".lock"
_CANNOT_SYNC = {errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EACCES}  # network file systems; folders without listing


def write_file(path: Path, parts: Iterable[str | bytes], *, draft: str | None = None) -> None:
    """Write a file from its parts: at any moment the old file or the complete new one is there, after an error the old.

    Args:
        path: The file. A link is replaced, not followed.
        parts: Its content; strings are encoded as UTF-8. Half a surrogate pair, as of a path that is not UTF-8, is
            escaped as JSON escapes it, so that it is read back.
        draft: Name of the unfinished file beside it; None: `.NAME.part`. A killed process leaves it, the next call
            replaces it, so only one process at a time may write the file.

    Raises:
        OSError: It cannot be written; the error names the file.
    """
    unfinished = path.with_name(draft or f".{path.name}.part")
    try:
        unfinished.unlink(missing_ok=True)
        with unfinished.open("xb") as file:
            for part in parts:
                file.write(part.encode("utf-8", "backslashreplace") if isinstance(part, str) else part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # which the error of a full disk lacks
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_output(path: str | Path, parts: Iterable[str | bytes]) -> None:
    """Write a file that the user named, as `write_file` does; several processes may write it.

    Raises:
        LLM2CompError: It cannot be written (no such folder, no permission, no space); nothing is left behind.
    """
    path = Path(path)
    try:
        write_file(path, parts, draft=f".{path.name}.{os.getpid()}.part")
    except OSError as error:
        raise LLM2CompError(
            f"{path}: cannot be written ({error.strerror}); give a file in an existing folder with free space"
        ) from error


@contextmanager
def staged_folder(
    target: Path, *, kind: str = "model", error: type[LLM2CompError] = ModelFolderError
) -> Iterator[Path]:
    """A hidden folder beside the target, to be filled; at the end it takes the target's place.

    Until then, and after an error, the target stays as it was and nothing else is left; only a process that is killed
    leaves the hidden folder, which the next save clears. Hidden entries of the old target (`.git`) are kept.

    Args:
        target: The folder to write; an existing one is replaced.
        kind: What is saved, for messages.
        error: Class of the error raised.

    Raises:
        LLM2CompError: Of class `error`: the disk is full, the folder cannot be written, or another process writes it.
    """
    target = target.resolve()
    stage, replaced = target.parent / f".{target.name}.saving", target.parent / f".{target.name}.replaced"
    new_parents = [parent for parent in target.parents if not parent.exists()]
    try:
        stage.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(stage / _LOCK, timeout=0):
            try:
                _recover(target, stage, replaced)
                yield stage
                sync_tree(stage)
                (stage / _LOCK).unlink(missing_ok=True)
                _exchange(target, stage, replaced)
            finally:
                shutil.rmtree(stage, ignore_errors=True)
        for changed in (target, target.parent, *(parent.parent for parent in new_parents)):
            sync_folder(changed)
    except BaseException as reason:
        for parent in new_parents:
            with suppress(OSError):
                parent.rmdir()
        if isinstance(reason, filelock.Timeout):
            raise error(
                f"{target}: another process is saving a {kind} there; wait for it or give another folder"
            ) from reason
        if isinstance(reason, (OSError, SafetensorError)):
            raise error(
                f"{target}: the {kind} cannot be saved there ({one_line(reason)}); nothing stays behind: free some "
                "space or give another folder"
            ) from reason
        raise


def _recover(target: Path, stage: Path, replaced: Path) -> None:
    """Undo what a killed save left."""
    if replaced.exists() and not target.exists():
        replaced.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)
    for left in stage.iterdir():
        if left.is_dir():
            shutil.rmtree(left)
        elif left.name != _LOCK:
            left.unlink()


def _exchange(target: Path, stage: Path, replaced: Path) -> None:
    if not target.exists():
        stage.rename(target)
        return
    target.rename(replaced)
    try:
        stage.rename(target)
    except BaseException:
        replaced.rename(target)
        raise
    for hidden in replaced.glob(".*"):
        hidden.rename(target / hidden.name)
    shutil.rmtree(replaced, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make the folder's list of names durable, where the system lets a folder be synced."""
    if os.name == "posix":
        try:
            _sync(folder)
        except OSError as error:
            if error.errno not in _CANNOT_SYNC:
                raise


def sync_tree(folder: Path) -> None:
    """Make everything in a folder durable: contents of files, then lists of names."""
    for parent, _, files in os.walk(folder, topdown=False):
        for path in (Path(parent, name) for name in files):
            if path.is_file():
                _sync(path)
        sync_folder(Path(parent))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
