"""An index on disk as a framework's retriever wants it."""

from pathlib import Path
from typing import Any, Literal, TypeAlias

from llm2comp_indexes import Encoder, Hit, Index, open_index

__all__ = ["Mode", "hit_metadata", "open_with_model"]

Mode: TypeAlias = Literal["dense", "bm25", "hybrid"]
"""Search by vectors, by words, or by both."""


def open_with_model(folder: str | Path, mode: Mode, model: str | Path | Encoder | None) -> Index:
    """The index with its model loaded if the mode needs one, so that whatever is wrong shows before the first question.

    Raises:
        IndexFolderError: No index there, or its model cannot be loaded, or is another one.
    """
    index = open_index(folder, model=model)
    if mode != "bm25":
        index.model  # noqa: B018 - loads it
    return index


def hit_metadata(hit: Hit) -> dict[str, Any]:
    """The document's metadata, and its title, if it has one, as `title`."""
    return ({"title": hit.title} if hit.title else {}) | hit.metadata
