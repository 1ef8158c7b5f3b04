"""`LLM2CompVectorStore`: an index on disk as a LangChain vector store."""
# Searches take no further keywords, which LangChain would ignore: a misspelled one is an error
# mypy: disable-error-code="override"

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.runnables import run_in_executor
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from langchain_llm2comp.embeddings import LLM2CompEmbeddings
from langchain_llm2comp.filters import to_filter
from llm2comp.errors import SettingsError
from llm2comp_adapters import (
    Candidates,
    DocumentStore,
    Mode,
    check_query,
    check_texts,
    hit_metadata,
    loaded_model,
    make_document,
    name_embedding,
)
from llm2comp_indexes import Hit, IndexOptions, SearchOptions

__all__ = ["LLM2CompVectorStore"]

MetadataFilter = Mapping[str, Any] | str


class LLM2CompVectorStore(VectorStore):
    """Documents and their vectors in an index on disk, which every change commits as a whole.

    The folder is one of `llm2comp index`: its commands and `LLM2CompRetriever` work on it too, if the embedding is an
    `LLM2CompEmbeddings`. Scores are cosines. Searches see the last commit, also that of another process; a change
    waits for the one of another process. Any number of threads may use one object.

    A document with the id of another replaces it. Filters are dicts (see `to_filter`: `$and`, `$or`, `$not`, `$gte` …)
    or texts such as `year >= 2020 and lang in ("en", "de")`.

    Examples:
        >>> import tempfile
        >>> from langchain_llm2comp import LLM2CompVectorStore
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = LLM2CompVectorStore(f"{folder}/my.index")
        ...     _ = store.add_texts(["Bread rises because yeast makes gas.", "The train leaves at nine."])
        ...     store.similarity_search("what makes bread rise?", k=1)[0].page_content
        'Bread rises because yeast makes gas.'
    """

    def __init__(
        self,
        index_dir: str | Path,
        embedding: Embeddings | None = None,
        *,
        embedding_name: str | None = None,
        options: IndexOptions | None = None,
        timeout: float = 30.0,
    ) -> None:
        """Opens the index, or makes an empty one.

        Args:
            index_dir: Folder of the index.
            embedding: Any embeddings of LangChain; None: the bundled model.
            embedding_name: Name of the embedding, which is recorded, and compared when the folder is opened again;
                None: the fingerprint of an `LLM2CompEmbeddings`, or the names of class and model of any other.
            options: Options of a new index, such as `IndexOptions(hybrid=True)` for search by words too.
            timeout: Seconds that a change waits for that of another process.

        Raises:
            IndexFolderError: The folder holds something else, an index of chunks, or one of another embedding.
        """
        if embedding is not None and (isinstance(embedding, type) or not hasattr(embedding, "embed_documents")):
            raise TypeError(
                f"embedding is {embedding!r:.80}, expected embeddings of LangChain, such as "
                "LLM2CompEmbeddings(model_name=…); the folder comes first"
            )
        self._embedding = LLM2CompEmbeddings() if embedding is None else embedding
        self._store = DocumentStore(
            index_dir,
            name_embedding(self._embedding, embedding_name),
            options=options,
            timeout=timeout,
            model=loaded_model(self._embedding),
        )

    @property
    def embeddings(self) -> Embeddings:
        """The embedding."""
        return self._embedding

    def __len__(self) -> int:
        return len(self._store.index)

    def __bool__(self) -> bool:
        return True  # an empty store is one too

    # Changes

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[Mapping[str, Any]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        batch_size: int | None = None,
    ) -> list[str]:
        """Ids of the texts, which are embedded and added in one commit. Of the same id twice, the last text stays.

        Args:
            texts: The texts.
            metadatas: Metadata of each: JSON values, nested ones too; dates become ISO text.
            ids: Id of each; None for a new one.
            batch_size: Not used; LangChain's `index` gives it.

        Raises:
            SettingsError: The numbers differ, or the metadata holds something that JSON cannot hold.
            TypeError: A text is not a string.
        """
        documents = _make_documents(texts, metadatas, ids)
        self._store.upsert(documents, self._embedding.embed_documents([document.text for document in documents]))
        return [document.id for document in documents]

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[Mapping[str, Any]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        batch_size: int | None = None,
    ) -> list[str]:
        """As `add_texts`."""
        documents = _make_documents(texts, metadatas, ids)
        vectors = await self._embedding.aembed_documents([document.text for document in documents])
        await run_in_executor(None, self._store.upsert, documents, vectors)
        return [document.id for document in documents]

    def add_embeddings(
        self,
        text_embeddings: Iterable[tuple[str, Sequence[float]]],
        metadatas: Iterable[Mapping[str, Any]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
    ) -> list[str]:
        """As `add_texts`, for texts with vectors that the embedding made before."""
        pairs = list(text_embeddings)
        documents = _make_documents([text for text, _ in pairs], metadatas, ids)
        self._store.upsert(documents, [vector for _, vector in pairs])
        return [document.id for document in documents]

    def delete(self, ids: Sequence[str] | None = None, *, filter: MetadataFilter | None = None) -> bool:
        """Deletes the documents of these ids, or those that match the filter, in one commit.

        An id that is not there is no error. To delete all documents, call `clear`.

        Raises:
            SettingsError: Neither or both are given.
        """
        if (ids is None) == (not filter):
            raise SettingsError("delete takes ids or a filter, one of the two; to delete all documents, call clear()")
        self._store.delete(ids or (), where=to_filter(filter or None))
        return True

    async def adelete(self, ids: Sequence[str] | None = None, *, filter: MetadataFilter | None = None) -> bool:
        """As `delete`."""
        return await run_in_executor(None, self.delete, ids, filter=filter)

    def clear(self) -> None:
        """Deletes all documents, in one commit."""
        self._store.clear()

    # Searches

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents of these ids, in their order; ids that are not there are left out."""
        return list(map(_to_document, self._store.get(ids)))

    def similarity_search(
        self, query: str, k: int = 4, filter: MetadataFilter | None = None, **search: Any
    ) -> list[Document]:
        """The k documents nearest to the query, best first; keywords as for `similarity_search_with_score`."""
        return [document for document, _ in self.similarity_search_with_score(query, k, filter, **search)]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        filter: MetadataFilter | None = None,
        *,
        mode: Mode = "dense",
        options: SearchOptions | None = None,
    ) -> list[tuple[Document, float]]:
        """The k documents nearest to the query with their scores, best first.

        Args:
            query: The query.
            k: Number of documents, at most 1,000.
            filter: Filter on metadata: a dict or a text.
            mode: `dense` (vectors), `bm25` (words) or `hybrid` (both), which need an index with BM25.
            options: Effort, weights, threads, and rescoring of an index with vectors of memory tokens.
        """
        vector = None if mode == "bm25" else self._embedding.embed_query(check_query(query))
        return self._search(vector, k, query=check_query(query), filter=filter, mode=mode, options=options)

    def similarity_search_by_vector(
        self, embedding: Sequence[float], k: int = 4, filter: MetadataFilter | None = None
    ) -> list[Document]:
        """The k documents nearest to a vector, best first."""
        return [document for document, _ in self.similarity_search_with_score_by_vector(embedding, k, filter)]

    def similarity_search_with_score_by_vector(
        self, embedding: Sequence[float], k: int = 4, filter: MetadataFilter | None = None
    ) -> list[tuple[Document, float]]:
        """The k documents nearest to a vector with their cosines, best first."""
        return self._search(embedding, k, filter=filter)

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: MetadataFilter | None = None,
    ) -> list[Document]:
        """K of the `fetch_k` nearest documents, near to the query and unlike one another.

        Args:
            query: The query.
            k: Number of documents.
            fetch_k: Number of documents to choose from.
            lambda_mult: 1 for nearness alone, 0 for variety alone.
            filter: Filter on metadata.
        """
        vector = self._embedding.embed_query(check_query(query))
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, filter)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: Sequence[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: MetadataFilter | None = None,
    ) -> list[Document]:
        """As `max_marginal_relevance_search`, for a vector."""
        candidates = self._store.find_candidates(embedding, max(k, fetch_k), to_filter(filter))
        return list(map(_to_document, _choose(embedding, candidates, k, lambda_mult)))

    async def asimilarity_search(
        self, query: str, k: int = 4, filter: MetadataFilter | None = None, **search: Any
    ) -> list[Document]:
        """As `similarity_search`."""
        return [document for document, _ in await self.asimilarity_search_with_score(query, k, filter, **search)]

    async def asimilarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        filter: MetadataFilter | None = None,
        *,
        mode: Mode = "dense",
        options: SearchOptions | None = None,
    ) -> list[tuple[Document, float]]:
        """As `similarity_search_with_score`."""
        vector = None if mode == "bm25" else await self._embedding.aembed_query(check_query(query))
        return await run_in_executor(
            None, self._search, vector, k, query=check_query(query), filter=filter, mode=mode, options=options
        )

    async def amax_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: MetadataFilter | None = None,
    ) -> list[Document]:
        """As `max_marginal_relevance_search`."""
        vector = await self._embedding.aembed_query(check_query(query))
        return await run_in_executor(
            None, self.max_marginal_relevance_search_by_vector, vector, k, fetch_k, lambda_mult, filter
        )

    def _search(
        self,
        vector: Sequence[float] | None,
        k: int,
        *,
        query: str = "",
        filter: MetadataFilter | None = None,
        mode: Mode = "dense",
        options: SearchOptions | None = None,
    ) -> list[tuple[Document, float]]:
        hits = self._store.search(vector, k, query=query, mode=mode, where=to_filter(filter), options=options)
        return [(_to_document(hit), hit.score) for hit in hits]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: min(1.0, max(0.0, cosine))

    # Made of texts

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        embedding: Embeddings | None = None,
        metadatas: Iterable[Mapping[str, Any]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        index_dir: str | Path | None = None,
        **settings: Any,
    ) -> Self:
        """A store in the folder `index_dir`, with the texts added to what it holds; settings as for the constructor."""
        store = cls(_check_folder(index_dir), embedding, **settings)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    async def afrom_texts(
        cls,
        texts: Iterable[str],
        embedding: Embeddings | None = None,
        metadatas: Iterable[Mapping[str, Any]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        index_dir: str | Path | None = None,
        **settings: Any,
    ) -> Self:
        """As `from_texts`."""
        store = await run_in_executor(None, lambda: cls(_check_folder(index_dir), embedding, **settings))
        await store.aadd_texts(texts, metadatas, ids=ids)
        return store


def _check_folder(index_dir: str | Path | None) -> str | Path:
    if index_dir is None:
        raise SettingsError("index_dir is missing: the folder that the store is kept in")
    return index_dir


def _make_documents(
    texts: Iterable[str], metadatas: Iterable[Mapping[str, Any]] | None, ids: Iterable[str | None] | None
) -> list[Any]:
    """Documents of an index; those without an id get a new one."""
    listed = check_texts(texts)  # type: ignore[arg-type]
    fields = [{}] * len(listed) if metadatas is None else list(metadatas)
    if isinstance(ids, str):
        raise SettingsError(f"ids is a string, expected a list: [{ids[:40]!r}]")
    names = [None] * len(listed) if ids is None else list(ids)
    for name, values in (("metadatas", fields), ("ids", names)):
        if len(values) != len(listed):
            raise SettingsError(f"{name} has length {len(values):,}, texts {len(listed):,}; give one for each text")
    return [
        make_document(identifier or str(uuid.uuid4()), text, metadata or {})
        for text, metadata, identifier in zip(listed, fields, names, strict=True)
    ]


def _choose(embedding: Sequence[float], candidates: Candidates, k: int, lambda_mult: float) -> list[Hit]:
    if not candidates.hits:
        return []
    vector = np.asarray(embedding, dtype=np.float32)
    return [candidates.hits[place] for place in maximal_marginal_relevance(vector, candidates.vectors, lambda_mult, k)]  # type: ignore[arg-type]


def _to_document(hit: Hit) -> Document:
    return Document(hit.text, id=hit.id, metadata=hit_metadata(hit))
