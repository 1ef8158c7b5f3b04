"""A set of ids that needs little memory for corpora of many millions of documents."""

from array import array
from hashlib import blake2b

__all__ = ["IdSet"]


class IdSet:
    """Set of ids, stored as 64-bit hashes in an open-addressing table: 16 to 32 bytes per id.

    A set of strings takes over 100 bytes per id. Among ten million different ids, a collision has probability 3e-6.
    """

    def __init__(self) -> None:
        self._table = array("Q", bytes(8 * 1024))  # 0 is an empty slot
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, identifier: str) -> bool:
        """Adds an id; whether it is new."""
        key = int.from_bytes(blake2b(identifier.encode("utf-8"), digest_size=8).digest(), "big") or 1
        slot = self._find(key)
        if self._table[slot] == key:
            return False
        self._table[slot] = key
        self._count += 1
        if 2 * self._count > len(self._table):
            self._grow()
        return True

    def _find(self, key: int) -> int:
        """Number of the slot that holds the key, or of the empty slot to put it in."""
        table, mask = self._table, len(self._table) - 1
        slot = key & mask
        while table[slot] not in (0, key):
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        old, self._table = self._table, array("Q", bytes(16 * len(self._table)))
        for key in old:
            if key:
                self._table[self._find(key)] = key
