"""What a store does: the one protocol of PostgreSQL, Qdrant, LanceDB and Milvus."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from llm2comp_indexes.filters.parse import Where
from llm2comp_indexes.search.hits import Hit
from llm2comp_indexes.stores.header import StoreHeader, VectorType
from llm2comp_indexes.stores.rows import StoreRows
from llm2comp_indexes.stores.url import StoreUrl

__all__ = ["Scanned", "Store"]


class Scanned(NamedTuple):
    """Some rows of a table, in any order.

    Attributes:
        ids: Their ids.
        digests: Their digests, as they were written.
        hashes: Of their vectors as the store holds them, `hash_vectors`; None if they were not asked for.
    """

    ids: list[str]
    digests: list[int]
    hashes: list[int] | None


class Store(Protocol):
    """A table of vectors in a database, which one process or several may write.

    Made by `open_store`. To write from several processes: one calls `create`; each opens the store for itself and calls
    `write` with rows of its own; at last one calls `finish`. Writing rows again changes nothing, so a killed writer is
    just run again.

    Every method raises StoreError if the store cannot be reached, refuses, or the connection is lost. Its message has
    no password.

    Attributes:
        url: Address of the table.
        rows_per_write: Number of rows that `write` puts into one transaction, version or request.
        typed: Whether there is a column for each metadata field, so that the header that `create` gets has `types` of
            all rows to come; without, the metadata is one JSON text, and cannot be filtered by.
    """

    url: StoreUrl
    rows_per_write: int
    typed: bool

    def check_vectors(self, dimension: int, vector_type: VectorType) -> None:
        """Raises SettingsError if the store cannot index vectors of this dimension; it is not connected to."""

    def read_header(self) -> StoreHeader | None:
        """What the table holds; None: there is no such table.

        Raises:
            StoreError: The table was not made by llm2comp.
        """

    def create(self, header: StoreHeader) -> None:
        """Makes the table, or gives the one that is there this header."""

    def write(self, parts: Iterable[StoreRows], *, new: bool = False) -> None:
        """Writes rows; those of the same ids are replaced, and rows with the same digest stay as they are.

        Args:
            parts: Rows of different ids, in parts of any size, each of which is asked for once the one before is sent.
            new: Whether the table is known to have none of the ids, which is faster.
        """

    def delete(self, ids: Sequence[str]) -> None:
        """Deletes the rows of these ids; an id that is not there is no error."""

    def scan(self, *, vectors: bool) -> Iterator[Scanned]:
        """All rows: their ids and digests, and if asked for the hashes of their stored vectors."""

    def finish(self) -> bool:
        """Makes the index for searching if the table has none yet, or updates it; whether there was anything to do."""

    def count(self) -> int:
        """Number of rows."""

    def nearest(
        self, queries: NDArray[np.float32], k: int, *, where: Where | None = None, effort: int | None = None
    ) -> list[list[Hit]]:
        """The k best rows for each query vector (queries, dimension) that match the filter, best first.

        Args:
            queries: Unit vectors.
            k: Number of rows.
            where: Filter on metadata.
            effort: Number of candidates that the search of a graph keeps; None: the store's default.

        Raises:
            SettingsError: The store cannot filter so; the message says which condition, and why.
        """

    def close(self) -> None:
        """Closes the connection."""
