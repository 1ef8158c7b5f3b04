"""What every request passes: the key, the limits of its body, the log line and the counts."""

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from typing import Any

import orjson

from llm2comp_serve.errors import RequestError, body_of, path_of
from llm2comp_serve.metrics import Metrics
from llm2comp_serve.settings import ServeSettings

__all__ = ["Gate"]

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[MutableMapping[str, Any], _Receive, _Send], Awaitable[None]]
_OPEN_PATHS = frozenset({"/health", "/ready", "/", "/page.css", "/page.js", "/favicon.ico"})
_CLOSE = {"Connection": "close"}  # no other request comes after a body that was not taken whole
_QUIET_SECONDS = 2.0
"""How long a client may pause while the rest of a refused body is thrown away."""
_logger = logging.getLogger("llm2comp_serve.access")
_errors = logging.getLogger("llm2comp_serve.errors")


class Gate:
    """ASGI middleware around the application.

    A path that is open needs no key when it is read: the state of the server, and the page without its data.
    """

    def __init__(self, app: _App, settings: ServeSettings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._keys = [key.encode() for key in settings.api_keys]

    async def __call__(self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        """Passes the request on, or answers it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status, begun = time.perf_counter(), 499, False
        body = _Body(scope, receive, self._settings)

        async def observed(message: _Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
            elif not message.get("more_body", False) and not body.is_whole:
                await send({**message, "more_body": True})
                await body.throw_away()  # before the answer's end, at which the server may close the connection
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, body.receive, observed)
        except RequestError as error:
            if not begun:
                await _answer(scope, observed, error)
        except Exception:
            _errors.exception("%s %s failed", scope["method"], scope["path"])
            if not begun:
                await _answer(scope, observed, RequestError(500, "the server failed; its log says why"))
        finally:
            self._record(scope, status, time.perf_counter() - start)

    def _check(self, scope: MutableMapping[str, Any]) -> None:
        """Checks the key and the length that the request states.

        Raises:
            RequestError: The key is missing or wrong (status 401), or the body is too long (413).
        """
        headers = dict(scope["headers"])
        is_open = path_of(scope) in _OPEN_PATHS and scope["method"] in ("GET", "HEAD")
        is_preflight = scope["method"] == "OPTIONS" and b"access-control-request-method" in headers
        if self._keys and not is_open and not is_preflight and not _is_known(headers.get(b"authorization"), self._keys):
            raise RequestError(
                401,
                "a key is needed: send the header Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._settings.max_body:
            raise _too_long(self._settings.max_body)

    def _record(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")  # not the path, of which there are any number
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if _logger.isEnabledFor(logging.INFO):
            facts = {"method": scope["method"], "path": scope["path"], "status": status}
            facts |= {"milliseconds": round(1000 * seconds, 1), **scope.get("llm2comp", {})}
            _logger.info("%s", orjson.dumps(facts).decode())


def _is_known(header: bytes | None, keys: Sequence[bytes]) -> bool:
    """Whether the header carries one of the keys; takes the same time whichever it is, and whether it is."""
    scheme, _, key = (header or b"").partition(b" ")
    matches = [hmac.compare_digest(key.strip(), known) for known in keys]
    return scheme.lower() == b"bearer" and any(matches)


def _too_long(most: int) -> RequestError:
    message = f"the request has more than {most:,} bytes: send several"
    return RequestError(413, message, code="request_too_large", headers=_CLOSE)


class _Body:
    """The parts of a request's body, as long as they are within the limits of bytes and time.

    Args:
        scope: The request.
        receive: The server's source of messages.
        settings: Settings with the limits.
    """

    def __init__(self, scope: MutableMapping[str, Any], receive: _Receive, settings: ServeSettings) -> None:
        self._receive, self._most = receive, settings.max_body
        self._deadline = time.monotonic() + settings.body_seconds
        headers = dict(scope["headers"])
        self._waits = b"expect" in headers
        self.is_whole = headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers
        self._bytes, self._ended = 0, False

    async def receive(self) -> _Message:
        """The next message.

        Raises:
            RequestError: The body is too long (status 413) or slow (408).
        """
        if self._ended:  # what comes now is that the client has gone
            return await self._receive()
        try:
            message = await self._next(self._deadline - time.monotonic())
        except TimeoutError:
            reason = "the body of the request did not arrive in time"
            raise RequestError(408, reason, code="timeout", headers=_CLOSE) from None
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._most:
            raise _too_long(self._most)
        return message

    async def throw_away(self) -> None:
        """Takes the rest of the body and forgets it: a client that is still sending would not read the answer."""
        if self._waits:  # to be told to send
            return
        with suppress(TimeoutError):
            while not self.is_whole and (left := self._deadline - time.monotonic()) > 0:
                await self._next(min(left, _QUIET_SECONDS))

    async def _next(self, seconds: float) -> _Message:
        async with asyncio.timeout(seconds):
            message = await self._receive()
        self._waits, self._ended = False, not message.get("more_body", False)
        self.is_whole |= self._ended
        return message


async def _answer(scope: MutableMapping[str, Any], send: _Send, error: RequestError) -> None:
    body = orjson.dumps(body_of(path_of(scope), error.problem))
    headers = {"content-type": "application/json", "content-length": str(len(body)), **(error.headers or {})}
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.problem.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
