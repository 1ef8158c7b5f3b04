"""The tools for assistants, called by the SDK's own client: as a command, and at `/mcp` of the server."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("mcp", reason="needs the extra serve")

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from llm2comp_indexes import build_index
from llm2comp_serve import ServeSettings, create_app
from tests.serve.conftest import ROWS
from tests.serve.server import ask, serving


async def _try(client: Any) -> None:
    """Everything that an assistant does."""
    listed = await client.list_tools()
    assert [tool.name for tool in listed.tools] == ["search", "read"]
    assert all(tool.annotations.read_only_hint and tool.description for tool in listed.tools)

    found = await client.call_tool("search", {"query": "why does bread rise?", "index": "corpus", "k": 2})
    assert not found.is_error
    passages = found.structured_content["result"]
    assert [passage["id"] for passage in passages][0] == "bread"
    assert len(passages) == 2
    assert passages[0]["text"] == ROWS[0]["text"]
    assert passages[0]["citation"] == "Bread"
    assert passages[0]["metadata"] == {"year": 2001, "lang": "en"}

    read = await client.call_tool("read", {"id": "bread", "index": "corpus"})
    assert read.structured_content["texts"] == [ROWS[0]["text"]]

    only = await client.call_tool("search", {"query": "bread", "index": "corpus", "where": "year >= 2020"})
    assert {passage["id"] for passage in only.structured_content["result"]} == {"train", "primes"}

    for arguments, message in (
        ({"query": "a", "index": "other"}, "served are: corpus"),
        ({"query": "a", "index": "corpus", "where": "year >="}, "year >="),
        ({"query": "a", "index": "corpus", "where": "colour == 1"}, "colour"),
        ({"query": "", "index": "corpus"}, "query: String should have at least 1 character, not ''"),
        ({"query": "a", "index": "corpus", "k": 1000}, "k: Input should be less than or equal to 50, not 1000"),
        (
            {"query": "a", "index": "corpus", "mode": "fuzzy"},
            "mode: Input should be 'dense', 'bm25' or 'hybrid', not 'fuzzy'",
        ),
        ({"index": "corpus"}, "the argument query is missing"),
        (
            {"query": "a", "index": "corpus", "filter": "year >= 2020"},
            "there is no argument 'filter'; there are: query,",
        ),
    ):
        failed = await client.call_tool("search", arguments)
        assert failed.is_error
        assert message in failed.content[0].text
        assert "Traceback" not in failed.content[0].text
        assert "\n" not in failed.content[0].text
    missing = await client.call_tool("read", {"id": "nothing", "index": "corpus"})
    assert missing.is_error
    assert "no document 'nothing'" in missing.content[0].text


async def test_over_http(url: str) -> None:
    async with Client(f"{url}/mcp") as client:
        await _try(client)


async def test_as_a_command(index_dir: Path, tmp_path: Path) -> None:
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "llm2comp", "mcp", "--index", f"corpus={index_dir}"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with (tmp_path / "log").open("w") as log:
        async with Client(stdio_client(parameters, errlog=log)) as client:
            await _try(client)
    assert "Traceback" not in (tmp_path / "log").read_text()


async def test_the_chunks_of_a_document_are_read_together(url: str) -> None:
    async with Client(f"{url}/mcp") as client:
        found = await client.call_tool("search", {"query": "bread", "index": "chunks", "k": 1})
        [passage] = found.structured_content["result"]
        read = await client.call_tool("read", {"id": passage["id"], "index": "chunks"})
    assert passage["id"] == "bread"
    assert len(read.structured_content["texts"]) > 1


async def test_half_a_surrogate_pair_in_a_document(tmp_path: Path) -> None:
    rows = [{"id": "half", "text": "Bread \ud800 rises.", "metadata": {"note": "\udc00"}}, {"id": "b", "text": "Bread"}]
    build_index(rows, tmp_path / "odd.index")
    with serving(create_app(ServeSettings(indexes={"odd": tmp_path / "odd.index"}))) as url:
        async with Client(f"{url}/mcp") as client:
            found = await client.call_tool("search", {"query": "bread rises"})
            read = await client.call_tool("read", {"id": "half"})
    assert {passage["id"] for passage in found.structured_content["result"]} == {"half", "b"}
    assert read.structured_content["texts"] == ["Bread \ufffd rises."]
    assert read.structured_content["metadata"] == {"note": "\ufffd"}


def test_another_host_is_refused_without_a_key(url: str) -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    headers = {"Accept": "application/json, text/event-stream", "Host": "evil.example"}
    assert ask(f"{url}/mcp", call, headers=headers).status in (403, 421)
