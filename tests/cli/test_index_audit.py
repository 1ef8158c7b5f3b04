"""`llm2comp index audit` as a user runs it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.tiny import text, write_corpus

Command = Callable[..., Any]


@pytest.fixture
def index(saved_model: Path, tmp_path: Path) -> Path:
    from llm2comp_indexes import build_index

    write_corpus(tmp_path / "corpus.jsonl", [text(number, 4 + number) for number in range(6)])
    build_index([tmp_path / "corpus.jsonl"], tmp_path / "index", model=str(saved_model))
    return tmp_path / "index"


def test_a_sample_is_shown_and_written(llm2comp_command: Command, index: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = llm2comp_command("index", "audit", index, "--sample", 4, "--lowest", 1, "-o", out, "--device", "cpu")
    assert done.code == 0, done.err
    assert "reconstruction of 4 of 6 rows" in done.out
    assert sorted(path.name for path in out.iterdir() if path.suffix != ".png") == ["audit.json", "fidelity.tsv"]
    assert str(out / "fidelity.tsv") in done.err
    assert len((out / "fidelity.tsv").read_text().splitlines()) == 5


def test_as_json(llm2comp_command: Command, index: Path) -> None:
    done = llm2comp_command("index", "audit", index, "--all", "--json", "--device", "cpu", "--max-tokens", 10)
    assert done.code == 0, done.err
    content = json.loads(done.out)
    assert (content["rows"], content["summary"]["texts"], content["summary"]["tokens"]) == (6, 6, 9)
    assert content["summary"]["cut"] == 6


def test_a_model_without_its_reader_is_one_line(llm2comp_command: Command, tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus.jsonl", [text(1)])
    assert llm2comp_command("index", "build", tmp_path / "corpus.jsonl", "-o", tmp_path / "tiny").code == 0
    done = llm2comp_command("index", "audit", tmp_path / "tiny", "--device", "cpu")
    assert done.code == 1
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert len(lines) == 1
    assert "all its weights were trained" in lines[0]
    assert "--reader" in lines[0]
