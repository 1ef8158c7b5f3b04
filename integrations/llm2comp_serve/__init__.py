"""HTTP server of embeddings and indexes: `llm2comp serve`, or `create_app` within an application of your own.

Imports `llm2comp`, `llm2comp_indexes`, FastAPI and what it needs (the extra `serve`).

Examples:
    >>> from fastapi import FastAPI
    >>> from llm2comp_serve import ServeSettings, create_app
    >>> app = FastAPI()
    >>> app.mount("/embeddings", create_app(ServeSettings(models=("llm2comp-tiny",))))
"""

from llm2comp.optional import optional_import

for _module in ("fastapi", "orjson", "prometheus_client"):
    optional_import(_module, extra="serve", needed_by="the server", error_type=ImportError)

from llm2comp_serve.app import create_app
from llm2comp_serve.settings import ServeSettings

__all__ = ["ServeSettings", "create_app"]
