"""Hits: the documents, or chunks of documents, that a search returns."""

from typing import Any, NamedTuple

from llm2comp_indexes.format.chunks import HEADINGS, LAST_PAGE, PAGE, parent_id

__all__ = ["Hit", "WholeDocument"]


class Hit(NamedTuple):
    """A document found by a search.

    In an index of chunks, the `id` of a chunk is `DOCUMENT#N`, and its metadata holds `llm2comp_document` and
    `llm2comp_chunk` (in indexes that version 0.1.0 built, until they are merged: `document` and `chunk`). Chunks that
    end at sentences also have their place in the text (`llm2comp_begin`, `llm2comp_end`), the headings above them
    (`llm2comp_headings`) and their pages (`llm2comp_page`, `llm2comp_last_page`), if there are any.

    Attributes:
        id: Id of the document, or of the chunk.
        score: Inner product of the unit vectors (their cosine, -1 to 1); with mode `bm25` the BM25 score, with `hybrid`
            the weighted mean of both, each scaled to 0..1, or the sum of weighted reciprocal ranks. With `rescore`, the
            MaxSim score: a sum of k cosines.
        title: Title of the document.
        text: Text of the document, or of the chunk.
        metadata: Metadata of the document.
    """

    id: str
    score: float
    title: str
    text: str
    metadata: dict[str, Any]

    @property
    def document_id(self) -> str:
        """Id of the document, also for a chunk of it."""
        return parent_id(self.id, self.metadata)

    @property
    def location(self) -> str:
        """Where a chunk stands in its document, ready to cite: `Install > Linux, p. 3`; empty if that is unknown."""
        if self.document_id == self.id:
            return ""
        headings, page = self.metadata.get(HEADINGS, []), self.metadata.get(PAGE)
        last = self.metadata.get(LAST_PAGE)
        pages = "" if page is None else f"p. {page}" if last is None else f"pp. {page}-{last}"
        path = " > ".join(heading for heading in headings if heading != self.title)
        return ", ".join(filter(None, [path, pages]))

    @property
    def citation(self) -> str:
        """Title (or id) of the document and where in it the text stands: `Guide, Install > Linux, p. 3`."""
        return ", ".join(filter(None, [self.title or self.document_id, self.location]))


class WholeDocument(Hit):
    """A hit in an index without chunks: a document, even if its id and metadata look like those of a chunk."""

    __slots__ = ()

    @property
    def document_id(self) -> str:
        """The id."""
        return self.id
