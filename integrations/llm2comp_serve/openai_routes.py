"""The routes of OpenAI's embeddings API: `/v1/embeddings` and `/v1/models`.

Source: https://platform.openai.com/docs/api-reference/embeddings
"""

import base64
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from llm2comp_serve.errors import RequestError
from llm2comp_serve.lists import List
from llm2comp_serve.models import QUERY_SUFFIX
from llm2comp_serve.responses import json_response
from llm2comp_serve.service import check_texts, service_of

__all__ = ["router"]

router = APIRouter(tags=["OpenAI"])


class EmbeddingsRequest(BaseModel):
    """Texts to encode."""

    input: Annotated[
        str | List[str] | List[int] | List[List[int]],
        Field(description="One text or several. Token ids are refused: they belong to another tokenizer."),
    ]
    model: Annotated[
        str | None, Field(description=f"Name of a model; NAME{QUERY_SUFFIX} encodes queries. None: the first one.")
    ] = None
    encoding_format: Annotated[
        Literal["float", "base64"], Field(description="base64: bytes of float32, little-endian.")
    ] = "float"
    dimensions: Annotated[
        int | None, Field(ge=1, description="Components to keep; the vectors have unit length again.")
    ] = None
    input_type: Annotated[
        Literal["query", "document"] | None,
        Field(description="Whether the texts are queries, which get the model's instruction. None: documents."),
    ] = None
    truncate: Annotated[
        bool | None, Field(description="Whether a text that is too long is cut. None: as the server is set.")
    ] = None
    instruction: Annotated[
        str | None, Field(description="Text before each text, in place of the model's instruction.")
    ] = None
    allow_empty: Annotated[
        bool, Field(description="Whether an empty text has a vector like any other; otherwise it is refused.")
    ] = False
    user: Annotated[str | None, Field(description="Not used.")] = None


@router.post("/v1/embeddings", response_class=Response)
async def embeddings(body: EmbeddingsRequest, request: Request) -> Response:
    """Vectors of texts, in their order."""
    service = service_of(request)
    model, is_query = service.find(body.model)
    texts = _texts(body.input)
    check_texts(texts, service, "input", allow_empty=body.allow_empty)
    embedded = await service.embed(
        request,
        model,
        texts,
        query=is_query if body.input_type is None else body.input_type == "query",
        truncate=body.truncate,
        dimensions=body.dimensions,
        instruction=body.instruction,
    )
    answer = {
        "object": "list",
        "data": _rows(embedded.vectors, body.encoding_format),
        "model": body.model or model.name,
        "usage": {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens},
    }
    headers = {"X-Truncated-Texts": str(embedded.truncated), "X-Model-Fingerprint": model.fingerprint}
    return json_response(answer, headers=headers)


@router.get("/v1/models", response_class=Response)
async def models(request: Request) -> Response:
    """Names of the models, each with a second one for queries."""
    service = service_of(request)
    service.find(None)
    names = [name for served in service.models.names for name in (served, served + QUERY_SUFFIX)]
    listed = [{"id": name, "object": "model", "created": 0, "owned_by": "llm2comp"} for name in names]
    return json_response({"object": "list", "data": listed})


@router.get("/v1/models/{name:path}", response_class=Response)
async def model(name: str, request: Request) -> Response:
    """One model."""
    service_of(request).find(name)
    return json_response({"id": name, "object": "model", "created": 0, "owned_by": "llm2comp"})


def _texts(given: str | list[str] | list[int] | list[list[int]]) -> list[str]:
    if isinstance(given, str):
        return [given]
    texts = [text for text in given if isinstance(text, str)]
    if len(texts) < len(given):
        raise RequestError(
            400,
            "input holds token ids, which belong to another tokenizer: send texts (LangChain's OpenAIEmbeddings does "
            "with check_embedding_ctx_length=False)",
            parameter="input",
            code="token_ids",
        )
    return texts


def _rows(vectors: NDArray[np.float32], encoding: str) -> list[dict[str, Any]]:
    rows: Any = np.ascontiguousarray(vectors, dtype="<f4")
    if encoding == "base64":
        rows = [base64.b64encode(row).decode() for row in rows]
    return [{"object": "embedding", "index": place, "embedding": row} for place, row in enumerate(rows)]
