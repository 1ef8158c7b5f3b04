"""Takes back the last change of an index."""

from pathlib import Path
from typing import NamedTuple

from llm2comp.errors import IndexFolderError
from llm2comp_indexes.change.segments import before_change
from llm2comp_indexes.format.commits import change_index

__all__ = ["UndoReport", "undo_index"]


class UndoReport(NamedTuple):
    """Result of taking back a change.

    Attributes:
        documents: Number of documents now.
        before: Number of documents before.
        commit: Number of the commit that was made.
    """

    documents: int
    before: int
    commit: int


def undo_index(folder: str | Path) -> UndoReport:
    """Goes back to the commit before the last one, as one more commit; a second time, to where it was.

    One commit is kept beside the last one. A merge keeps none, for it frees space.

    Raises:
        IndexFolderError: The commit before is not kept, or the index is damaged, or being written by another process.
    """
    with change_index(Path(folder)) as change:
        last, previous = before_change(change), change.previous
        if previous is None:
            reason = "it has had no change yet" if last.commit == 1 else "a merge keeps none, or files of it are gone"
            raise IndexFolderError(f"{folder}: nothing to undo: the commit before is not kept ({reason})")
        now = change.commit(previous)
    return UndoReport(now.documents, last.documents, now.commit)
