"""What the vector stores of both frameworks share: an index on disk that takes documents with their vectors."""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp.corpus.scalars import to_json
from llm2comp.errors import IndexFolderError, SettingsError
from llm2comp_adapters.embedding_name import EmbeddingName
from llm2comp_adapters.retrieval import Mode
from llm2comp_indexes import Hit, Index, IndexOptions, SearchOptions, delete_documents
from llm2comp_indexes.change.vectors import clear_index, create_empty_index, upsert_vectors
from llm2comp_indexes.filters.parse import Where
from llm2comp_indexes.format.manifest import manifest_state, read_manifest
from llm2comp_indexes.search.index import open_last_commit
from llm2comp_indexes.search.lookup import find_rows, read_vectors, select_rows

__all__ = ["Candidates", "DocumentStore", "Filter", "make_document"]

_logger = logging.getLogger(__name__)

Filter: TypeAlias = str | Where | None


class Candidates(NamedTuple):
    """Hits, best first, with their unit vectors (hits, dimension)."""

    hits: list[Hit]
    vectors: NDArray[np.float32]


class DocumentStore:
    """An index on disk to which documents are added with their vectors; an empty one is made if there is none.

    Every change is one commit. A search sees the last commit, whoever made it. Any number of threads may use it; the
    changes of several threads or processes wait for each other.
    """

    def __init__(
        self,
        folder: str | Path,
        embedding: EmbeddingName,
        *,
        options: IndexOptions | None = None,
        timeout: float = 30.0,
        model: Any = None,
    ) -> None:
        """Opens the index.

        Args:
            folder: Folder of the index.
            embedding: What the vectors are made by.
            options: Options of a new index.
            timeout: Seconds to wait for another writer.
            model: The embedding's model, if this process has loaded it, to rescore with if it is the one of the index;
                None: that is loaded when it is needed.

        Raises:
            IndexFolderError: The folder holds something else, an index of chunks, or of another embedding.
        """
        if not isinstance(folder, str | Path):
            raise TypeError(
                f"index_dir is {type(folder).__name__}, expected a folder; the embedding is the second argument"
            )
        self.folder, self.embedding, self.timeout = Path(folder).absolute(), embedding, timeout
        self._model = model
        self._warned: set[str] = set()
        self._lock = threading.Lock()
        if manifest_state(self.folder) is None:
            self._create(options)
        self._state: tuple[int, ...] | None = None
        self._index: Index | None = None
        self.index  # noqa: B018  (opens and checks it)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.folder, self.embedding, self.timeout)

    @property
    def index(self) -> Index:
        """The index at its last commit."""
        with self._lock:
            state = manifest_state(self.folder)
            if self._index is None or state != self._state:
                known = self._index.segments if self._index else ()
                index = open_last_commit(self.folder, self._own_model(), known=known)  # files of both stay open
                self._check(index)
                self._index, self._state = index, state  # threads that still search the one before keep it open
            return self._index

    def upsert(self, documents: Sequence[Document], vectors: Sequence[Sequence[float]]) -> None:
        """Adds the documents, in one commit; those of the same ids are replaced, and of two in one call the last stays.

        Raises:
            IndexFolderError: Another process is still writing after the timeout, or the vectors have another dimension.
            SettingsError: A vector is missing or not finite, or metadata names a field twice.
        """
        if not documents:
            return
        upsert_vectors(
            self.folder,
            documents,
            _to_array(vectors),
            fingerprint=self.embedding.fingerprint,
            wait=self.timeout,
        )

    def delete(self, identifiers: Sequence[str] = (), *, where: Filter = None) -> None:
        """Deletes the documents of these ids, or those that match the filter, in one commit.

        Ids that are not there are no error.
        """
        delete_documents(self.folder, _check_ids(identifiers), where=where, wait=self.timeout)

    def clear(self) -> None:
        """Deletes all documents, in one commit."""
        clear_index(self.folder, wait=self.timeout)

    def get(self, identifiers: Sequence[str]) -> list[Hit]:
        """The documents of these ids, in their order, each once; their score is 0. Ids that are not there are left out.

        Raises:
            SettingsError: `identifiers` is no list of strings.
        """
        index = self.index
        rows = find_rows(index, list(dict.fromkeys(_check_ids(identifiers))))
        return [index.fetch(row, 0.0) for known in rows for row in known]

    def select(self, where: Filter) -> list[Hit]:
        """The documents that match the filter, in their order; all of them for None. Their score is 0."""
        index = self._index_for(where)
        return [index.fetch(row, 0.0) for row in select_rows(index, where).tolist()]

    def search(
        self,
        vector: Sequence[float] | None,
        k: int,
        *,
        query: str = "",
        mode: Mode = "dense",
        where: Filter = None,
        options: SearchOptions | None = None,
    ) -> list[Hit]:
        """The k best documents, best first; fewer if fewer match.

        Args:
            vector: Vector of the query; not needed with mode `bm25`.
            k: Number of documents.
            query: The query; not needed with mode `dense`, unless it is rescored.
            mode: Search by vectors, by words, or by both.
            where: Filter on metadata.
            options: Effort, weights, threads, rescoring; its mode and where are not used.

        Raises:
            SettingsError: k is not from 1 to 1,000, the vector has another dimension or is not finite, the filter
                cannot be parsed or match any document, the mode needs a BM25 index and there is none, or rescoring
                needs vectors of memory tokens that the index or its model does not have, or the query.
        """
        index = self._index_for(where)
        chosen = replace(options or SearchOptions(), mode=mode, where=where)
        if chosen.rescore is not None and not query.strip():
            raise SettingsError("rescore maxsim compares the text of the query, and there is none: give it too")
        vectors = None if mode == "bm25" else _to_query(vector, index)
        [hits] = index.search([query], k, options=chosen, vectors=vectors)
        return hits

    def find_candidates(self, vector: Sequence[float], k: int, where: Filter = None) -> Candidates:
        """The k best documents with their vectors, for a choice among them."""
        index = self._index_for(where)
        matches = index.search_vectors(_to_query(vector, index), k, options=SearchOptions(where=where))
        pairs = [
            (row, score)
            for row, score in zip(matches.rows[0].tolist(), matches.scores[0].tolist(), strict=True)
            if row >= 0
        ]
        hits = [index.fetch(row, score) for row, score in pairs]
        return Candidates(hits, read_vectors(index, [row for row, _ in pairs]))

    def rank(self, identifiers: Sequence[str], vector: Sequence[float], k: int, where: Filter = None) -> Candidates:
        """As `find_candidates`, among the documents of these ids."""
        index = self.index
        rows = sorted({row for known in find_rows(index, list(dict.fromkeys(identifiers))) for row in known})
        if where is not None:
            rows = sorted(set(rows) & set(select_rows(index, where).tolist()))
        vectors = read_vectors(index, rows)
        scores = (vectors @ _to_query(vector, index)[0]).tolist() if rows else []
        best = sorted(range(len(rows)), key=lambda place: (-scores[place], rows[place]))[:k]
        return Candidates([index.fetch(rows[place], scores[place]) for place in best], vectors[best])

    def _index_for(self, where: Filter) -> Index:
        """The index; fields of the filter that no document has are logged, once each."""
        index = self.index
        if isinstance(where, Where) and where.allow_unknown and len(index):
            for line in where.find_unknown(segment.metadata for segment in index.segments):
                if line not in self._warned and '"llm2comp_' not in line[:40]:
                    self._warned.add(line)
                    _logger.warning("%s: %s", where.name, line)
        return index

    def _own_model(self) -> Any:
        """The model given, if the index was built with it."""
        if self._model is None or self._model.fingerprint != read_manifest(self.folder).fingerprint:
            return None
        return self._model

    def _create(self, options: IndexOptions | None) -> None:
        name = self.embedding
        try:
            create_empty_index(
                self.folder, fingerprint=name.fingerprint, model=name.model, dimension=name.dimension, options=options
            )
        except IndexFolderError:
            if manifest_state(self.folder) is None:
                raise  # else another process made it meanwhile

    def _check(self, index: Index) -> None:
        """Raises IndexFolderError unless the index is one of documents that are not cut, and of this embedding."""
        manifest, name = index.manifest, self.embedding
        if manifest.options.has_chunks:
            raise IndexFolderError(
                f"{self.folder}: an index of chunks, which LLM2CompRetriever searches and `llm2comp index add` "
                "extends; a vector store needs one of whole documents"
            )
        if manifest.encoder.max_length or manifest.encoder.truncate_dim:
            raise IndexFolderError(
                f"{self.folder}: encoded with {manifest.encoder.describe()}, which an embedding does not follow; "
                "search it with LLM2CompRetriever, and extend it with `llm2comp index add`"
            )
        if name.fingerprint and manifest.fingerprint and name.fingerprint != manifest.fingerprint:
            raise IndexFolderError(
                f"{self.folder}: made with {_show(manifest.fingerprint, manifest.model)}, opened with "
                f"{_show(name.fingerprint, name.model)}; take the embedding that it was made with, or, if it is "
                "the same, name it as then (embedding_name)"
            )
        if name.dimension and manifest.dimension not in (0, name.dimension):
            raise IndexFolderError(
                f"{self.folder}: holds vectors of dimension {manifest.dimension}, the embedding gives {name.dimension}"
            )


def make_document(identifier: str, text: str, metadata: Mapping[str, Any]) -> Document:
    """A document with its metadata as JSON values: dates and times as ISO text, NaN as null.

    Raises:
        SettingsError: The id is no string, or the metadata holds something that JSON cannot hold.
    """
    if not isinstance(identifier, str):
        raise SettingsError(f"the id {identifier!r:.60} is {type(identifier).__name__}, expected a string")
    if not isinstance(metadata, Mapping):
        raise SettingsError(f'document "{identifier}": metadata is {metadata!r:.60}, expected a dict')
    left_out: set[str] = set()
    try:
        values = to_json(dict(metadata), left_out=left_out)
    except ValueError as error:
        raise SettingsError(f'document "{identifier}": metadata {error}') from None
    if left_out:
        raise SettingsError(
            f'document "{identifier}": metadata cannot hold {", ".join(sorted(left_out))}; expected texts, numbers, '
            "truth values, dates, lists and dicts of these"
        )
    return Document(identifier, "", text, values)


def _check_ids(identifiers: Sequence[str]) -> list[str]:
    """The ids as a list.

    Raises:
        SettingsError: They are a single string, a filter, or hold anything but strings.
    """
    if isinstance(identifiers, str | Mapping):
        hint = "give a list" if isinstance(identifiers, str) else "give a filter as filter=…"
        raise SettingsError(
            f"ids is {type(identifiers).__name__} {identifiers!r:.60}, expected a list of strings; {hint}"
        )
    listed = list(identifiers)
    if strange := [identifier for identifier in listed if not isinstance(identifier, str)]:
        raise SettingsError(f"ids hold {strange[0]!r:.40}, expected strings only")
    return listed


def _to_array(vectors: Sequence[Any]) -> NDArray[np.float32]:
    try:
        return np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError):
        lengths = sorted({len(vector) if hasattr(vector, "__len__") else 0 for vector in vectors})
        raise SettingsError(f"vectors of lengths {lengths}, expected numbers, and one length for all") from None


def _to_query(vector: Sequence[float] | None, index: Index) -> NDArray[np.float32]:
    """The vector as (1, dimension), of unit length.

    Raises:
        SettingsError: There is none, it has another dimension, or is not finite.
    """
    dimension = index.manifest.dimension
    array = _to_array([] if vector is None else vector).astype(np.float64)
    if array.ndim != 1 or not len(array) or dimension not in (0, len(array)):
        expected = f"({dimension},), as the vectors of {index.folder}" if dimension else "(dimension,)"
        raise SettingsError(f"the query's vector is of shape {array.shape}, expected {expected}")
    if not np.isfinite(array).all():
        raise SettingsError("the query's vector is not finite")
    unit: NDArray[np.float32] = (array / max(float(np.linalg.norm(array)), 1e-30)).astype(np.float32)
    return unit[None]


def _show(fingerprint: str, model: str | None) -> str:
    return f"{model or 'a model'} (fingerprint {fingerprint[:12]})" if len(fingerprint) == 64 else f'"{fingerprint}"'


def _reopen(folder: Path, embedding: EmbeddingName, timeout: float) -> DocumentStore:
    return DocumentStore(folder, embedding, timeout=timeout)
