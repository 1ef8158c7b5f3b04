"""`index plan` and `index build --dry-run` as a user runs them."""

import json
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("stand_in")
Command = Callable[..., Any]


@pytest.fixture
def corpus(tmp_path: Path, write_lines: Callable[[Path, list[Any]], Path]) -> Path:
    return write_lines(tmp_path / "corpus.jsonl", [{"_id": f"d{row}", "text": f"bread {row}"} for row in range(30)])


def test_a_plan_names_what_a_build_takes(corpus: Path, llm2comp_command: Command) -> None:
    run = llm2comp_command("index", "plan", corpus)
    assert run.code == 0
    labels = [line[:12].strip() for line in run.out.splitlines()]
    assert labels == ["documents", "encoding", "reading", "type", "memory", "disk", "dimension", "measured on"]
    assert run.out.startswith("documents    30, 230 characters\n")
    assert "type         Flat (exact search takes about" in run.out
    assert "measured on  30 documents, 30 rows of which were encoded" in run.out


def test_a_plan_as_json(corpus: Path, llm2comp_command: Command) -> None:
    report = json.loads(llm2comp_command("index", "plan", corpus, "--limit", 10, "--json").out)
    assert (report["documents"], report["rows"], report["type"], report["tokens"]) == (10, 10, "Flat", None)


def test_a_dry_run_writes_nothing(tmp_path: Path, corpus: Path, llm2comp_command: Command) -> None:
    run = llm2comp_command("index", "build", corpus, "-o", tmp_path / "idx", "--dry-run", "--limit", 7)
    assert (run.code, run.out.splitlines()[0]) == (0, "documents    7, 49 characters")
    assert not (tmp_path / "idx").exists()


def test_a_dry_run_refuses_what_a_build_refuses(tmp_path: Path, corpus: Path, llm2comp_command: Command) -> None:
    assert llm2comp_command("index", "build", corpus, "-o", tmp_path / "idx").code == 0
    run = llm2comp_command("index", "build", corpus, "-o", tmp_path / "idx", "--dry-run")
    assert (run.code, "already holds an index" in run.err) == (1, True)
    assert llm2comp_command("index", "build", corpus, "-o", tmp_path / "idx", "--dry-run", "--overwrite").code == 0
    run = llm2comp_command("index", "plan", corpus, "--memory", "100")
    assert (run.code, run.err.count("\n"), "memory is 100 bytes, too little" in run.err) == (1, 1, True)
    run = llm2comp_command("index", "build", "--vectors", tmp_path, "-o", tmp_path / "x", "--limit", 3)
    assert run.code == 2


def test_a_disk_with_too_little_space_is_named(
    tmp_path: Path, corpus: Path, llm2comp_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(1000, 0, 1000))
    run = llm2comp_command("index", "build", corpus, "-o", tmp_path / "a" / "b", "--dry-run")
    assert run.code == 1
    assert "1 kB are free there" in run.err


def test_a_build_takes_the_first_documents(tmp_path: Path, corpus: Path, llm2comp_command: Command) -> None:
    run = llm2comp_command("index", "build", corpus, "-o", tmp_path / "idx", "--limit", 4)
    assert run.out.startswith("4 documents, ")
