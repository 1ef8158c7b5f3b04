"""Tools for assistants, by the Model Context Protocol: `search` and `read` over the indexes.

Source: https://modelcontextprotocol.io/specification
"""

import asyncio
import json
from typing import Annotated, Any, Literal

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import ToolAnnotations
from pydantic import Field, ValidationError
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from llm2comp import __version__
from llm2comp.errors import LLM2CompError
from llm2comp_indexes import Hit, SearchOptions
from llm2comp_serve.errors import RequestError
from llm2comp_serve.lists import MOST_FILTER
from llm2comp_serve.service import Service

__all__ = ["create_mcp", "mcp_application"]

_LOCAL_HOSTS = ["127.0.0.1", "127.0.0.1:*", "localhost", "localhost:*", "[::1]", "[::1]:*"]
_READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
_MOST_CHARACTERS = 2000
_Mode = Literal["dense", "bm25", "hybrid"]


def create_mcp(service: Service) -> MCPServer:
    """A server with two tools over the indexes of the service."""
    names = ", ".join(service.settings.indexes)
    server = _Server(
        "llm2comp",
        version=__version__,
        instructions=f"Search the indexes ({names}) for passages, then read the documents that matter, and cite them.",
        log_level="WARNING",
    )

    @server.tool(title="Search documents", annotations=_READS)
    async def search(
        query: Annotated[str, Field(description="What to look for, in plain words.", min_length=1)],
        index: Annotated[str | None, Field(description=f"One of: {names}. May be left out if there is one.")] = None,
        k: Annotated[int, Field(description="Number of passages.", ge=1, le=50)] = 5,
        where: Annotated[
            str | None, Field(description="Filter on metadata, such as: year >= 2020", max_length=MOST_FILTER)
        ] = None,
        mode: Annotated[_Mode, Field(description="By meaning, by words, or by both.")] = "dense",
        rescore: Annotated[
            Literal["maxsim"] | None,
            Field(description="maxsim: a second, finer ranking of the best passages, in an index that is made for it."),
        ] = None,
    ) -> list[dict[str, Any]]:
        """Passages that answer a question, best first, with ids to read and places to cite."""
        options = _checked(lambda: SearchOptions(mode=mode, where=where, rescore=rescore))
        answer = await _run(service, index, lambda served: served.search([query], k, options))
        return [_readable(_passage(hit)) for hit in answer.hits[0]]

    @server.tool(title="Read a document", annotations=_READS)
    async def read(
        id: Annotated[str, Field(description="Id of a document, as search gives it.", min_length=1)],
        index: Annotated[str | None, Field(description=f"One of: {names}. May be left out if there is one.")] = None,
    ) -> dict[str, Any]:
        """A whole document: title, text and metadata."""
        rows = await _run(service, index, lambda served: served.read(id))
        if not rows:
            raise ToolError(f"there is no document {id!r}; search gives the ids that there are")
        texts = [row.text for row in rows]
        return _readable({"id": id, "title": rows[0].title, "texts": texts, "metadata": rows[0].metadata})

    return server


class _Server(MCPServer):
    """The SDK's server, whose messages on wrong arguments are one line each."""

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        """The result of a tool.

        Raises:
            ToolError: There is no such tool, an argument is wrong, or the tool cannot answer.
        """
        known = next((tool.input_schema["properties"] for tool in await self.list_tools() if tool.name == name), None)
        if known is not None and (others := sorted(arguments.keys() - known.keys())):
            raise ToolError(f"there is no argument {others[0]!r}; there are: {', '.join(known)}")
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if isinstance(error.__cause__, ValidationError):
                raise ToolError("; ".join(map(_wrong_argument, error.__cause__.errors()))) from error
            raise


def _wrong_argument(error: Any) -> str:
    name = ".".join(map(str, error["loc"]))
    if error["type"] == "missing":
        return f"the argument {name} is missing"
    return f"{name}: {error['msg'].removeprefix('Value error, ')}, not {error['input']!r:.80}"


def mcp_application(server: MCPServer, service: Service) -> Starlette:
    """The tools over HTTP, at `/mcp`. Without a key only programs on this machine may call them."""
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=not service.settings.api_keys, allowed_hosts=_LOCAL_HOSTS
    )
    application = server.streamable_http_app(json_response=True, stateless_http=True, transport_security=security)
    for route in application.routes:
        if isinstance(route, Route):
            route.app = _when_running(route.app, service)
    return application


def _when_running(app: ASGIApp, service: Service) -> ASGIApp:
    """The application; within another one, whose server did not start the tools, it refuses requests."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if not service.tools_run:
            raise RequestError(
                503,
                "the tools do not run: give the outer application lifespan=app.router.lifespan_context of this one",
                code="not_running",
            )
        await app(scope, receive, send)

    return checked


def _passage(hit: Hit) -> dict[str, Any]:
    return {
        "id": hit.document_id,
        "score": round(hit.score, 4),
        "citation": hit.citation,
        "title": hit.title,
        "text": hit.text[:_MOST_CHARACTERS] + ("…" if len(hit.text) > _MOST_CHARACTERS else ""),
        "metadata": {name: value for name, value in hit.metadata.items() if not name.startswith("llm2comp_")},
    }


def _readable(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer, with U+FFFD for half a surrogate pair, which the protocol's UTF-8 cannot hold."""
    written = json.dumps(answer, ensure_ascii=False)
    readable: dict[str, Any] = json.loads(written.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return readable


async def _run(service: Service, index: str | None, work: Any) -> Any:
    """What the work returns, in a thread; what is wrong as a message for the assistant."""

    def call() -> Any:
        service.check_ready()
        return work(service.indexes.find(index))

    return await asyncio.to_thread(_checked, call)


def _checked(call: Any) -> Any:
    try:
        return call()
    except (RequestError, LLM2CompError) as error:
        raise ToolError(str(error)) from error
