"""Opens an index and answers questions from it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import IndexFolderError, LLM2CompError, SettingsError
from llm2comp_indexes.checked_files import check_content
from llm2comp_indexes.documents import DocumentReader
from llm2comp_indexes.encoder import Encoder, encode, load_encoder
from llm2comp_indexes.manifest import DOCUMENTS, OFFSETS, VECTORS, Manifest, Segment, read_manifest
from llm2comp_indexes.vectors import read_flat

__all__ = ["Hit", "Index", "open_index"]

_QUERIES_AT_ONCE = 1024


class Hit(NamedTuple):
    """A document found, with its score (inner product of the unit vectors: their cosine, -1 to 1)."""

    id: str
    score: float
    title: str
    text: str
    metadata: dict[str, Any]


class _OpenSegment(NamedTuple):
    vectors: Any
    documents: DocumentReader


def open_index(folder: str | Path, *, model: str | Path | Encoder | None = None) -> "Index":
    """The index in the folder, ready to search.

    Args:
        folder: What `build_index` wrote.
        model: The model the index was built with, loaded or to be loaded from another place than the manifest names.

    Raises:
        IndexFolderError: No index there, one of a newer format, an incomplete or altered one, or another model's.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    try:
        return Index(folder, manifest, model=model)
    except (IndexFolderError, OSError):
        if (latest := read_manifest(folder)) == manifest:
            raise
        return Index(folder, latest, model=model)  # it was overwritten, and its old files removed, while we were opening them


class Index:
    """An open index; made by `open_index`. Closes its files as a context manager, or when it is collected."""

    def __init__(self, folder: Path, manifest: Manifest, *, model: str | Path | Encoder | None = None) -> None:
        self.folder = folder
        self.manifest = manifest
        self._encoder: Encoder | None = None
        if model is not None:
            self._encoder = self._check(load_encoder(model)[0])
        self._segments = [_open_segment(folder / "segments" / segment.name, segment, self.manifest.dimension) for segment in self.manifest.segments]
        self._ends = np.cumsum([segment.documents for segment in self.manifest.segments])  # (segments,)

    def __len__(self) -> int:
        return self.manifest.documents

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the index's files; it cannot be searched any more."""
        for segment in self._segments:
            segment.documents.close()
        self._segments = []

    @property
    def model(self) -> Encoder:
        """The model that encodes the queries, loaded at first use.

        Raises:
            IndexFolderError: It cannot be loaded, or is not the one the index was built with.
        """
        if self._encoder is None:
            try:
                loaded, _ = load_encoder(self.manifest.model)
            except LLM2CompError as error:
                raise IndexFolderError(f"{self.folder}: its model cannot be loaded: {error}; say where it lies now (--model)") from error
            self._encoder = self._check(loaded)
        return self._encoder

    def search(self, queries: Sequence[str], k: int = 10) -> list[list[Hit]]:
        """The best k documents for each query, best first; all documents if there are fewer.

        Equal scores keep the order of the corpus.

        Raises:
            SettingsError: k is below 1, or `queries` is a single string.
        """
        if isinstance(queries, str):
            raise SettingsError(f"queries is a string, expected a list: search([{queries[:40]!r}])")
        hits: list[list[Hit]] = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            block = list(queries[start : start + _QUERIES_AT_ONCE])
            scores, rows = self.search_vectors(encode(self.model.encode_query, block, self.manifest.dimension), k)
            hits += [[self._hit(*pair) for pair in zip(*row, strict=True)] for row in zip(scores.tolist(), rows.tolist(), strict=True)]
        return hits

    def search_vectors(self, vectors: NDArray[np.float32], k: int = 10) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and rows, both (queries, min(k, documents)), best first, for query vectors (queries, dimension).

        Raises:
            SettingsError: k is below 1.
            IndexFolderError: The vectors have another dimension.
        """
        if k < 1:
            raise SettingsError(f"k is {k}, expected at least 1")
        if vectors.ndim != 2 or vectors.shape[1] != self.manifest.dimension:
            raise IndexFolderError(f"query vectors of shape {vectors.shape}, expected (queries, {self.manifest.dimension})")
        found = [segment.vectors.search(vectors, min(k, segment.vectors.ntotal)) for segment in self._segments]
        starts = [0, *self._ends[:-1]]
        scores = np.concatenate([scores for scores, _ in found], axis=1)  # (queries, k of every segment)
        rows = np.concatenate([rows + start for (_, rows), start in zip(found, starts, strict=True)], axis=1)
        best = np.lexsort((rows, -scores))[:, :k]
        return np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)

    def _hit(self, score: float, row: int) -> Hit:
        position = int(np.searchsorted(self._ends, row, side="right"))
        first = int(self._ends[position - 1]) if position else 0
        document = self._segments[position].documents[row - first]
        return Hit(document.id, score, document.title, document.text, document.metadata)

    def _check(self, encoder: Encoder) -> Encoder:
        given, expected = encoder.fingerprint, self.manifest.fingerprint
        dimension = encoder.get_embedding_dimension()
        if dimension != self.manifest.dimension:
            raise IndexFolderError(
                f"{self.folder}: holds vectors of dimension {self.manifest.dimension}, the model gives {dimension}; name the model it was built with (--model)"
            )
        if given != expected:
            raise IndexFolderError(
                f"{self.folder}: built with {self.manifest.model or 'another model'} (fingerprint {expected[:12]}), which the model at hand is not "
                f"({given[:12]}); name the one it was built with (--model), or build the index again"
            )
        return encoder


def _open_segment(folder: Path, segment: Segment, dimension: int) -> _OpenSegment:
    vectors = read_flat(folder / VECTORS, segment.files[VECTORS], segment.documents, dimension)
    check_content(folder / OFFSETS, segment.files[OFFSETS])
    return _OpenSegment(vectors, DocumentReader(folder / DOCUMENTS, folder / OFFSETS, segment.documents))
