"""Routes about the server itself: `/health`, `/ready` and `/metrics`."""

from fastapi import APIRouter, Request, Response

from llm2comp_serve.responses import json_response
from llm2comp_serve.service import service_of

__all__ = ["router"]

router = APIRouter(tags=["state"])


@router.head("/health", include_in_schema=False)
@router.get("/health", response_class=Response)
async def health(request: Request) -> Response:
    """Whether the process lives: always 200, unless a model could not be loaded."""
    failure = service_of(request).failure
    return _state(503 if failure else 200, "failed" if failure else "ok")


@router.head("/ready", include_in_schema=False)
@router.get("/ready", response_class=Response)
async def ready(request: Request) -> Response:
    """Whether requests can be served: 503 while a process of the server is loading models."""
    service = service_of(request)
    service.start()
    return (
        _state(200, "ready")
        if service.ready and service.others_ready()
        else _state(503, "failed" if service.failure else "loading")
    )


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Counts of requests, texts, tokens and seconds, in Prometheus' text format."""
    return Response(service_of(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _state(status: int, name: str) -> Response:
    return json_response({"status": name}, status=status)
