"""`index export` as a user runs it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("stand_in")
Command = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path, write_lines: Callable[[Path, list[Any]], Path], llm2comp_command: Command) -> Path:
    rows = [{"_id": "a", "text": "bread", "year": 2001}, {"_id": "b", "text": "moon", "tags": ["x"]}]
    corpus = write_lines(tmp_path / "corpus.jsonl", rows)
    assert llm2comp_command("index", "build", corpus, "-o", tmp_path / "idx").code == 0
    return tmp_path / "idx"


def test_an_export_says_what_it_wrote(folder: Path, tmp_path: Path, llm2comp_command: Command) -> None:
    run = llm2comp_command("index", "export", folder, "-o", tmp_path / "out.parquet")
    assert run.code == 0
    first, metadata = run.out.splitlines()
    assert first.startswith(f"{tmp_path / 'out.parquet'}: 2 rows, vectors of dimension 32, ")
    assert first.endswith("s; read back and compared")
    assert metadata == "metadata: year int64, tags list:string"
    report = json.loads(
        llm2comp_command("index", "export", folder, "-o", tmp_path / "x", "--format", "npy", "--json").out
    )
    assert (report["rows"], report["format"], report["fields"]) == (2, "npy", {"year": "int64", "tags": "list:string"})


def test_an_existing_target_is_kept(folder: Path, tmp_path: Path, llm2comp_command: Command) -> None:
    (tmp_path / "out.jsonl").write_text("mine")
    run = llm2comp_command("index", "export", folder, "-o", tmp_path / "out.jsonl", "--format", "jsonl")
    assert run.code == 1
    assert run.err == f"llm2comp: error: {tmp_path / 'out.jsonl'}: exists, and is kept; name another target with -o\n"
    assert (tmp_path / "out.jsonl").read_text() == "mine"


def test_a_format_without_its_package_names_the_command(
    folder: Path, tmp_path: Path, llm2comp_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lance", None)
    run = llm2comp_command("index", "export", folder, "-o", tmp_path / "out.lance", "--format", "lance")
    assert (run.code, 'pip install "llm2comp[lance]"' in run.err, run.err.count("\n")) == (1, True, 1)
    assert not list(tmp_path.glob("*out*"))


def test_a_name_decides_the_format(folder: Path, tmp_path: Path, llm2comp_command: Command) -> None:
    run = llm2comp_command("index", "export", folder, "-o", tmp_path / "out.jsonl")
    assert run.code == 0
    assert [json.loads(line)["id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == ["a", "b"]
    assert llm2comp_command("index", "export", folder, "-o", tmp_path / "out").code == 0
    assert (tmp_path / "out").read_bytes()[:4] == b"PAR1"
    forced = ("index", "export", folder, "-o", tmp_path / "out.data", "--format", "npy")
    assert llm2comp_command(*forced).code == 0
    assert (tmp_path / "out.data" / "vectors.npy").is_file()


def test_a_name_of_another_format_is_refused(folder: Path, tmp_path: Path, llm2comp_command: Command) -> None:
    run = llm2comp_command("index", "export", folder, "-o", tmp_path / "out.csv")
    assert (run.code, run.err) == (
        1,
        f"llm2comp: error: {tmp_path / 'out.csv'}: .csv is no format of an export; choose parquet, npy, jsonl or lance "
        "with --format\n",
    )
    assert not (tmp_path / "out.csv").exists()
