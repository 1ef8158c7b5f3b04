"""`LLM2CompRetriever`: an index on disk as a LangChain retriever."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import run_in_executor
from pydantic import AliasChoices, ConfigDict, Field, PrivateAttr, SecretStr, model_validator

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
from llm2comp_indexes import Hit, Index, SearchOptions, StoreIndex

__all__ = ["LLM2CompRetriever"]


class LLM2CompRetriever(BaseRetriever):
    """Documents from an index that `llm2comp index build` wrote, best first.

    The index is opened when the object is created; the object always searches that commit. Any number of threads may
    search with it at once. A document has an id, and as metadata those of the index, the title (if any) as `title` and
    the score as `relevance_score`; if the index has metadata of these names, they stay, and title and score are in
    `llm2comp_title` and `llm2comp_score`.

    `invoke(question, k=3, where="year >= 2020")` changes `k` and `where` for that question.

    With `url`, a server (`llm2comp serve`) searches its index named `index` at its last commit, and this process loads
    nothing. With `store`, it searches a table of a database that `llm2comp index push` wrote, as the table is then.
    """

    # errors must not show the password in an address, or a key
    model_config = ConfigDict(extra="forbid", validate_by_name=True, hide_input_in_errors=True)

    index_dir: Path | None = Field(default=None, description="Folder of the index.", frozen=True)
    url: str | None = Field(
        default=None, description="Address of `llm2comp serve`, which searches, instead of index_dir.", frozen=True
    )
    store: SecretStr | None = Field(
        default=None,
        exclude=True,
        repr=False,
        description="Address of a table that `llm2comp index push` wrote, instead of index_dir.",
        frozen=True,
    )
    index: str | None = Field(default=None, description="Name of the server's index; None: its only one.", frozen=True)
    api_key: SecretStr | None = Field(
        default=None, exclude=True, repr=False, description="Key that the server wants.", frozen=True
    )
    timeout: float = Field(default=60.0, gt=0, description="Seconds until the server must have answered.", frozen=True)
    k: int = Field(
        default=10,
        ge=1,
        validation_alias=AliasChoices("k", "similarity_top_k"),
        description="Number of documents to return; similarity_top_k is an alias.",
    )
    mode: Mode = Field(
        default="dense", frozen=True, description="Search by vectors (dense), by words (bm25), or by both (hybrid)."
    )
    where: str | None = Field(
        default=None, description='Filter on metadata, such as year >= 2020 and lang in ("en", "de").'
    )
    options: SearchOptions = Field(
        default_factory=SearchOptions,
        description="Effort, weights, chunks or documents, threads, rescore; its mode and where are not used.",
    )
    model: Any = Field(
        default=None,
        exclude=True,
        repr=False,
        frozen=True,
        description="Model of the index, loaded, or the folder or Hub id to load it from.",
    )

    _index: Index | RemoteIndex | StoreIndex = PrivateAttr()

    def __init__(self, index_dir: str | Path | None = None, **settings: Any) -> None:
        fields: dict[str, Any] = {"index_dir": index_dir, **settings}
        super().__init__(**fields)

    @model_validator(mode="after")
    def _open(self) -> Self:
        if self.store is not None:
            check_store(index_dir=self.index_dir, url=self.url, index=self.index, api_key=self.api_key)
            address = self.store.get_secret_value()
            self._index = open_store_and_check(address, self.model, self.k, self._search_options(self.where))
        elif self.index_dir is not None:
            check_folder(url=self.url, index=self.index, api_key=self.api_key)
            self._index = open_and_check(self.index_dir, self.model, self.k, self._search_options(self.where))
        else:
            url = check_url(self.url, model=self.model)
            key = self.api_key.get_secret_value() if self.api_key else None
            self._index = RemoteIndex(Server(url, key, self.timeout), self.index, self.mode, self.options)
            self._index.search("", self.k, self.where)  # so that errors show now
        return self

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """A copy with the index opened again; a model given as an object is shared."""
        memo = {} if memo is None else memo
        memo[id(self.model)] = self.model
        return super().__deepcopy__(memo)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        similarity_top_k: int | None = None,
        where: str | None = None,
    ) -> list[Document]:
        if k is not None and similarity_top_k is not None:
            raise SettingsError("k and similarity_top_k are the same setting; give one of them")
        top_k = next((number for number in (k, similarity_top_k) if number is not None), self.k)
        where = self.where if where is None else where
        if isinstance(self._index, RemoteIndex):
            hits = self._index.search(check_query(query), top_k, where)
        else:
            [hits] = self._index.search([check_query(query)], top_k, options=self._search_options(where))
        return [_document(hit) for hit in hits]

    def _search_options(self, where: str | None) -> SearchOptions:
        return replace(self.options, mode=self.mode, where=where)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **changes: Any
    ) -> list[Document]:
        return await run_in_executor(
            None, self._get_relevant_documents, query, run_manager=run_manager.get_sync(), **changes
        )


def _document(hit: Hit) -> Document:
    metadata = hit_metadata(hit)
    metadata["llm2comp_score" if "relevance_score" in metadata else "relevance_score"] = hit.score
    return Document(hit.text, id=hit.id, metadata=metadata)
