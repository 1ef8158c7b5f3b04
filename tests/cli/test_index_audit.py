"""`llm2comp index audit` and `index build --chunk-by-fidelity` as a user runs them."""

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


@pytest.mark.parametrize("existing", [True, False])
def test_after_an_error_no_folder_is_left(llm2comp_command: Command, tmp_path: Path, existing: bool) -> None:
    if existing:
        (tmp_path / "out").mkdir()
    done = llm2comp_command("index", "audit", tmp_path / "nowhere", "-o", tmp_path / "out" / "here")
    assert done.code == 1
    assert "no such index folder" in done.err
    assert (tmp_path / "out").exists() == existing
    assert not (tmp_path / "out" / "here").exists()


def test_a_folder_without_permission_is_told_before_the_audit(
    llm2comp_command: Command, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir(mode=0o500)

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("llm2comp_indexes.audit.report.TemporaryFile", refuse)  # the superuser may write anywhere
    monkeypatch.setattr("llm2comp_indexes.audit_index", lambda *_, **__: pytest.fail("the audit began"))
    done = llm2comp_command("index", "audit", index, "-o", tmp_path / "out")
    assert done.code == 1
    assert (
        done.err
        == f"llm2comp: error: {tmp_path / 'out'}: cannot be written to (Permission denied); give another with -o\n"
    )


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


def test_chunks_by_fidelity_are_built_counted_and_described(
    llm2comp_command: Command, saved_model: Path, tmp_path: Path
) -> None:
    write_corpus(tmp_path / "corpus.jsonl", [text(1, 20), text(2, 20)])
    folder = tmp_path / "held"
    options = ("--model", saved_model, "--model-device", "cpu", "--chunk-by-fidelity", 0.95)
    done = llm2comp_command("index", "build", tmp_path / "corpus.jsonl", "-o", folder, *options)
    assert done.code == 0, done.err
    assert "chunks alone, and kept less than the fidelity of chunks" in done.err.replace("are chunks", "chunks")
    done = llm2comp_command("index", "info", folder)
    assert "a fidelity of 0.95" in done.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--chunk-by-fidelity", 1.5), "chunk_fidelity is 1.5, expected more than 0 and less than 1"),
        (("--chunk-by-fidelity", 0.6, "--chunk-tokens", 64), "chunk_tokens is 64 with chunk_fidelity 0.6"),
        (("--reader", "llama"), "chunk_reader is llama without chunk_fidelity"),
    ],
)
def test_chunks_by_fidelity_that_are_wrong_usage(
    llm2comp_command: Command, tmp_path: Path, options: tuple[Any, ...], message: str
) -> None:
    write_corpus(tmp_path / "corpus.jsonl", [text(1)])
    done = llm2comp_command("index", "build", tmp_path / "corpus.jsonl", "-o", tmp_path / "index", *options)
    assert done.code == 2
    assert message in " ".join(done.err.replace("│", " ").split())
    assert not (tmp_path / "index").exists()


def test_chunks_by_fidelity_of_a_model_without_its_reader_is_one_line(
    llm2comp_command: Command, tmp_path: Path
) -> None:
    write_corpus(tmp_path / "corpus.jsonl", [text(1)])
    options = ("-o", tmp_path / "index", "--chunk-by-fidelity", 0.6)
    done = llm2comp_command("index", "build", tmp_path / "corpus.jsonl", *options)
    assert done.code == 1
    [line] = [line for line in done.err.splitlines() if line.strip()]
    assert "all its weights were trained" in line
    assert "--reader" in line
