"""Deletions of documents, by id or by a filter on their metadata, in one commit."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from llm2comp.errors import SettingsError
from llm2comp_indexes.change.compare import IDS_AT_ONCE, Deletions
from llm2comp_indexes.change.segments import before_change, commit, without_rows
from llm2comp_indexes.format.commits import change_index
from llm2comp_indexes.search.segment import OpenSegment

__all__ = ["DeleteReport", "delete_documents"]


class DeleteReport(NamedTuple):
    """Result of a deletion.

    Attributes:
        deleted: Number of documents deleted.
        missing: Ids that the index does not hold.
    """

    deleted: int
    missing: tuple[str, ...]


def delete_documents(folder: str | Path, identifiers: Iterable[str], *, wait: float = 0.0) -> DeleteReport:
    """Deletes documents by id, in one commit; ids that the index does not hold are listed in the report.

    Searches skip their rows from now on; a merge removes them from the files.

    Args:
        folder: Folder of the index.
        identifiers: Ids of the documents.
        wait: Seconds to wait for another writer.

    Raises:
        IndexFolderError: The index is damaged, or being written by another process.
        SettingsError: `identifiers` is a single string, or holds anything but strings.
    """
    if isinstance(identifiers, str):
        raise SettingsError(f"identifiers is a string, expected a list: [{identifiers[:40]!r}]")
    unique = list(dict.fromkeys(identifiers))
    if strange := [identifier for identifier in unique if not isinstance(identifier, str)]:
        raise SettingsError(f"identifiers hold {strange[0]!r:.40}, expected strings only")
    with change_index(Path(folder), wait=wait) as change:
        deleted: set[str] = set()
        kept = []
        for segment in before_change(change).segments:
            with OpenSegment(Path(folder), before_change(change), segment, searchable=False) as opened:
                deletions = _find(opened, unique, deleted)
                kept.append(without_rows(change, opened, deletions))
        if deleted:
            commit(change, before_change(change), kept)
    return DeleteReport(len(deleted), tuple(identifier for identifier in unique if identifier not in deleted))


def _find(segment: OpenSegment, identifiers: list[str], deleted: set[str]) -> Deletions:
    """Rows of the documents with these ids; ids that the segment holds are added to `deleted`."""
    deletions = Deletions()
    for start in range(0, len(identifiers), IDS_AT_ONCE):
        block = identifiers[start : start + IDS_AT_ONCE]
        for identifier, rows in zip(block, segment.find_rows(block), strict=True):
            if rows:
                deletions.add(rows)
                deleted.add(identifier)
    return deletions
