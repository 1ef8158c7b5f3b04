"""Every store that runs on this machine, each with a table of its own for a test, and an index to push."""

import json
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from llm2comp_indexes import build_index
from tests.postgres_server import PostgresServer, running_postgres
from tests.word_encoder import WORDS, WordEncoder

STORES = ["postgresql", "qdrant+file", "lancedb", "milvus"]
_tables = count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return new_url(request, tmp_path)


def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of a table that is not there yet, in the store that is the fixture's parameter."""
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        return server.url(table=f"docs{next(_tables)}")
    module, package = {"lancedb": ("lancedb", "lancedb"), "qdrant+file": ("qdrant_client", "qdrant-client")}.get(
        request.param, ("milvus_lite", "'pymilvus[milvus-lite]'")
    )
    pytest.importorskip(module, reason=f"the client of this store is not installed: pip install {package}")
    place = tmp_path / ("store.db" if request.param == "milvus" else "store")
    return f"{request.param}://{place}?table=docs"


@pytest.fixture
def make_index(tmp_path: Path) -> Callable[..., Path]:
    """Function that builds an index of documents with the stand-in encoder."""

    def make(documents: list[dict[str, Any]], name: str = "idx", **options: Any) -> Path:
        corpus = tmp_path / f"{name}.jsonl"
        corpus.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
        build_index([corpus], tmp_path / name, model=WordEncoder(), **options)
        return tmp_path / name

    return make


def documents(rows: int, first: int = 0) -> list[dict[str, Any]]:
    """Documents of different texts, with metadata of most types."""
    return [
        {
            "_id": f"d{row} é",
            "title": f"Title {row}" if row % 3 else "",
            "text": f"{WORDS[row % len(WORDS)]} {WORDS[row * 7 % len(WORDS)]} n{row} \u2028 ✓",
            "year": 2000 + row % 20 if row % 4 else None,
            "price": row / 8,
            "new": row % 2 == 0,
            "lang": "en" if row % 3 else "de",
            "tags": [["x"], ["x", "y"], []][row % 3],
        }
        for row in range(first, first + rows)
    ]
