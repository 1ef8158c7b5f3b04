"""A table of a store that a run fills: made before, written to by actors, and compared with the shard at the end."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import StoreError
from llm2comp_indexes.builder.join_shards import ShardSource
from llm2comp_indexes.builder.shard_file import ROWS, Shard
from llm2comp_indexes.export.rows import Block
from llm2comp_indexes.format.metadata import open_metadata
from llm2comp_indexes.format.segment import Names
from llm2comp_indexes.options import IndexOptions
from llm2comp_indexes.progress import Progress
from llm2comp_indexes.stores.contract import Store
from llm2comp_indexes.stores.header import StoreHeader
from llm2comp_indexes.stores.open import open_store
from llm2comp_indexes.stores.rows import make_rows
from llm2comp_indexes.stores.transfer import PushReport, push_blocks
from llm2comp_indexes.stores.url import StoreKind, StoreUrl

__all__ = ["Table", "prepare_table", "push_shard", "table_header"]

_SERVERS: tuple[StoreKind, ...] = ("postgresql", "qdrant", "qdrant+https")
"""Stores that any number of hosts write to. The others are files that one process writes, or whose columns depend on
all rows: the process of the run writes them at the end."""
_ROWS_AT_ONCE = 256


class Table:
    """The table as an actor writes to it; it connects at the first write.

    It is no dataclass, since Ray keeps the fields of those that actors are made with in its records: an address has a
    password.
    """

    def __init__(self, url: StoreUrl, header: StoreHeader) -> None:
        self._url, self._header = url, header
        self._store: Store | None = None

    def __repr__(self) -> str:
        return f"Table({self._url})"

    def __del__(self) -> None:
        if self._store is not None:
            self._store.close()

    def write(self, rows: Sequence[Document], vectors: NDArray[np.float32]) -> None:
        """Writes the rows of a block; of those with the same id, the first.

        Raises:
            SettingsError: The store's client is not installed on this host.
            StoreError: The store cannot be reached, or refuses.
        """
        places: dict[str, int] = {}
        for place, row in enumerate(rows):
            places.setdefault(row.id, place)
        chosen = list(places.values())
        if not chosen:
            return
        made = make_rows([rows[place] for place in chosen], vectors[chosen], self._header)
        if self._store is None:
            self._store = open_store(self._url)
        try:
            self._store.write([made])
        except StoreError:
            self._store.write([made])  # a connection that was idle may have been cut; a new one is opened


def table_header(
    fingerprint: str, model: str | None, dimension: int, options: IndexOptions, encoder: EncoderOptions
) -> StoreHeader:
    """What the table of a shard holds, as that of an index built from it; without fields."""
    chunked = options.has_chunks
    vector_type: Any = "float16" if options.store == "float16" else "float32"
    return StoreHeader(fingerprint, model, dimension, vector_type, chunked, encoder, {})


def prepare_table(url: StoreUrl, header: StoreHeader, *, by_actors: bool) -> Table | None:
    """Makes the table unless it is there, so that what does not fit is refused before anything is encoded.

    Args:
        url: Its address.
        header: What it will hold.
        by_actors: Whether actors may write to it, if it is one that several processes can write.

    Returns:
        The table for actors; None: they do not write to it.

    Raises:
        SettingsError: The store's client is not installed, or it cannot index vectors of this dimension.
        StoreError: The store cannot be reached or refuses, or the table is another one's or of other vectors.
    """
    store = open_store(url)
    try:
        store.check_vectors(header.dimension, header.vector_type)
        known = store.read_header()
        if known is None:
            store.create(replace(header, types={}) if store.typed else header)
        else:
            known.check_same(header, str(url))
    finally:
        store.close()
    return Table(url, header) if by_actors and url.kind in _SERVERS else None


def push_shard(folder: Path, url: StoreUrl, *, sync: bool, progress: Progress) -> PushReport:
    """Report of the table, once it holds all rows of the shard in the folder, counted and compared.

    Args:
        folder: Folder of the shard of a whole corpus.
        url: Address of the table.
        sync: Delete rows from the table that the shard does not have.
        progress: Called with the phase and the number of its rows done.

    Raises:
        IndexFolderError: The shard was altered.
        StoreError: As `push_index`.
    """
    source = ShardSource([folder], progress)
    shard = source.shard
    header = table_header(shard.fingerprint, shard.model, shard.dimension, shard.options, shard.encoder)
    store = open_store(url)
    try:
        store.check_vectors(header.dimension, header.vector_type)
        fields = _with_fields(header, folder / ROWS / Names.METADATA, shard)
        return push_blocks(store, lambda: _blocks(source), fields, sync=sync, progress=progress, of="the corpus")
    finally:
        store.close()


def _with_fields(header: StoreHeader, path: Path, shard: Shard) -> StoreHeader:
    """The header with the types of the metadata fields, as the shard's file of metadata has them."""
    if Names.METADATA not in shard.files:
        return header
    metadata = open_metadata(path, shard.rows)
    fields = {name: tuple(sorted(kinds)) for name, kinds in metadata.fields.items()}
    return replace(header, fields=fields, all_fields=not metadata.left_out)


def _blocks(source: ShardSource) -> Iterator[Block]:
    for block in source.blocks():
        vectors = block.read()
        for first in range(0, len(block.rows), _ROWS_AT_ONCE):
            part = slice(first, first + _ROWS_AT_ONCE)
            yield Block(block.rows[part], vectors[part])
