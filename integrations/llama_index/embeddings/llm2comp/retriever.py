"""`LLM2CompRetriever`: an index on disk as a LlamaIndex retriever."""

import asyncio
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import NodeRelationship, NodeWithScore, QueryBundle, QueryType, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import MetadataFilters
from llama_index.embeddings.llm2comp.filters import to_filter, to_where
from numpy.typing import NDArray

from llm2comp.errors import SettingsError
from llm2comp_adapters import (
    Mode,
    RemoteIndex,
    Server,
    check_folder,
    check_query,
    check_store,
    check_url,
    hit_metadata,
    open_and_check,
    open_store_and_check,
)
from llm2comp_indexes import Encoder, Hit, Index, SearchOptions, StoreIndex

__all__ = ["LLM2CompRetriever"]

logger = logging.getLogger(__name__)


class LLM2CompRetriever(BaseRetriever):
    """Nodes from an index that `llm2comp index build` wrote, best first.

    The index is opened when the object is created; the object always searches that commit. Any number of threads may
    search with it at once. A node has the id, the metadata and the title (as metadata `title`, if any; as
    `llm2comp_title` if the metadata has another `title`) of its document or chunk; its source is the document, whose id
    differs in an index of chunks.

    With `url`, a server (`llm2comp serve`) searches its index named `index` at its last commit, and this process loads
    nothing. With `store`, it searches a table of a database that `llm2comp index push` wrote, as the table is then.

    Attributes:
        similarity_top_k: Number of nodes to return; may be changed.

    Raises:
        IndexFolderError: There is no index, or its model cannot be loaded or is another one.
        SettingsError: The index does not support the mode, the number of nodes, or the filters.
        ServerError: The server cannot be reached, refuses the key, or has no such index.
        StoreError: The store cannot be reached, or has no such table.
    """

    def __init__(
        self,
        index_dir: str | Path | None = None,
        similarity_top_k: int = 10,
        mode: Mode = "dense",
        *,
        filters: MetadataFilters | str | None = None,
        options: SearchOptions | None = None,
        model: str | Path | Encoder | None = None,
        callback_manager: CallbackManager | None = None,
        verbose: bool = False,
        url: str | None = None,
        index: str | None = None,
        api_key: str | None = None,
        timeout: float = 60.0,
        store: str | None = None,
    ) -> None:
        """Opens the index, or asks the server whether it can be searched like this.

        Args:
            index_dir: Folder of the index.
            similarity_top_k: Number of nodes to return.
            mode: Search by vectors (`dense`), by words (`bm25`), or by both (`hybrid`).
            filters: Filters on metadata: LlamaIndex's, or a text such as `year >= 2020 and lang in ("en", "de")`. A
                field that no document has is an error in a text; in LlamaIndex's it is missing everywhere, and logged.
            options: Effort, weights, chunks or documents, threads, rescore; its mode and where are not used.
            model: Model of the index, loaded, or the folder or Hub id to load it from.
            callback_manager: As for every retriever.
            verbose: As for every retriever.
            url: Address of `llm2comp serve`, which searches, instead of index_dir.
            index: Name of the server's index; None: its only one.
            api_key: Key that the server wants.
            timeout: Seconds until the server must have answered.
            store: Address of a table that `llm2comp index push` wrote, instead of index_dir.
        """
        self.similarity_top_k = similarity_top_k
        self._options = replace(options or SearchOptions(), mode=mode, where=to_filter(filters))
        self._where = to_where(filters)
        self._index: Index | RemoteIndex | StoreIndex
        if store is not None:
            check_store(index_dir=index_dir, url=url, index=index, api_key=api_key)
            self._index = open_store_and_check(store, model, similarity_top_k, self._options)
            _log_unknown(self._options, [self._index.known_fields])
        elif index_dir is not None:
            check_folder(url=url, index=index, api_key=api_key)
            self._index = _open(index_dir, model, similarity_top_k, self._options)
        else:
            server = Server(check_url(url, model=model), api_key, timeout)
            lenient = isinstance(filters, MetadataFilters)
            self._index = RemoteIndex(server, index, mode, self._options, allow_unknown_fields=lenient)
            self._index.search("", similarity_top_k, self._where)  # so that errors show now
        super().__init__(callback_manager=callback_manager, verbose=verbose)

    def retrieve(self, str_or_query_bundle: QueryType) -> list[NodeWithScore]:
        """The nodes nearest to a question.

        Raises:
            TypeError: The question is neither a string nor a QueryBundle with one.
        """
        return super().retrieve(_check(str_or_query_bundle))

    async def aretrieve(self, str_or_query_bundle: QueryType) -> list[NodeWithScore]:
        """As `retrieve`, in a thread."""
        return await super().aretrieve(_check(str_or_query_bundle))

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if isinstance(self._index, RemoteIndex):
            hits = self._index.search(_without_vector(query_bundle), self.similarity_top_k, self._where)
        elif (
            (vector := self._vector(self._index, query_bundle)) is not None
            and isinstance(self._index, Index)
            and self._options.rescore is None
        ):
            hits = list(self._nearest(self._index, vector))
        else:
            [hits] = self._index.search(
                [query_bundle.query_str], self.similarity_top_k, options=self._options, vectors=vector
            )
        return [NodeWithScore(node=_node(hit), score=hit.score) for hit in hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)

    def _vector(self, index: Index | StoreIndex, query_bundle: QueryBundle) -> NDArray[np.float32] | None:
        """Unit vector (1, dim) that the bundle brings instead of its question; None if it brings none.

        Either its embedding, or the mean vector of its texts to embed, such as HyDE's.
        """
        if query_bundle.embedding is not None:
            vectors = np.array([query_bundle.embedding], dtype=np.float32)
        elif query_bundle.custom_embedding_strs:
            vectors = np.asarray(index.model.encode_query(query_bundle.custom_embedding_strs, show_progress_bar=False))
        else:
            return None
        if self._options.mode != "dense":
            raise SettingsError(
                f"the query brings a vector or texts to embed, which mode {self._options.mode!r} cannot use; take dense"
            )
        if self._options.rescore is not None and not query_bundle.query_str.strip():
            raise SettingsError("rescore maxsim compares the question's text, and the query brings a vector alone")
        if not np.isfinite(vectors).all():
            raise SettingsError("the query brings a vector that is not finite")
        mean: NDArray[np.float32] = vectors.mean(axis=0, keepdims=True)
        unit: NDArray[np.float32] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return unit

    def _nearest(self, index: Index, vector: NDArray[np.float32]) -> Iterator[Hit]:
        matches = index.search_vectors(vector, self.similarity_top_k, options=self._options)
        for row, score in zip(matches.rows[0].tolist(), matches.scores[0].tolist(), strict=True):
            if row >= 0:
                yield index.fetch(row, score)


def _check(query: QueryType) -> QueryType:
    check_query(query.query_str if isinstance(query, QueryBundle) else query)
    return query


def _open(index_dir: str | Path, model: str | Path | Encoder | None, k: int, options: SearchOptions) -> Index:
    """The index; fields of LlamaIndex's filters that no document has are logged."""
    index = open_and_check(index_dir, model, k, options)
    _log_unknown(options, (segment.metadata for segment in index.segments))
    return index


def _log_unknown(options: SearchOptions, columns: Iterable[Any]) -> None:
    if options.where is not None and not isinstance(options.where, str):
        for line in options.where.find_unknown(columns):
            logger.warning("filters: %s", line)


def _without_vector(query_bundle: QueryBundle) -> str:
    if query_bundle.embedding is not None or query_bundle.custom_embedding_strs:
        raise SettingsError(
            "the query brings a vector or texts to embed, which a server cannot search by; open the index (index_dir)"
        )
    return query_bundle.query_str


def _node(hit: Hit) -> TextNode:
    source = RelatedNodeInfo(node_id=hit.document_id)
    places = [name for name in ("llm2comp_begin", "llm2comp_end", "llm2comp_repeated") if name in hit.metadata]
    return TextNode(
        id_=hit.id,
        text=hit.text,
        metadata=hit_metadata(hit),
        excluded_embed_metadata_keys=places,  # numbers of characters, which say nothing to a model
        excluded_llm_metadata_keys=places,
        relationships={NodeRelationship.SOURCE: source},
        start_char_idx=hit.metadata.get("llm2comp_begin"),
        end_char_idx=hit.metadata.get("llm2comp_end"),
    )
