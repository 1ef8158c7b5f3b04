"""Errors of requests, in the shape that the clients of each route expect."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from starlette.exceptions import HTTPException

__all__ = ["RequestError", "body_of", "path_of"]

_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_TEI_TYPES = {400: "Empty", 413: "Validation", 422: "Tokenizer", 424: "Backend", 429: "Overloaded", 503: "Unhealthy"}
_TEI_PATHS = ("/embed", "/tokenize", "/rerank", "/info")


class _Problem(NamedTuple):
    status: int
    message: str
    parameter: str | None
    code: str | None


class RequestError(HTTPException):
    """A request that cannot be served.

    Attributes:
        status: HTTP status.
        message: One line: what is wrong and what to do.
        parameter: Field of the request that it is about.
        code: Short name that programs can compare.
        headers: Headers of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        parameter: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers or {})
        self.problem = _Problem(status, message, parameter, code)

    def __str__(self) -> str:
        return self.problem.message


def path_of(scope: Mapping[str, Any]) -> str:
    """The path of a request within the application, which may be mounted in another one."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) or "/"


def body_of(path: str, problem: _Problem) -> dict[str, Any]:
    """The JSON body of an error: text-embeddings-inference's shape on its routes, OpenAI's elsewhere.

    Args:
        path: Path within the application.
        problem: What is wrong.
    """
    if path == "/" or path.startswith(_TEI_PATHS):
        return {"error": problem.message, "error_type": _TEI_TYPES.get(problem.status, "Validation")}
    kind = _OPENAI_TYPES.get(problem.status, "invalid_request_error" if problem.status < 500 else "server_error")
    return {"error": {"message": problem.message, "type": kind, "param": problem.parameter, "code": problem.code}}
