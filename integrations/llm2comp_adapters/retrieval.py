"""What the retrievers of both frameworks share: opening an index, and the metadata of its results."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from llm2comp.errors import SettingsError
from llm2comp_indexes import Encoder, Hit, Index, SearchOptions, StoreIndex, open_index, open_store_index

__all__ = ["Mode", "check_folder", "check_store", "check_url", "hit_metadata", "open_and_check", "open_store_and_check"]

Mode: TypeAlias = Literal["dense", "bm25", "hybrid"]
"""Search by vectors, by words, or by both."""


def open_and_check(folder: str | Path, model: str | Path | Encoder | None, k: int, options: SearchOptions) -> Index:
    """The index, opened and searched once with an empty question, so that errors show before the first real search.

    Its model is loaded if the mode needs it.

    Raises:
        IndexFolderError: There is no index, or its model cannot be loaded or is another one.
        SettingsError: The index cannot be searched with this k or these options.
    """
    index = open_index(folder, model=model)
    if options.rescore is not None:
        index.search([""], k, options=options)
    elif options.mode == "dense":
        index.search_vectors(np.zeros((1, index.manifest.dimension), dtype=np.float32), k, options=options)
    else:
        index.search([""], k, options=replace(options, mode="bm25"))
    if options.mode != "bm25":
        index.model  # noqa: B018  (loads it)
    return index


def open_store_and_check(url: str, model: str | Path | Encoder | None, k: int, options: SearchOptions) -> StoreIndex:
    """The table of a store, opened and searched once with a vector of zeros, so that errors show now.

    Its model is loaded.

    Raises:
        StoreError: The store cannot be reached, has no such table, or its model is another one.
        SettingsError: The address is of no store, or the table cannot be searched with this k or these options.
    """
    index = open_store_index(url, model=model)
    index.search([""], k, options=options, vectors=np.zeros((1, index.dimension), dtype=np.float32))
    index.model  # noqa: B018  (loads it)
    return index


def check_store(**settings: Any) -> None:
    """Checks that nothing is given with a store that is for a folder or a server.

    Raises:
        SettingsError: A setting is not None; the message names it.
    """
    for name, value in settings.items():
        if value is not None:
            raise SettingsError(f"store is given together with {name}: give either")


def check_folder(**settings: Any) -> None:
    """Checks that nothing is given with a folder that is for a server.

    Raises:
        SettingsError: A setting is not None; the message names it.
    """
    for name, value in settings.items():
        if value is not None:
            raise SettingsError(f"index_dir is given together with {name}, which is for a server: give either")


def check_url(url: str | None, **settings: Any) -> str:
    """The address of the server.

    Args:
        url: The address.
        settings: What is for a folder.

    Raises:
        SettingsError: There is none, or a setting is not None; the message names it.
    """
    if url is None:
        raise SettingsError(
            "give index_dir, the folder of an index, url, the address of llm2comp serve, or store, the address of a "
            "table that llm2comp index push wrote"
        )
    for name, value in settings.items():
        if value is not None:
            raise SettingsError(f"url is given together with {name}, which the server decides: leave it out")
    return url


def hit_metadata(hit: Hit) -> dict[str, Any]:
    """Metadata of the result, with its title, if any, as `title`; `llm2comp_title` if another `title` is in it."""
    if not hit.title or hit.metadata.get("title") == hit.title:
        return dict(hit.metadata)
    return {"llm2comp_title" if "title" in hit.metadata else "title": hit.title} | hit.metadata
