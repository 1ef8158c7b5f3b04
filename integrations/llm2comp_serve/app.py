"""The application: all routes on one service."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from llm2comp import __version__
from llm2comp_serve import openai_routes, page_routes, search_routes, state_routes, tei_routes
from llm2comp_serve.errors import RequestError, body_of, path_of
from llm2comp_serve.gate import Gate
from llm2comp_serve.mcp_server import create_mcp, mcp_application
from llm2comp_serve.service import Service
from llm2comp_serve.settings import ServeSettings

__all__ = ["create_app"]


def create_app(settings: ServeSettings | None = None) -> FastAPI:
    """The ASGI application; its models are loaded in the background when the server starts.

    Where it is mounted within another application, whose server does not start it, the first request loads them; tools
    for assistants (`/mcp`) then need `FastAPI(lifespan=app.router.lifespan_context)` in the other one.

    Args:
        settings: None: `llm2comp-tiny`, without a key.
    """
    service = Service(settings or ServeSettings(models=("llm2comp-tiny",)))

    tools = create_mcp(service) if service.settings.indexes else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        async with AsyncExitStack() as running:
            if tools is not None:
                await running.enter_async_context(tools.session_manager.run())
                service.tools_run = True
            yield
        service.close()

    app = FastAPI(
        title="llm2comp",
        summary="Embeddings and search by models that compress texts into memory tokens",
        version=__version__,
        lifespan=lifespan,
    )
    app.state.service = service
    for module in (openai_routes, tei_routes, search_routes, state_routes, page_routes):
        app.include_router(module.router)
    if tools is not None:
        app.router.routes.extend(mcp_application(tools, service).routes)
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(Gate, settings=service.settings, metrics=service.metrics)
    if service.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(service.settings.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
        )
    return app


async def _request_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestError)
    return _response(request, error)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """One line about the first field that is wrong: 422 on text-embeddings-inference's routes, 400 elsewhere."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = "" if first["type"] == "json_invalid" else ".".join(str(part) for part in first["loc"] if part != "body")
    message = _described(first, place)
    is_openai = path_of(request.scope).startswith("/v1/")
    return _response(request, RequestError(400 if is_openai else 422, message, parameter=place or None))


def _described(error: Mapping[str, Any], place: str) -> str:
    """What is wrong with a body, in one line."""
    if error["type"] == "json_invalid":
        return f"the body is not JSON: {error['ctx']['error']} at character {error['loc'][-1]}"
    if not place and error["type"] == "missing":
        return "the request has no body; send JSON"
    if not place and error["type"] == "model_attributes_type":
        return "the body is not a JSON object; send one, with the header Content-Type: application/json"
    if error["type"] == "extra_forbidden":
        return f"there is no field {place!r}; /docs lists those of this route"
    if error["loc"][1:2] in (("input",), ("inputs",)) and error["type"] == "string_type":
        return f"{error['loc'][1]}: expected a text or a list of texts"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers, reason = dict(error.headers or {}), str(error.detail)
    if isinstance(error.__cause__, UnicodeDecodeError):
        reason = "the body is not text in UTF-8; send JSON in UTF-8"
    elif error.status_code == 400 and isinstance(error.__cause__, RecursionError | ValueError):
        reason = "the body cannot be read as JSON: it is nested too deeply, or a number has too many digits"
    return _response(request, RequestError(error.status_code, reason, headers=headers))


def _response(request: Request, error: RequestError) -> JSONResponse:
    return JSONResponse(body_of(path_of(request.scope), error.problem), error.problem.status, headers=error.headers)
