"""The folder of a shard while it is made: what may lie there, its lock, and what an error leaves behind."""

import errno
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from llm2comp.atomic import sync_folder
from llm2comp.errors import IndexFolderError
from llm2comp_indexes.builder.shard_file import ROWS, SHARD, read_shard
from llm2comp_indexes.format.lock import LOCK_FILES, sole_writer
from llm2comp_indexes.format.segment_writer import JOURNAL

__all__ = ["check_shard_folder", "clear_shard", "writing_shard"]

_OURS = {ROWS, SHARD, f"{SHARD}.new"}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def clear_shard(folder: Path) -> None:
    """Removes the shard, finished or not, from its folder."""
    (folder / SHARD).unlink(missing_ok=True)  # first: it must never name files that are gone
    sync_folder(folder)
    shutil.rmtree(folder / ROWS, ignore_errors=True)


def check_shard_folder(folder: Path, *, overwrite: bool) -> None:
    """Raises IndexFolderError unless a shard may be written there: no folder, an empty one, or one of such a run."""
    for path in (folder, folder / ROWS):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise IndexFolderError(f"{path}: a link or a file, expected a folder; name another with -o")
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if names - LOCK_FILES and not names & _OURS:
        raise IndexFolderError(
            f"{folder}: a folder that holds something other than a shard, and is kept; name another with -o"
        )
    if SHARD in names and not overwrite:
        read_shard(folder)


@contextmanager
def writing_shard(folder: Path) -> Iterator[None]:
    """Locks the shard's folder. After an error without a finished block, folders that this run made are removed."""
    made = [path for path in folder.parents if not path.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()
        made.insert(0, folder)
    except FileExistsError:
        made = []  # another run may be writing there
    for path in made:
        sync_folder(path.parent)
    try:
        with sole_writer(folder):
            yield
    except BaseException as error:
        if made and not _has_block(folder):
            _remove_made(made)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise IndexFolderError(
                f"{folder}: no space left ({error.strerror}); what was encoded is kept: free some space and run this "
                "again"
            ) from error
        raise


def _has_block(folder: Path) -> bool:
    journal = folder / ROWS / JOURNAL
    return (folder / SHARD).exists() or (journal.is_file() and journal.read_bytes().count(b"\n") > 1)


def _remove_made(made: Sequence[Path]) -> None:
    shutil.rmtree(made[0], ignore_errors=True)
    for path in made:
        with suppress(OSError):
            path.rmdir()
