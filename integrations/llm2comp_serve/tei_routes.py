"""The routes of Hugging Face's text-embeddings-inference, which its many clients call.

Source: https://huggingface.github.io/text-embeddings-inference
"""

import asyncio
from importlib.metadata import version
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from llm2comp_serve.errors import RequestError
from llm2comp_serve.lists import List
from llm2comp_serve.responses import json_response
from llm2comp_serve.service import Embedded, check_texts, service_of

__all__ = ["router"]

router = APIRouter(tags=["text-embeddings-inference"])
_MOST_CHARACTERS = 1 << 18
"""Characters that `/tokenize` takes: its answer, with a line for each token, is 40 times as long."""
_Side = Literal["Left", "Right", "left", "right"]


class EmbedRequest(BaseModel):
    """Texts to encode with the first model."""

    inputs: Annotated[str | List[str], Field(description="One text or several.")]
    truncate: Annotated[
        bool | None, Field(description="Whether a text that is too long is cut. None: as the server is set.")
    ] = None
    truncation_direction: Annotated[
        _Side | None, Field(description="Texts are cut at their end; Left is refused where one is too long.")
    ] = None
    normalize: Annotated[bool, Field(description="The vectors have unit length; false is refused.")] = True
    prompt_name: Annotated[str | None, Field(description="query or document.")] = None
    dimensions: Annotated[int | None, Field(ge=1, description="Components to keep.")] = None


class RerankRequest(BaseModel):
    """A query, and texts to put in the order of their similarity to it."""

    query: str
    texts: List[str]
    truncate: bool | None = None
    truncation_direction: Annotated[
        _Side | None, Field(description="Texts are cut at their end; Left is refused where one is too long.")
    ] = None
    raw_scores: Annotated[bool, Field(description="No difference: scores are cosines.")] = False
    return_text: bool = False


class TokenizeRequest(BaseModel):
    """Texts to tokenise."""

    inputs: str | List[str]
    add_special_tokens: Annotated[bool, Field(description="Whether the beginning token is given too.")] = True


@router.post("/embed", response_class=Response)
@router.post("/", response_class=Response)
async def embed(body: EmbedRequest, request: Request) -> Response:
    """Vectors of texts, in their order."""
    service = service_of(request)
    model, _ = service.find(None)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    check_texts(texts, service, "inputs")
    if body.prompt_name not in (None, "query", "document"):
        raise RequestError(422, f"prompt_name is {body.prompt_name!r}, expected query or document")
    if not body.normalize and model.model.normalize:
        raise RequestError(422, f"{model.name} makes vectors of unit length: leave normalize out")
    if (body.dimensions or 1) > model.dimension:
        raise RequestError(422, f"dimensions is {body.dimensions}, expected 1 to {model.dimension}")
    embedded = await service.embed(
        request,
        model,
        texts,
        query=body.prompt_name == "query",
        truncate=body.truncate,
        dimensions=body.dimensions,
    )
    headers = _counted(body.truncation_direction, embedded)
    return json_response(np.ascontiguousarray(embedded.vectors), headers=headers)


@router.post("/rerank", response_class=Response)
async def rerank(body: RerankRequest, request: Request) -> Response:
    """Cosines of the texts to the query, best first."""
    service = service_of(request)
    model, _ = service.find(None)
    check_texts([body.query], service, "query")
    check_texts(body.texts, service, "texts")
    query = await service.embed(request, model, [body.query], query=True, truncate=body.truncate)
    texts = await service.embed(request, model, body.texts, truncate=body.truncate)
    headers = _counted(body.truncation_direction, query, texts)
    scores = texts.vectors @ query.vectors[0]
    ranks: list[dict[str, Any]] = [
        {"index": int(place), "score": float(scores[place])} for place in np.argsort(-scores, kind="stable")
    ]
    if body.return_text:
        ranks = [{**rank, "text": body.texts[rank["index"]]} for rank in ranks]
    return json_response(ranks, headers=headers)


@router.post("/tokenize", response_class=Response)
async def tokenize(body: TokenizeRequest, request: Request) -> Response:
    """Tokens of texts, with their places in them in characters."""
    service = service_of(request)
    model, _ = service.find(None)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    check_texts(texts, service, "inputs")
    if (characters := sum(map(len, texts))) > _MOST_CHARACTERS:
        raise RequestError(
            413,
            f"{characters:,} characters in one request; at most {_MOST_CHARACTERS:,} are taken: send several requests",
        )

    def spelt() -> list[list[dict[str, Any]]]:
        return [model.spell(text, beginning=body.add_special_tokens) for text in texts]

    return json_response(await asyncio.to_thread(spelt))


@router.get("/info", response_class=Response)
async def info(request: Request) -> Response:
    """The first model and the limits of a request."""
    service = service_of(request)
    model, _ = service.find(None)
    return json_response(
        {
            "model_id": model.name,
            "model_sha": model.fingerprint,
            "model_dtype": str(model.model.encoder.backbone.dtype).removeprefix("torch."),
            "model_type": {"embedding": {"pooling": model.model.pooling["mode"]}},
            "max_concurrent_requests": service.settings.queue_tokens,
            "max_input_length": model.max_length - model.model.memory_tokens,
            "max_batch_tokens": service.settings.batch_tokens,
            "max_client_batch_size": service.settings.max_texts,
            "auto_truncate": service.settings.truncate,
            "tokenization_workers": 1,
            "version": version("llm2comp"),
            "served_models": [
                {"name": served.name, "dimension": served.dimension, "fingerprint": served.fingerprint}
                for served in service.models
            ],
        }
    )


def _counted(side: _Side | None, *embedded: Embedded) -> dict[str, str]:
    """The header that says how many texts were cut.

    Raises:
        RequestError: One was, and is to keep its end (status 422).
    """
    truncated = sum(part.truncated for part in embedded)
    if truncated and side in ("Left", "left"):
        reason = f"{truncated} texts are too long, and only ends of texts are cut here, truncation_direction Right"
        raise RequestError(422, f"{reason}: cut them yourself")
    return {"X-Truncated-Texts": str(truncated)}
