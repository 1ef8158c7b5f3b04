"""`index push` and `search --store` as a user runs them."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("stand_in")
Command = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path, write_lines: Callable[[Path, list[Any]], Path], llm2comp_command: Command) -> Path:
    rows = [{"_id": "a", "text": "bread", "year": 2001}, {"_id": "b", "text": "moon", "year": 2005, "tags": ["x"]}]
    corpus = write_lines(tmp_path / "corpus.jsonl", rows)
    assert llm2comp_command("index", "build", corpus, "-o", tmp_path / "idx").code == 0
    return tmp_path / "idx"


@pytest.fixture
def store(tmp_path: Path) -> str:
    pytest.importorskip("lancedb", reason="no LanceDB: pip install 'llm2comp[lancedb]'")
    return f"lancedb://{tmp_path / 'lance'}?table=docs"


def test_a_push_says_what_it_wrote(folder: Path, store: str, llm2comp_command: Command) -> None:
    run = llm2comp_command("index", "push", folder, "--to", store)
    assert run.code == 0
    assert run.out.startswith(f"{store}: 2 rows, vectors of dimension 32: 2 added, 0 changed, 0 deleted, ")
    assert run.out.endswith(" s; counted and compared\n")
    assert llm2comp_command("index", "delete", folder, "b").code == 0
    run = llm2comp_command("index", "push", folder, "--to", store)
    assert run.out.splitlines()[1] == "1 row is in the table and not in the index; --sync deletes it"
    report = json.loads(llm2comp_command("index", "push", folder, "--to", store, "--sync", "--json").out)
    assert (report["store"], report["rows"], report["deleted"], report["others"]) == (store, 1, 1, 0)


def test_a_table_is_searched_like_an_index(
    folder: Path, store: str, tmp_path: Path, write_lines: Callable[..., Path], llm2comp_command: Command
) -> None:
    llm2comp_command("index", "push", folder, "--to", store)
    for options in ((), ("--where", "year > 2000"), ("-k", "1")):
        expected = json.loads(llm2comp_command("search", folder, "moon", "--json", *options).out)
        hits = json.loads(llm2comp_command("search", "--store", store, "moon", "--json", *options).out)
        assert [hit.pop("score") for hit in hits] == pytest.approx([hit.pop("score") for hit in expected], abs=1e-5)
        assert hits == expected
    assert llm2comp_command("search", "--store", store, "moon", "--show", "year").out.startswith("  1 ")
    queries = write_lines(tmp_path / "queries.jsonl", [{"_id": "q", "text": "moon"}])
    run = llm2comp_command("search", "--store", store, "--queries", queries, "--run", tmp_path / "run.trec")
    assert (run.code, (tmp_path / "run.trec").read_text().split()[:4]) == (0, ["q", "Q0", "b", "1"])
    run = llm2comp_command("search", "--store", store, "moon", "--where", "year == 1")
    assert (run.code, run.err) == (0, "nothing found: no document fits year == 1\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("index", "push", "idx", "--to", "mysql://me:geheim@host/db"), "mysql:// is no store; expected postgresql://"),
        (("index", "push", "idx", "--to", "here"), "an address without a scheme is no store"),
        (("index", "push", "idx", "--to", "postgresql://me:ge@heim@host/db"), "write @ as %40"),
        (("search", "--store", "ftp://me:geheim@host", "moon"), "ftp:// is no store"),
        (("search", "idx", "moon", "--store", "lancedb://x"), "give either DIR or --store"),
        (("search", "--store", "lancedb://x", "moon", "--mode", "bm25"), "a store is searched by vectors"),
        (("search", "--store", "lancedb://x", "moon", "--nprobe", "3"), "--nprobe is for an index (DIR), not for"),
        (("search", "--store", "lancedb://x", "moon", "--threads", "3"), "--threads is for an index (DIR)"),
        (("search", "--store", "lancedb://x", "moon", "--neighbours", "3"), "--neighbours is for an index (DIR)"),
        (("search",), "Missing argument 'DIR'"),
        (("encode", "x", "-o", "y", "--to", "postgresql://host/db"), "--to is for a cluster: give --on ray too, or"),
        (("encode", "x", "-o", "y", "--sync"), "--sync is for a cluster: give --on ray too"),
        (("encode", "x", "-o", "y", "--on", "ray", "--sync"), "--sync deletes rows from a table: name it with --to"),
        (("encode", "x", "-o", "y", "--on", "ray", "--to", "mysql://me:geheim@host/db"), "mysql:// is no store;"),
        (
            ("encode", "x", "-o", "y", "--on", "ray", "--to", "postgresql://host/db", "--format", "parquet"),
            "--to needs texts, which --format parquet leaves out",
        ),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str, llm2comp_command: Command) -> None:
    run = llm2comp_command(*arguments)
    assert (run.code, run.out) == (2, "")
    assert message in " ".join(run.err.replace("│", " ").split())
    assert "geheim" not in run.err
    assert "heim" not in run.err


def test_what_goes_wrong_is_one_line(folder: Path, tmp_path: Path, llm2comp_command: Command) -> None:
    pytest.importorskip("lancedb")
    (tmp_path / "file").write_text("mine")
    for store, message in (
        (f"lancedb://{tmp_path / 'file'}", "a file, expected a folder; name another"),
        (f"lancedb://{tmp_path / 'none'}", "there is no such table; make it with: llm2comp index push DIR --to URL"),
    ):
        run = llm2comp_command("search", "--store", store, "moon")
        assert (run.code, run.out, run.err.count("\n")) == (1, "", 1)
        assert message in run.err
    run = llm2comp_command("index", "push", folder, "--to", f"lancedb://{tmp_path / 'l'}", "--truncate-dim", "64")
    assert (run.code, run.err.count("\n")) == (1, 1)
    assert not (tmp_path / "l").exists()
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("store", "module", "extra"),
    [
        ("postgresql://host/db", "psycopg", "postgres"),
        ("qdrant://host", "qdrant_client", "qdrant"),
        ("lancedb:///x", "lancedb", "lancedb"),
        ("milvus:///x.db", "pymilvus", "milvus"),
    ],
)
def test_a_client_that_is_not_installed(
    store: str, module: str, extra: str, folder: Path, llm2comp_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    run = llm2comp_command("index", "push", folder, "--to", store)
    assert (run.code, run.err.count("\n")) == (1, 1)
    assert f'pip install "llm2comp[{extra}]"' in run.err
