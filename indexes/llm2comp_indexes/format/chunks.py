"""Fields in the metadata of a chunk: which document it is of, which of its chunks it is, and where it stands."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from llm2comp.corpus.documents import Document
from llm2comp.errors import IndexFolderError

__all__ = [
    "BEGIN",
    "CHUNK_FIELDS",
    "CHUNK_FIELDS_0_1",
    "END",
    "HEADINGS",
    "LAST_PAGE",
    "PAGE",
    "PLACE_FIELDS",
    "REPEATED",
    "ChunkFields",
    "parent_id",
    "text_with_headings",
    "with_new_fields",
]


class ChunkFields(NamedTuple):
    """Names of the two fields.

    Attributes:
        document: Field of the document's id.
        chunk: Field of the number of the chunk, from 1.
    """

    document: str
    chunk: str


CHUNK_FIELDS = ChunkFields("llm2comp_document", "llm2comp_chunk")
"""Reserved: no document may bring fields of these names."""
CHUNK_FIELDS_0_1 = ChunkFields("document", "chunk")
"""Those of version 0.1.0. An index keeps them until it is merged, so that filters mean the same in all its segments."""

BEGIN, END = "llm2comp_begin", "llm2comp_end"
"""Places in characters: the chunk is `text[begin:end]` of its document."""
HEADINGS = "llm2comp_headings"
"""The headings above the chunk, outermost first; left out if there are none."""
PAGE, LAST_PAGE = "llm2comp_page", "llm2comp_last_page"
"""Pages, from 1, on which the chunk begins and, if that is another one, ends; left out if the document has none."""
REPEATED = "llm2comp_repeated"
"""Number of characters of a table's header that the text has before `text[begin:end]`; left out if there are none."""
PLACE_FIELDS = (BEGIN, END, HEADINGS, PAGE, LAST_PAGE, REPEATED)
"""Reserved like `CHUNK_FIELDS`."""


def text_with_headings(row: Document) -> str:
    """Title, headings if the row is a chunk below some, and text."""
    headings = row.metadata.get(HEADINGS)
    if not headings or parent_id(row.id, row.metadata) == row.id:
        return row.content
    return replace(row, text=" > ".join(headings) + "\n" + row.text).content


def parent_id(identifier: str, metadata: Mapping[str, Any]) -> str:
    """Id of the document that a row of an index of chunks is, or is a chunk of."""
    parents = (_find_parent(identifier, metadata, fields) for fields in (CHUNK_FIELDS, CHUNK_FIELDS_0_1))
    return next((parent for parent in parents if parent is not None), identifier)


def _find_parent(identifier: str, metadata: Mapping[str, Any], fields: ChunkFields) -> str | None:
    parent = metadata.get(fields.document)
    return parent if isinstance(parent, str) and identifier == f"{parent}#{metadata.get(fields.chunk)}" else None


def with_new_fields(row: Document) -> Document:
    """The row of an index or shard of chunks; if version 0.1.0 made the chunk, with today's names of the fields.

    Raises:
        IndexFolderError: The metadata has a field of a reserved name, which version 0.1.0 did not refuse.
    """
    if _find_parent(row.id, row.metadata, CHUNK_FIELDS) is not None:
        return row
    if taken := [name for name in CHUNK_FIELDS if name in row.metadata]:
        raise IndexFolderError(
            f'document "{row.id}": its metadata has the field "{taken[0]}", which is reserved; rename it in the corpus '
            "and build the index again"
        )
    if _find_parent(row.id, row.metadata, CHUNK_FIELDS_0_1) is None:
        return row
    names = dict(zip(CHUNK_FIELDS_0_1, CHUNK_FIELDS, strict=True))
    return replace(row, metadata={names.get(name, name): value for name, value in row.metadata.items()})
