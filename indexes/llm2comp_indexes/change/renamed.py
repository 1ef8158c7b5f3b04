"""Renamed files: documents under another id, recognised by their content, whose vectors are used again."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp.corpus.read import find_source_files
from llm2comp.corpus.rows import Rows
from llm2comp.corpus.sources import Source
from llm2comp_indexes.builder.chunks import make_row_encoder
from llm2comp_indexes.change import compare
from llm2comp_indexes.change.tracking import StoredDocument, TrackedRows
from llm2comp_indexes.encoder import RowEncoder, RowVectors
from llm2comp_indexes.format.chunks import HEADINGS
from llm2comp_indexes.search.index import Index

__all__ = ["ReusingEncoder", "UnlistedFiles", "find_unlisted"]


class UnlistedFiles:
    """Documents of files that are not there any more under their names, by content.

    Attributes:
        most: Whether they are more than half of the documents of one of the sources, by rows.
    """

    def __init__(self, *, most: bool = False) -> None:
        self.most = most
        self._documents: dict[bytes, list[StoredDocument]] = defaultdict(list)

    def add(self, document: StoredDocument, rows: Sequence[Document]) -> None:
        """Adds a document with its rows."""
        self._documents[_digest(rows)].append(document)

    def take(self, rows: Sequence[Document]) -> StoredDocument | None:
        """A document of these titles, headings and texts, which is removed; None: there is none."""
        documents = self._documents.get(_digest(rows)) if self._documents else None
        return documents.pop(0) if documents else None


def _digest(rows: Sequence[Document]) -> bytes:
    """Digest of all that the vectors of the rows depend on."""
    texts = [(row.title, row.metadata.get(HEADINGS), row.text) for row in rows]
    return blake2b(repr(texts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def find_unlisted(
    index: Index, tracked: TrackedRows, corpora: Mapping[int, tuple[str | Path | Rows, Source]]
) -> UnlistedFiles:
    """Documents of the given sources whose files are gone, or have another name now.

    Args:
        index: The index.
        tracked: Its rows.
        corpora: Corpus and source by the place of the source.

    Raises:
        CorpusError: A corpus is missing, or cannot be listed.
    """
    listed = [np.zeros(segment.rows, np.bool_) for segment in index.segments]
    of_files = set()
    for place, (corpus, source) in corpora.items():
        files = find_source_files(corpus, source)
        if files is None:
            continue
        of_files.add(place)
        identifiers = (file.identifier for file in files)
        while block := list(islice(identifiers, compare.IDS_AT_ONCE)):
            for segment, mask in zip(index.segments, listed, strict=True):
                mask[np.concatenate(segment.ids.find(block))] = True
    unlisted = UnlistedFiles(most=_are_most(index, tracked, listed, of_files))
    for document in tracked.find_of(of_files, listed):
        documents = index.segments[document.segment].documents
        unlisted.add(document, [documents[row] for row in document.rows])
    return unlisted


def _are_most(index: Index, tracked: TrackedRows, listed: Sequence[NDArray[np.bool_]], sources: set[int]) -> bool:
    """Whether more than half of the rows of one of the sources are not listed."""
    for source in sources:
        rows = unlisted = 0
        for segment, origins, mask in zip(index.segments, tracked.origins, listed, strict=True):
            alive = np.ones(segment.rows, np.bool_) if segment.alive is None else segment.alive
            of_source = (origins.sources == source) & alive
            rows += int(of_source.sum())
            unlisted += int((of_source & ~mask).sum())
        if 2 * unlisted > rows:
            return True
    return False


class ReusingEncoder:
    """Encodes rows, except those whose vectors the index holds; the model is loaded when it is needed.

    Args:
        index: The index.
        stored: By the id of a row: number of the segment and row whose vector it has. May grow meanwhile.
        batch_size: As for `RowEncoder`.
    """

    def __init__(self, index: Index, stored: Mapping[str, tuple[int, int]], *, batch_size: int | None = None) -> None:
        self._index, self._stored, self._batch_size = index, stored, batch_size
        self._encode: RowEncoder | None = None

    @property
    def rows(self) -> int:
        """Number of rows encoded so far."""
        return self._encode.rows if self._encode else 0

    @property
    def seconds(self) -> float:
        """Seconds spent in encoding so far."""
        return self._encode.seconds if self._encode else 0.0

    def __call__(self, rows: Sequence[Document]) -> RowVectors:
        """Vectors of the rows."""
        manifest = self._index.manifest
        vectors = np.empty((len(rows), manifest.dimension), np.float32)
        form = manifest.memory
        memory = np.empty((len(rows), form.tokens, form.dimension), np.float32) if form else None
        new = [place for place, row in enumerate(rows) if row.id not in self._stored]
        if new:
            made = self._loaded()([rows[place] for place in new])
            vectors[new] = made.vectors
            if memory is not None and made.memory is not None:
                memory[new] = made.memory
        for place, row in enumerate(rows):
            if row.id in self._stored:
                segment, stored = self._stored[row.id]
                opened, number = self._index.segments[segment], np.array([stored])
                vectors[place] = opened.storage.read(number)[0]
                if memory is not None and opened.memory is not None:
                    memory[place] = opened.memory.read(number)[0]
        return RowVectors(vectors, memory)

    def _loaded(self) -> RowEncoder:
        if self._encode is None:
            self._encode = make_row_encoder(self._index.manifest.options, self._index.model, self._batch_size)
        return self._encode
