"""A folder that appears whole or not at all, in the place of an older one if there is one."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock
from safetensors import SafetensorError

from llm2comp.errors import ModelFolderError, one_line

__all__ = ["staged_folder"]

_LOCK = ".lock"


@contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """A hidden folder beside the target, to be filled; at the end it takes the target's place.

    Whatever happens meanwhile, the target stays as it was and nothing else stays; only a process that is killed leaves
    the hidden folder, which the next save clears. What the old target holds under hidden names (`.git`) is kept.

    Raises:
        ModelFolderError: If the device is full, the folder cannot be written, or another process is writing it.
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
                _flush(stage)
                (stage / _LOCK).unlink(missing_ok=True)
                _exchange(target, stage, replaced)
            finally:
                shutil.rmtree(stage, ignore_errors=True)
    except BaseException as error:
        for parent in new_parents:
            with suppress(OSError):
                parent.rmdir()
        if isinstance(error, filelock.Timeout):
            raise ModelFolderError(
                f"{target}: another process is saving a model there; wait for it or give another folder"
            ) from error
        if isinstance(error, (OSError, SafetensorError)):
            reason = one_line(error)
            raise ModelFolderError(
                f"{target}: the model cannot be saved there ({reason}); nothing stays behind: free some space or give "
                "another folder"
            ) from error
        raise


def _recover(target: Path, stage: Path, replaced: Path) -> None:
    """Undoes what a killed save left."""
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


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
