"""A server of `llm2comp serve`, called over HTTP."""

import json
import os
import time
import weakref
from typing import Any

from llm2comp.errors import ServerError, one_line
from llm2comp.optional import optional_import

__all__ = ["Server"]

_KEPT_SECONDS = 3.0
"""How long an idle connection is kept: less than the server's 5, which might close it while a request is on its way."""
_LONGEST_WAIT = 60.0


class Server:
    """A server by its address. Any number of threads may use one object; copies and processes connect anew.

    Args:
        url: Address, with or without `/v1` at its end.
        api_key: Key that the server wants, if any.
        timeout: Seconds until an answer must have come.
        max_retries: Number of further tries when the server is overloaded or loading, each after the seconds that it
            names.
    """

    def __init__(self, url: str, api_key: str | None = None, timeout: float = 60.0, max_retries: int = 5) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._arguments = (self.url, api_key, timeout, max_retries)
        self._httpx = optional_import("httpx", extra="langchain", needed_by="a client of llm2comp serve")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout, self._retries = timeout, max_retries
        self._process, self._client = 0, None

    def __reduce__(self) -> tuple[Any, ...]:
        return Server, self._arguments

    def call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The response to a request: GET, or POST with a JSON body.

        Raises:
            ServerError: It cannot be reached or refuses the request.
        """
        data = None if body is None else json.dumps(body)  # httpx's json= refuses half a surrogate pair
        headers = {"Content-Type": "application/json"}
        tries = self._retries
        while True:
            try:
                response = self._connected().request(
                    "POST" if data else "GET", self.url + path, content=data, headers=headers
                )
            except self._httpx.TransportError as error:
                if isinstance(error, self._httpx.RemoteProtocolError | self._httpx.ReadError) and tries > 0:
                    tries -= 1  # the server has closed an idle connection
                    continue
                raise ServerError(self._explain(error)) from error
            except self._httpx.InvalidURL as error:
                raise ServerError(f"{self.url!r} is no address such as http://127.0.0.1:8080: {error}") from error
            if response.status_code not in (429, 503) or tries == 0:
                return self._checked(response)
            tries -= 1
            time.sleep(_seconds(response.headers.get("Retry-After")))

    def json(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON that a request is answered with.

        Raises:
            ServerError: As `call`, or the answer is no JSON.
        """
        return self.parse(self.call(path, body))

    def parse(self, response: Any) -> Any:
        """The JSON of a response.

        Raises:
            ServerError: It is none.
        """
        try:
            return response.json()
        except ValueError as error:
            raise ServerError(f"{self.url} does not answer as llm2comp serve does; check the address") from error

    def _connected(self) -> Any:
        """The client of this process, which keeps connections open."""
        if self._process != os.getpid():  # connections cannot be shared with the process that this was forked from
            limits = self._httpx.Limits(keepalive_expiry=_KEPT_SECONDS)
            client = self._httpx.Client(headers=self._headers, timeout=self._timeout, limits=limits)
            weakref.finalize(self, client.close)
            self._process, self._client = os.getpid(), client
        return self._client

    def _explain(self, error: Exception) -> str:
        if isinstance(error, self._httpx.TimeoutException):
            return f"{self.url} has not answered within {self._timeout:g} s; is it overloaded? (timeout=…)"
        if isinstance(error, self._httpx.UnsupportedProtocol):
            return f"{self.url!r} is no address such as http://127.0.0.1:8080"
        return f"{self.url} cannot be reached ({one_line(error)}); start it with llm2comp serve, or correct the address"

    def _checked(self, response: Any) -> Any:
        if response.status_code < 300:
            return response
        try:
            error = response.json()["error"]
            reason = one_line(Exception(error["message"] if isinstance(error, dict) else error))
        except (ValueError, KeyError, TypeError):
            reason = f"status {response.status_code}; is it llm2comp serve?"
        if response.status_code == 401:
            reason = "it wants a key" if not self._headers else "it does not know the key"
            reason += ": give one of its --api-key-file (api_key=…)"
        if response.status_code == 429 and self._retries:
            reason += f" (tried {self._retries + 1} times)"
        raise ServerError(f"{self.url}: {reason}")


def _seconds(header: str | None) -> float:
    try:
        return min(max(float(header or 1), 0.0), _LONGEST_WAIT)
    except ValueError:
        return 1.0
