"""Pushes an index: makes a table of a store hold its rows."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from llm2comp.errors import SettingsError
from llm2comp_indexes.export.rows import check_vectors, read_blocks
from llm2comp_indexes.progress import Progress, silent
from llm2comp_indexes.search.checks import report_left_out
from llm2comp_indexes.search.index import Index, open_index
from llm2comp_indexes.stores.header import StoreHeader, VectorType, join_kinds
from llm2comp_indexes.stores.open import open_store
from llm2comp_indexes.stores.transfer import PushReport, push_blocks
from llm2comp_indexes.stores.url import StoreUrl, parse_store_url

__all__ = ["PushReport", "push_index"]

_ROWS_AT_ONCE = 256
"""Rows that are read, hashed and sent at once; the store takes them in while the next ones are read."""


def push_index(
    folder: str | Path,
    to: str | StoreUrl,
    *,
    sync: bool = False,
    truncate_dim: int | None = None,
    float16: bool = False,
    progress: Progress | None = None,
) -> PushReport:
    """Report of the rows written to the table of a store, so that it holds what the index holds.

    Rows are keyed by their ids. Those that the table holds already, equal, are not written again: a second push changes
    nothing, and one that was killed goes on. At the end every vector is compared with that of the index, by a hash that
    is computed of the stored ones, and the rows are counted.

    Vectors of memory tokens are left out, which the log says. Needs 24 bytes of memory for each row, and some blocks.

    Args:
        folder: Folder of the index.
        to: Address of the table, as of `parse_store_url`. A table that is not there is made.
        sync: Delete rows from the table that the index does not have.
        truncate_dim: Number of components that vectors keep, their first; they have unit length again. None: all.
        float16: Store numbers as float16; an index whose store is float16 has that anyway.
        progress: Called with the phase and the number of its rows done.

    Raises:
        IndexFolderError: There is no index, or it was altered.
        SettingsError: The address is of no store, its client is not installed, it cannot index vectors of this
            dimension, or the index is empty.
        StoreError: The store cannot be reached or refuses, the table is another one's or of other vectors, or what it
            holds at the end is not what was written.
    """
    url = parse_store_url(to) if isinstance(to, str) else to
    with open_index(folder) as index:
        if not index.manifest.rows:
            raise SettingsError(f"{folder}: holds no documents, so there is nothing to push")
        report_left_out(index.manifest, "a table of a store")
        header = _header(index, truncate_dim, float16=float16)
        store = open_store(url)
        try:
            store.check_vectors(header.dimension, header.vector_type)
            if (known := store.read_header()) is not None:
                known.check_same(header, str(url))  # before the files are read for their checksums
            check_vectors(index)
            rows = partial(read_blocks, index, _ROWS_AT_ONCE)
            return push_blocks(store, rows, header, sync=sync, progress=progress or silent)
        finally:
            store.close()


def _header(index: Index, truncate_dim: int | None, *, float16: bool) -> StoreHeader:
    """What a table of the index's rows holds."""
    manifest = index.manifest
    dimension, encoder = manifest.dimension, manifest.encoder
    if truncate_dim is not None:
        if not 1 <= truncate_dim <= dimension:
            raise SettingsError(
                f"truncate_dim is {truncate_dim}, and vectors of {index.folder} have {dimension} numbers"
            )
        if truncate_dim < dimension:
            dimension, encoder = truncate_dim, replace(encoder, truncate_dim=truncate_dim)
    columns = [segment.metadata for segment in index.segments if segment.metadata]
    vector_type: VectorType = "float16" if float16 or manifest.options.store == "float16" else "float32"
    return StoreHeader(
        manifest.fingerprint,
        manifest.model,
        dimension,
        vector_type,
        manifest.options.has_chunks,
        encoder,
        join_kinds(metadata.fields for metadata in columns),
        all_fields=not any(metadata.left_out for metadata in columns),
    )
