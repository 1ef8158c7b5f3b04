"""Searching and changing indexes: `/v1/search` and `/v1/indexes`."""

import asyncio
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from llm2comp.errors import IndexFolderError, LLM2CompError, SettingsError
from llm2comp_indexes import Hit, SearchOptions
from llm2comp_indexes.filters.parse import Where, parse_where
from llm2comp_serve.errors import RequestError
from llm2comp_serve.indexes import ServedIndex
from llm2comp_serve.lists import MOST_FILTER, List
from llm2comp_serve.responses import json_response
from llm2comp_serve.service import Service, check_texts, service_of

__all__ = ["router"]

router = APIRouter(tags=["search"])
_MOST_QUERIES = 256


class _Exact(BaseModel):
    """A body whose misspelt fields are refused: without its filter a search would answer with the wrong documents."""

    model_config = ConfigDict(extra="forbid")


class SearchRequest(_Exact):
    """A question, or several, to an index."""

    index: Annotated[str | None, Field(description="Name of the index; None: the only one.")] = None
    query: Annotated[str | None, Field(description="The question.")] = None
    queries: Annotated[List[str] | None, Field(description="Several questions; give these or `query`.")] = None
    k: Annotated[int, Field(ge=1, le=1000, description="Number of hits of each question.")] = 10
    where: Annotated[
        str | None, Field(max_length=MOST_FILTER, description="Filter on metadata, such as `year >= 2020`.")
    ] = None
    mode: Annotated[Literal["dense", "bm25", "hybrid"], Field(description="By vectors, by words, or by both.")] = (
        "dense"
    )
    group: Annotated[
        Literal["document"] | None, Field(description="document: only the best chunk of each document.")
    ] = None
    fusion: Annotated[
        Literal["scores", "ranks"] | None,
        Field(description="With hybrid: by scores scaled to 0..1 (None), or by reciprocal ranks."),
    ] = None
    weights: Annotated[
        tuple[float, float] | None,
        Field(
            description="With hybrid: weights of the rankings by vectors and by words; None: 0.3 and 0.7, of ranks 1 "
            "and 1."
        ),
    ] = None
    rescore: Annotated[
        Literal["maxsim"] | None,
        Field(description="maxsim: the first hits ordered by MaxSim, in an index with vectors of memory tokens."),
    ] = None
    candidates: Annotated[
        int | None,
        Field(ge=1, le=10_000, description="With rescore: number of hits ordered; None: 100, or k."),
    ] = None
    allow_empty: Annotated[
        bool, Field(description="Whether an empty question is one like any other; otherwise it is refused.")
    ] = False
    allow_unknown_fields: Annotated[
        bool, Field(description="Whether the filter may name a field that no document has; otherwise it is refused.")
    ] = False

    @model_validator(mode="after")
    def _one_of_two(self) -> "SearchRequest":
        if (self.query is None) == (self.queries is None):
            raise ValueError("give either query or queries")
        for name in ("fusion", "weights"):
            if getattr(self, name) is not None and self.mode != "hybrid":
                raise ValueError(f"{name} goes with the mode hybrid")
        if self.candidates is not None and self.rescore is None:
            raise ValueError("candidates go with rescore maxsim")
        return self


class DocumentBody(_Exact):
    """A document to add; it replaces the one of its id."""

    id: Annotated[str, Field(min_length=1)]
    text: str
    title: str = ""
    metadata: dict[str, Any] = {}


class AddRequest(_Exact):
    """Documents to add."""

    documents: Annotated[List[DocumentBody], Field(min_length=1)]


class DeleteRequest(_Exact):
    """Ids of documents to delete."""

    ids: Annotated[List[str], Field(min_length=1)]


@router.post("/v1/search", response_class=Response)
async def search(body: SearchRequest, request: Request) -> Response:
    """Hits, best first: id, score, title, text and metadata; for `queries` a list of hits for each.

    The header Server-Timing says how long encoding the questions and searching took.
    """
    service, index = _index(request, body.index)
    queries = [body.query] if body.query is not None else body.queries or []
    name = "query" if body.queries is None else "queries"
    check_texts([query.strip() for query in queries], service, name, allow_empty=body.allow_empty)
    if len(queries) > _MOST_QUERIES:
        raise RequestError(413, f"{len(queries)} queries in one request; at most {_MOST_QUERIES} are taken")
    try:
        options = _options(body)
        answer = await asyncio.to_thread(index.search, queries, body.k, options)
    except SettingsError as error:
        raise RequestError(400, str(error)) from error
    except LLM2CompError as error:
        raise RequestError(500, str(error)) from error
    hits = [[_to_json(hit) for hit in found] for found in answer.hits]
    timing = f"encode;dur={1000 * answer.encoding:.2f}, search;dur={1000 * answer.searching:.2f}"
    return json_response(hits[0] if body.queries is None else hits, headers={"Server-Timing": timing})


def _options(body: SearchRequest) -> SearchOptions:
    where: str | Where | None = body.where
    if body.where and body.allow_unknown_fields:
        where = replace(parse_where(body.where), allow_unknown=True)
    return SearchOptions(
        mode=body.mode,
        where=where,
        fusion=body.fusion or "scores",
        weights=body.weights,
        by=body.group or "row",
        rescore=body.rescore,
        candidates=body.candidates,
    )


class MapRequest(_Exact):
    """Hits to show among other documents."""

    index: str | None = None
    ids: Annotated[List[str], Field(max_length=100, description="Ids of hits, of documents or of chunks.")]
    sample: Annotated[int, Field(ge=2, le=2000, description="Number of other rows.")] = 400


@router.post("/v1/map", response_class=Response)
async def flat_map(body: MapRequest, request: Request) -> Response:
    """Points (x, y, title) of hits and of a sample of the index along its two principal components."""
    _, index = _index(request, body.index)
    return json_response(await asyncio.to_thread(index.map, body.ids, body.sample))


@router.get("/v1/indexes", response_class=Response)
async def indexes(request: Request) -> Response:
    """The indexes: names, models, numbers of documents; `problem` where the last commit cannot be searched."""
    service = service_of(request)
    service.check_ready()

    def listed() -> list[dict[str, Any]]:
        return [index.facts(writable=index.name in service.settings.writable) for index in service.indexes]

    return json_response(await asyncio.to_thread(listed))


@router.get("/v1/indexes/{name}/documents/{identifier:path}", response_class=Response)
async def read(name: str, identifier: str, request: Request) -> Response:
    """A document, or its chunks in their order."""
    _, index = _index(request, name)
    rows = await asyncio.to_thread(index.read, identifier)
    if not rows:
        raise RequestError(404, f"{name} holds no document {identifier!r}", code="document_not_found")
    return json_response([_to_json(row) for row in rows])


@router.put("/v1/indexes/{name}/documents", response_class=Response)
async def add(name: str, body: AddRequest, request: Request) -> Response:
    """Adds documents, or replaces those of their ids, in one commit."""
    index = _writable(request, name)
    documents = [document.model_dump() for document in body.documents]
    report = await _changed(index, index.add, documents)
    counts = {"added": report.added, "changed": report.changed, "unchanged": report.unchanged}
    return json_response({**counts, "empty": report.empty})  # those without title and text are not indexed


@router.delete("/v1/indexes/{name}/documents", response_class=Response)
async def delete(name: str, body: DeleteRequest, request: Request) -> Response:
    """Deletes documents, in one commit."""
    index = _writable(request, name)
    report = await _changed(index, index.delete, body.ids)
    return json_response({"deleted": report.deleted, "missing": list(report.missing)})


def _index(request: Request, name: str | None) -> tuple[Service, ServedIndex]:
    service = service_of(request)
    service.check_ready()
    return service, service.indexes.find(name)


def _writable(request: Request, name: str) -> ServedIndex:
    service, index = _index(request, name)
    if name not in service.settings.writable:
        raise RequestError(403, f"{name} is served for reading only (--allow-writes {name})", code="read_only")
    return index


async def _changed(index: ServedIndex, change: Any, argument: Any) -> Any:
    try:
        return await asyncio.get_running_loop().run_in_executor(index.writer, change, argument)
    except IndexFolderError as error:  # another process is writing, or the index or its disk is not in order
        raise RequestError(503, str(error), code="index_unavailable", headers={"Retry-After": "2"}) from error
    except LLM2CompError as error:
        raise RequestError(400, str(error)) from error


def _to_json(hit: Hit) -> dict[str, Any]:
    return hit._asdict()
