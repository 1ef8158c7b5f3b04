"""Makes a table of a store hold given rows: what is there already stays, and all is compared at the end."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import StoreError
from llm2comp_indexes.export.arrow import MetadataTypes
from llm2comp_indexes.export.rows import Block
from llm2comp_indexes.progress import Phase, Progress
from llm2comp_indexes.stores.contract import Store
from llm2comp_indexes.stores.header import StoreHeader
from llm2comp_indexes.stores.rows import StoreRows, hash_ids, make_rows

__all__ = ["PushReport", "push_blocks"]

_IDS_AT_ONCE = 10_000
Blocks = Callable[[], Iterable[Block]]
"""Returns all rows anew, the same each time."""


class PushReport(NamedTuple):
    """Result of a push.

    Attributes:
        store: Address of the table, without a password.
        rows: Number of rows of the index: documents, or chunks of them.
        dimension: Length of a vector.
        added: Number of rows written that the table did not have.
        changed: Number of rows written that it had otherwise.
        deleted: Number of rows deleted that the index does not have.
        others: Number of rows left in the table that the index does not have.
        indexed: Whether the table's index was made or updated.
        write_seconds: Duration of reading the index and writing rows.
        check_seconds: Duration of comparing the table with the index.
        index_seconds: Duration of making the table's index.
        seconds: Duration of all.
    """

    store: str
    rows: int
    dimension: int
    added: int
    changed: int
    deleted: int
    others: int
    indexed: bool
    write_seconds: float
    check_seconds: float
    index_seconds: float
    seconds: float


def push_blocks(
    store: Store, blocks: Blocks, header: StoreHeader, *, sync: bool, progress: Progress, of: str = "the index"
) -> PushReport:
    """Report of the rows written to the table of an open store, so that it holds those of the blocks.

    Args:
        store: The store.
        blocks: Returns the rows, each id once; they are read two to four times.
        header: What they are.
        sync: Delete rows from the table that are not among them.
        progress: Called with the phase and the number of its rows done.
        of: What the rows are of, for messages.

    Raises:
        StoreError: As `push_index`.
    """
    start = time.perf_counter()
    known = store.read_header()
    if known is not None:
        known.check_same(header, str(store.url))
        header = header.joined(known)
    header = _with_types(blocks, header, store, known)
    if known != header:
        store.create(header)
    held = _Held() if known is None else _read_held(store, progress)
    began = time.perf_counter()
    pushed = _write(store, blocks, header, held, progress)
    wrote = time.perf_counter()
    deleted, others = _compare(store, pushed, of, sync=sync, progress=progress)
    checked = time.perf_counter()
    progress(Phase.INDEXING, 0)
    indexed = store.finish()
    end = time.perf_counter()
    return PushReport(
        str(store.url),
        pushed.rows,
        header.dimension,
        pushed.added,
        pushed.changed,
        deleted,
        others,
        indexed,
        wrote - began,
        checked - wrote + began - start,
        end - checked,
        end - start,
    )


def _with_types(blocks: Blocks, header: StoreHeader, store: Store, known: StoreHeader | None) -> StoreHeader:
    """The header with the types of metadata columns, of the rows there and of the blocks, if it has such."""
    if not store.typed or (known is not None and known.types is None):
        return header
    types = MetadataTypes.of(known.types if known is not None and known.types is not None else {})
    for block in blocks():
        types.add(block.rows)
    return replace(header, types=None if types.is_json else types.fields)


class _Held:
    """What a table holds: digests by id, both as 64 bits, found by binary search."""

    def __init__(self, ids: Sequence[NDArray[np.int64]] = (), digests: Sequence[NDArray[np.int64]] = ()) -> None:
        numbers = np.concatenate([np.empty(0, np.int64), *ids])
        order = np.argsort(numbers)
        self._ids = numbers[order]
        self._digests = np.concatenate([np.empty(0, np.int64), *digests])[order]

    def compare(self, rows: StoreRows, ids: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Of each row, whether its id, hashed in `ids`, is there, and whether it is there otherwise."""
        if not len(self._ids):
            return np.zeros(len(ids), np.bool_), np.zeros(len(ids), np.bool_)
        places = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        there = self._ids[places] == ids
        return there, there & (self._digests[places] != np.array(rows.digests, np.int64))


class _Pushed:
    """What the index holds: hashes of its ids and vectors; and how many rows were written."""

    def __init__(self) -> None:
        self.ids: list[NDArray[np.int64]] = []
        self.hashes: list[NDArray[np.int64]] = []
        self.added = self.changed = self.rows = 0

    def note(self, ids: NDArray[np.int64], hashes: Sequence[int], *, new: int, changed: int) -> None:
        """Adds rows of the index."""
        self.ids.append(ids)
        self.hashes.append(np.array(hashes, np.int64))
        self.added += new
        self.changed += changed
        self.rows += len(ids)


def _read_held(store: Store, progress: Progress) -> _Held:
    ids, digests, done = [], [], 0
    for part in store.scan(vectors=False):
        ids.append(hash_ids(part.ids))
        digests.append(np.array(part.digests, np.int64))
        progress(Phase.ROWS_FOUND, done := done + len(part.ids))
    return _Held(ids, digests)


def _write(store: Store, blocks: Blocks, header: StoreHeader, held: _Held, progress: Progress) -> _Pushed:
    """Writes the rows that the table does not hold, then those that it holds otherwise."""
    pushed = _Pushed()
    store.write(_new_rows(blocks, header, held, pushed, progress), new=True)
    if pushed.changed:
        store.write(_changed_rows(blocks, header, held, pushed))
    return pushed


def _new_rows(
    blocks: Blocks, header: StoreHeader, held: _Held, pushed: _Pushed, progress: Progress
) -> Iterator[StoreRows]:
    """The rows that the table does not hold; all are noted in `pushed`."""
    for block in blocks():
        rows = make_rows(block.rows, block.vectors, header)
        ids = hash_ids([row.id for row in rows.rows])
        there, changed = held.compare(rows, ids)
        pushed.note(ids, rows.hashes, new=int(np.count_nonzero(~there)), changed=int(np.count_nonzero(changed)))
        if not there.all():
            yield _take(rows, ~there)
        progress(Phase.ROWS_PUSHED, pushed.rows)


def _changed_rows(blocks: Blocks, header: StoreHeader, held: _Held, pushed: _Pushed) -> Iterator[StoreRows]:
    """The rows that the table holds otherwise."""
    for block in blocks():
        rows = make_rows(block.rows, block.vectors, header)
        _, changed = held.compare(rows, hash_ids([row.id for row in rows.rows]))
        if changed.any():
            yield _take(rows, changed)


def _take(rows: StoreRows, mask: NDArray[np.bool_]) -> StoreRows:
    if mask.all():
        return rows
    places = np.flatnonzero(mask).tolist()
    return StoreRows(
        [rows.rows[place] for place in places],
        rows.vectors[mask],
        [rows.metadata[place] for place in places],
        [rows.digests[place] for place in places],
        [rows.hashes[place] for place in places],
    )


def _compare(store: Store, pushed: _Pushed, of: str, *, sync: bool, progress: Progress) -> tuple[int, int]:
    """Compares the vectors that the table holds with those of the index; deletes or counts the rows beyond them.

    Returns:
        Number of rows deleted, and of rows left that the index does not have.

    Raises:
        StoreError: A row is missing, is there twice, or has another vector; the latter are deleted, so that the next
            push writes them again.
    """
    order = np.argsort(ids := np.concatenate(pushed.ids))
    ids, hashes = ids[order], np.concatenate(pushed.hashes)[order]
    extra: list[str] = []
    wrong: list[str] = []
    twice: list[str] = []
    met = np.zeros(len(ids), np.bool_)
    seen = others = 0
    for part in store.scan(vectors=True):
        numbers = hash_ids(part.ids)
        places = np.minimum(np.searchsorted(ids, numbers), len(ids) - 1)
        ours = ids[places] == numbers
        again = _met_before(places, ours, met)
        others += int(np.count_nonzero(~ours))
        extra += [part.ids[place] for place in np.flatnonzero(~ours)] if sync else []
        twice += [part.ids[place] for place in np.flatnonzero(again)]
        other_vector = ours & (hashes[places] != np.array(part.hashes, np.int64))
        wrong += [part.ids[place] for place in np.flatnonzero(other_vector)]
        progress(Phase.ROWS_CHECKED, seen := seen + len(part.ids))
    for doomed in (wrong, twice, extra):
        for start in range(0, len(doomed), _IDS_AT_ONCE):
            store.delete(doomed[start : start + _IDS_AT_ONCE])
    if wrong:
        raise StoreError(
            f"{store.url}: {len(wrong):,} of {pushed.rows:,} vectors are not those that were written, such as that of "
            f"{wrong[0]!r:.60}; their rows were deleted: run this again to write them anew"
        )
    if twice:
        raise StoreError(
            f"{store.url}: {len(twice):,} of {pushed.rows:,} rows were there twice, such as {twice[0]!r:.60}, since "
            "another push wrote them at the same time; they were deleted: run this again to write them anew"
        )
    if (same := int(np.count_nonzero(met))) != pushed.rows:
        raise StoreError(
            f"{store.url}: holds {same:,} of {pushed.rows:,} rows of {of}; something else deletes from it: run "
            "this again"
        )
    return len(extra), others - len(extra)


def _met_before(places: NDArray[np.int64], ours: NDArray[np.bool_], met: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of each row of the index, at its place in `met`, whether it was met before; all are noted there."""
    again = ours & met[places]
    chosen = np.flatnonzero(ours)
    _, first = np.unique(places[chosen], return_index=True)
    again[np.delete(chosen, first)] = True
    met[places[chosen]] = True
    return again
