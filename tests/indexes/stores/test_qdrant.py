"""Qdrant: a key, a network that may be gone, and a folder that cannot be written."""

import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from llm2comp.corpus.documents import Document
from llm2comp.errors import StoreError
from llm2comp_indexes import open_store_index
from llm2comp_indexes.stores.header import StoreHeader
from llm2comp_indexes.stores.open import open_store
from llm2comp_indexes.stores.rows import make_rows

pytest.importorskip("qdrant_client", reason="the client of this store is not installed: pip install qdrant-client")


class _Answers(BaseHTTPRequestHandler):
    """Says that no collection exists, to who has the key."""

    def do_GET(self) -> None:
        known = self.headers.get("api-key") == "pa55"
        content = b'{"result": {"exists": false}, "status": "ok", "time": 0}' if known else b'"Must provide an API key"'
        self.send_response(200 if known else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Logs nothing."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_server_that_is_gone(server: HTTPServer) -> None:
    url = f"qdrant://:pa55@127.0.0.1:{server.server_port}"
    store = open_store(url)
    assert store.read_header() is None
    server.shutdown()
    server.server_close()
    with pytest.raises(StoreError, match=r"cannot be reached \(.*\); what was written is kept: run this again$"):
        store.read_header()
    store.close()
    with pytest.raises(StoreError, match=r"cannot be reached \([^;]*\)$") as failure:
        open_store_index(url)
    assert "pa55" not in str(failure.value)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Local mode keeps points in SQLite, whose errors are no OSErrors: such as that the disk is full."""
    store = open_store(f"qdrant+file://{tmp_path / 'q'}")
    header = StoreHeader("print", "name", 2)
    store.create(header)
    rows = make_rows([Document("a", "", "text", {})], np.eye(1, 2, dtype=np.float32), header)

    def refuse(*arguments: object, **settings: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("qdrant_client.local.persistence.CollectionPersistence.persist", refuse)
        with pytest.raises(StoreError, match=r"\(database or disk is full\); what was written is kept: run this again"):
            store.write([rows])
    store.write([rows])
    assert store.count() == 1
    store.close()


def test_a_key_that_the_server_refuses(server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", "pa55x")
    with pytest.raises(StoreError, match="refuses the key .*give it in QDRANT_API_KEY") as failure:
        open_store_index(f"qdrant://127.0.0.1:{server.server_port}")
    assert "pa55" not in str(failure.value)
    monkeypatch.setenv("QDRANT_API_KEY", "pa55")
    with pytest.raises(StoreError, match="there is no such table"):
        open_store_index(f"qdrant://127.0.0.1:{server.server_port}")
