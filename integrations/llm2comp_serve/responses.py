"""JSON responses, written without a model of their fields."""

import json
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import Response

__all__ = ["json_response"]

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def json_response(content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The content as JSON; arrays of NumPy are lists of numbers."""
    try:
        body = orjson.dumps(content, option=_OPTIONS)
    except TypeError:  # a whole number of more than 64 bits, or half a surrogate pair, in a text or metadata
        body = json.dumps(content).encode()
    return Response(body, status_code=status, media_type="application/json", headers=dict(headers or {}))
