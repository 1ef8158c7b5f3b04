"""An index on disk as a framework's retriever wants it."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from llm2comp_indexes import Encoder, Hit, Index, SearchOptions, open_index

__all__ = ["Mode", "hit_metadata", "open_to_ask"]

Mode: TypeAlias = Literal["dense", "bm25", "hybrid"]
"""Search by vectors, by words, or by both."""


def open_to_ask(folder: str | Path, model: str | Path | Encoder | None, k: int, options: SearchOptions) -> Index:
    """The index, which has answered a question without words: whatever is wrong shows before the first real one.

    Its model is loaded if the mode needs one.

    Raises:
        IndexFolderError: No index there, or its model cannot be loaded, or is another one.
        SettingsError: It cannot be searched with this k or these options.
    """
    index = open_index(folder, model=model)
    if options.mode == "dense":
        index.search_vectors(np.zeros((1, index.manifest.dimension), dtype=np.float32), k, options=options)
    else:
        index.search([""], k, options=replace(options, mode="bm25"))
    if options.mode != "bm25":
        index.model  # noqa: B018 - loads it
    return index


def hit_metadata(hit: Hit) -> dict[str, Any]:
    """The document's metadata, and its title, if it has one, as `title`."""
    return ({"title": hit.title} if hit.title else {}) | hit.metadata
