"""`LLM2CompVectorStore`: an index on disk as a LlamaIndex vector store."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.indices.query.embedding_utils import get_top_k_mmr_embeddings
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.embeddings.llm2comp.filters import to_filter
from llama_index.embeddings.llm2comp.nodes import SOURCE, to_document, to_node

from llm2comp.errors import SettingsError
from llm2comp_adapters import DocumentStore, Filter, Mode, loaded_model, name_embedding
from llm2comp_indexes import Hit, Index, IndexOptions, SearchOptions
from llm2comp_indexes.filters.conditions import All, Among, Condition, encodable
from llm2comp_indexes.filters.parse import Where, parse_where

__all__ = ["LLM2CompVectorStore"]

_MODES: dict[VectorStoreQueryMode, Mode] = {
    VectorStoreQueryMode.DEFAULT: "dense",
    VectorStoreQueryMode.SPARSE: "bm25",
    VectorStoreQueryMode.TEXT_SEARCH: "bm25",
    VectorStoreQueryMode.HYBRID: "hybrid",
}
_MMR_FACTOR = 4


class LLM2CompVectorStore(BasePydanticVectorStore):
    """Nodes and their vectors in an index on disk, which every change commits as a whole.

    The folder is one of `llm2comp index`: its commands and `LLM2CompRetriever` work on it too, if `embed_model` is an
    `LLM2CompEmbedding`. Similarities are cosines. Queries see the last commit, also that of another process; a change
    waits for the one of another process. Any number of threads may use one object.

    A node with the id of another replaces it. Queries by words (modes `sparse`, `text_search`, `hybrid`) need an index
    with BM25: `options=IndexOptions(hybrid=True)`. `mmr` chooses among four times as many nodes as asked for
    (`mmr_prefetch_k`).

    Examples:
        >>> import tempfile
        >>> from llama_index.core import Document, StorageContext, VectorStoreIndex
        >>> from llama_index.embeddings.llm2comp import LLM2CompEmbedding, LLM2CompVectorStore
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model = LLM2CompEmbedding()
        ...     storage = StorageContext.from_defaults(vector_store=LLM2CompVectorStore(f"{folder}/my.index", model))
        ...     documents = [Document(text="Bread rises because yeast makes gas."), Document(text="Tides fall.")]
        ...     index = VectorStoreIndex.from_documents(documents, storage_context=storage, embed_model=model)
        ...     index.as_retriever(similarity_top_k=1).retrieve("what makes bread rise?")[0].text
        'Bread rises because yeast makes gas.'
    """

    stores_text: bool = True
    is_embedding_query: bool = True
    index_dir: str = Field(description="Folder of the index.", frozen=True)
    embedding_name: str | None = Field(default=None, description="Name of the embedding.", frozen=True)
    timeout: float = Field(default=30.0, ge=0, description="Seconds that a change waits for another.", frozen=True)

    _embed_model: BaseEmbedding | None = PrivateAttr()
    _store: DocumentStore = PrivateAttr()

    def __init__(
        self,
        index_dir: str | Path,
        embed_model: BaseEmbedding | None = None,
        *,
        embedding_name: str | None = None,
        options: IndexOptions | None = None,
        timeout: float = 30.0,
        **fields: Any,
    ) -> None:
        """Opens the index, or makes an empty one.

        Args:
            index_dir: Folder of the index.
            embed_model: The embedding that nodes and queries are embedded with. It is recorded, and compared when the
                folder is opened again; nodes and queries that come without a vector are embedded with it. None: only
                the dimension is compared.
            embedding_name: Name of the embedding to record instead of the fingerprint of an `LLM2CompEmbedding`, or of
                the names of class and model of any other.
            options: Options of a new index, such as `IndexOptions(hybrid=True)` for queries by words too.
            timeout: Seconds that a change waits for that of another process.
            fields: Fields of the base class.

        Raises:
            IndexFolderError: The folder holds something else, an index of chunks, or one of another embedding.
        """
        if embed_model is not None and not isinstance(embed_model, BaseEmbedding):
            raise TypeError(f"embed_model is {embed_model!r:.80}, expected an embedding such as LLM2CompEmbedding()")
        folder = str(index_dir) if isinstance(index_dir, Path) else index_dir
        settings = {"index_dir": folder, "embedding_name": embedding_name, "timeout": timeout, **fields}
        super().__init__(**settings)
        self._embed_model = embed_model
        name = name_embedding(embed_model, embedding_name)
        self._store = DocumentStore(index_dir, name, options=options, timeout=timeout, model=loaded_model(embed_model))

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in serialized form."""
        return "LLM2CompVectorStore"

    @property
    def client(self) -> Index:
        """The index at its last commit."""
        return self._store.index

    # Changes

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Ids of the nodes, which are added in one commit. Of the same id twice, the last node stays.

        Raises:
            SettingsError: A node has no vector, and there is no `embed_model`; or its metadata cannot be kept as JSON.
        """
        documents = list(map(to_document, nodes))
        self._store.upsert(documents, self._vectors(nodes))
        return [document.id for document in documents]

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """As `add`, in a thread."""
        return await asyncio.to_thread(self.add, nodes)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Deletes the nodes that come from the document of this id, in one commit."""
        self._store.delete(where=_from_sources([ref_doc_id]))

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """As `delete`, in a thread."""
        await asyncio.to_thread(self.delete, ref_doc_id)

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Deletes the nodes of these ids that match the filters, in one commit. To delete all, call `clear`.

        Raises:
            SettingsError: Neither is given.
        """
        where = to_filter(filters)
        if node_ids is None and where is None:
            raise SettingsError("delete_nodes takes node_ids or filters; to delete all nodes, call clear()")
        if where is None or node_ids is None:
            self._store.delete(node_ids or (), where=where)
        else:
            self._store.delete([hit.id for hit in self._select(node_ids, where)])

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """As `delete_nodes`, in a thread."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters)

    def clear(self) -> None:
        """Deletes all nodes, in one commit."""
        self._store.clear()

    async def aclear(self) -> None:
        """As `clear`, in a thread."""
        await asyncio.to_thread(self.clear)

    # Searches

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """The nodes of these ids that match the filters; all nodes if neither is given. They come without vectors."""
        return list(map(to_node, self._select(node_ids, to_filter(filters))))

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """As `get_nodes`, in a thread."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    def query(
        self,
        query: VectorStoreQuery,
        *,
        rescore: Literal["maxsim"] | None = None,
        candidates: int | None = None,
        **kwargs: Any,
    ) -> VectorStoreQueryResult:
        """The nodes nearest to the query with their similarities, best first.

        Args:
            query: Modes `default`, `mmr`, and in an index with BM25 `sparse`, `text_search` and `hybrid`. An empty list
                of `node_ids` restricts nothing, for LlamaIndex's retriever gives one; an empty one of `doc_ids` does.
            rescore: `maxsim` orders the first nodes by MaxSim of the query's text, in an index with vectors of memory
                tokens; for a retriever, `vector_store_kwargs={"rescore": "maxsim"}`.
            candidates: With `rescore`, the number of nodes that are ordered; None: 100, or as many as asked for.
            kwargs: `mmr_threshold` (0 for variety alone, 1 for nearness alone) and `mmr_prefetch_k` of mode `mmr`.

        Raises:
            SettingsError: The mode is another, `alpha` is not from 0 to 1, the query has no vector, or its filters
                cannot match any node; or the index cannot be rescored, or the query has no text.
        """
        rescored = SearchOptions(rescore=rescore, candidates=candidates)
        if rescore is not None and (query.mode == VectorStoreQueryMode.MMR or query.node_ids):
            raise SettingsError("rescore maxsim goes with neither mode mmr nor node_ids")
        where = _join(to_filter(query.filters), None if query.doc_ids is None else _from_sources(query.doc_ids))
        if query.mode == VectorStoreQueryMode.MMR:
            return self._diverse(query, where, **kwargs)
        mode = _MODES.get(query.mode)
        if mode is None:
            known = ", ".join(known.value for known in (*_MODES, VectorStoreQueryMode.MMR))
            raise SettingsError(f"the query's mode is {query.mode.value!r}, expected one of {known}")
        if query.node_ids:
            if mode != "dense":
                raise SettingsError(f"node_ids restrict queries by vectors, not mode {query.mode.value!r}")
            return _result(self._store.rank(query.node_ids, self._vector(query), query.similarity_top_k, where).hits)
        weights = None
        if mode == "hybrid" and query.alpha is not None:
            if not 0 <= query.alpha <= 1:
                raise SettingsError(f"alpha is {query.alpha}, expected 0 (words alone) to 1 (vectors alone)")
            weights = (query.alpha, 1.0 - query.alpha)
        hits = self._store.search(
            None if mode == "bm25" else self._vector(query),
            (query.hybrid_top_k if mode == "hybrid" else query.sparse_top_k if mode == "bm25" else None)
            or query.similarity_top_k,
            query=query.query_str or "",
            mode=mode,
            where=where,
            options=replace(rescored, weights=weights),
        )
        return _result(hits)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """As `query`, in a thread."""
        return await asyncio.to_thread(self.query, query, **kwargs)

    def _diverse(
        self,
        query: VectorStoreQuery,
        where: Filter,
        *,
        mmr_threshold: float | None = None,
        mmr_prefetch_k: int | None = None,
        **kwargs: Any,
    ) -> VectorStoreQueryResult:
        vector, k = self._vector(query), query.similarity_top_k
        depth = max(k, mmr_prefetch_k or _MMR_FACTOR * k)
        if not query.node_ids:
            candidates = self._store.find_candidates(vector, depth, where)
        else:
            candidates = self._store.rank(query.node_ids, vector, depth, where)
        _, places = get_top_k_mmr_embeddings(
            vector,
            candidates.vectors.tolist(),
            similarity_top_k=k,
            mmr_threshold=mmr_threshold if mmr_threshold is not None else query.mmr_threshold,
        )
        return _result([candidates.hits[place] for place in places])

    def _select(self, node_ids: list[str] | None, where: Filter) -> list[Hit]:
        if node_ids is None:
            return self._store.select(where)
        hits = self._store.get(node_ids)
        if where is None:
            return hits
        matching = {hit.id for hit in self._store.select(where)}
        return [hit for hit in hits if hit.id in matching]

    def _vectors(self, nodes: Sequence[BaseNode]) -> list[list[float]]:
        """Vectors of the nodes; those without one are embedded."""
        lacking = [place for place, node in enumerate(nodes) if node.embedding is None]
        if lacking and self._embed_model is None:
            raise SettingsError(
                f'node "{nodes[lacking[0]].node_id}" has no embedding; embed the nodes first, or give the store the '
                "embedding (embed_model)"
            )
        texts = [nodes[place].get_content(metadata_mode=MetadataMode.EMBED) for place in lacking]
        made = self._embed_model.get_text_embedding_batch(texts) if self._embed_model and texts else []
        vectors = dict(zip(lacking, made, strict=True))
        return [vectors.get(place) or node.get_embedding() for place, node in enumerate(nodes)]

    def _vector(self, query: VectorStoreQuery) -> list[float]:
        if query.query_embedding is not None:
            return query.query_embedding
        if self._embed_model is None or query.query_str is None:
            raise SettingsError(
                "the query has no embedding; give query_embedding, or query_str and, to the store, the embedding "
                "(embed_model)"
            )
        return self._embed_model.get_query_embedding(query.query_str)


def _from_sources(identifiers: Sequence[str]) -> Where:
    """The filter for nodes that come from these documents."""
    return Where(f"{SOURCE} in {identifiers}", Among(SOURCE, tuple(map(encodable, identifiers))), allow_unknown=True)


def _join(*filters: Where | str | None) -> Where | None:
    """The filter that all of them state together."""
    given = [parse_where(where) if isinstance(where, str) else where for where in filters if where is not None]
    if len(given) < 2:
        return given[0] if given else None
    parts: tuple[Condition, ...] = tuple(where.condition for where in given)
    text = " and ".join(where.text for where in given)
    return Where(text, All(parts), name="filters", allow_unknown=all(where.allow_unknown for where in given))


def _result(hits: Sequence[Hit]) -> VectorStoreQueryResult:
    return VectorStoreQueryResult(
        nodes=list(map(to_node, hits)), similarities=[hit.score for hit in hits], ids=[hit.id for hit in hits]
    )
