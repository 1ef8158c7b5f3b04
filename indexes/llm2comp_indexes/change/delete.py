"""Deletions of documents, by id or by a filter on their metadata, in one commit."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llm2comp.errors import SettingsError
from llm2comp_indexes.change.compare import IDS_AT_ONCE, Deletions
from llm2comp_indexes.change.segments import before_change, commit, without_rows
from llm2comp_indexes.filters.parse import Where, parse_where
from llm2comp_indexes.format.commits import change_index
from llm2comp_indexes.search.index import Index, open_last_commit
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


def delete_documents(
    folder: str | Path,
    identifiers: Iterable[str] = (),
    *,
    where: str | Where | None = None,
    dry_run: bool = False,
    wait: float = 0.0,
) -> DeleteReport:
    """Deletes documents by id or by a filter, in one commit; ids that the index does not hold are listed in the report.

    Searches skip their rows from now on; a merge removes them from the files.

    Args:
        folder: Folder of the index.
        identifiers: Ids of the documents.
        where: A filter, as for searches, instead of ids; of chunks, a document is deleted whole if one matches.
        dry_run: Only count.
        wait: Seconds to wait for another writer.

    Raises:
        IndexFolderError: The index is damaged, or being written by another process.
        SettingsError: `identifiers` is a single string, or holds anything but strings; or the filter cannot be parsed,
            names fields that no document has, or is given beside ids.
    """
    if isinstance(identifiers, str):
        raise SettingsError(f"identifiers is a string, expected a list: [{identifiers[:40]!r}]")
    unique = list(dict.fromkeys(identifiers))
    if strange := [identifier for identifier in unique if not isinstance(identifier, str)]:
        raise SettingsError(f"identifiers hold {strange[0]!r:.40}, expected strings only")
    if unique and where is not None:
        raise SettingsError("identifiers and where are both given; delete by one of them")
    parsed = parse_where(where) if isinstance(where, str) else where
    if dry_run:
        with open_last_commit(Path(folder), searchable=False) as index:
            return _report(unique, [_find(segment, unique, parsed) for segment in _checked(index, parsed)])
    with (
        change_index(Path(folder), wait=wait) as change,
        Index(Path(folder), before_change(change), searchable=False) as index,
    ):
        found = [_find(segment, unique, parsed) for segment in _checked(index, parsed)]
        if any(deletions.documents for deletions, _ in found):
            kept = [without_rows(change, segment, part[0]) for segment, part in zip(index.segments, found, strict=True)]
            commit(change, before_change(change), kept)
    return _report(unique, found)


def _checked(index: Index, where: Where | None) -> list[OpenSegment]:
    """The segments, after a check that the filter names only fields that documents have."""
    if where is not None:
        where.check(segment.metadata for segment in index.segments)
    return index.segments


def _find(segment: OpenSegment, identifiers: list[str], where: Where | None) -> tuple[Deletions, set[str]]:
    """Rows of the documents with these ids, or of those that pass the filter, and the ids that the segment holds."""
    deletions, deleted = Deletions(), set[str]()
    if where is not None:
        allowed = segment.allowed(where)
        rows = np.arange(segment.rows) if allowed is None else np.flatnonzero(allowed)
        identifiers = list(dict.fromkeys(map(segment.document_id, rows.tolist())))
    for start in range(0, len(identifiers), IDS_AT_ONCE):
        block = identifiers[start : start + IDS_AT_ONCE]
        for identifier, its_rows in zip(block, segment.find_rows(block), strict=True):
            if its_rows:
                deletions.add(its_rows)
                deleted.add(identifier)
    return deletions, deleted


def _report(identifiers: list[str], found: list[tuple[Deletions, set[str]]]) -> DeleteReport:
    deleted = set[str]().union(*(ids for _, ids in found))
    return DeleteReport(len(deleted), tuple(identifier for identifier in identifiers if identifier not in deleted))
