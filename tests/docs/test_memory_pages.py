"""What the pages on late interaction and on compressed context show runs as written."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llm2comp import LLM2Comp
from llm2comp.cli import app
from tests.docs.pages import DOCS, arguments, blocks, joined, name, python
from tests.training.tiny import BACKBONE

ROWS = [
    {"_id": f"d{number}", "title": f"Day {number}", "text": f"The train of day {number} is paid by the town. " * 3}
    for number in range(8)
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    return tmp_path


def _run(line: str) -> str:
    done = CliRunner().invoke(app, arguments(line))
    assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"
    return done.output


@pytest.mark.slow
def test_late_interaction(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = DOCS / "late-interaction.md"
    (folder / "DIR" / "qrels").mkdir(parents=True)
    (folder / "DIR" / "corpus.jsonl").write_text((folder / "corpus.jsonl").read_text())
    for file in (folder / "queries.jsonl", folder / "DIR" / "queries.jsonl"):
        file.write_text('{"_id": "q", "text": "who pays for the train?"}\n')
    for file in (folder / "qrels.tsv", folder / "DIR" / "qrels" / "test.tsv"):
        file.write_text("query-id\tcorpus-id\tscore\nq\td3\t1\n")
    for language, block in blocks(page):
        if language == "python":
            exec(compile(block, name(page), "exec"), {})
            continue
        lines = [line for line in joined(block) if re.match("llm2comp (index|search|eval) ", line)]
        for line in lines:
            _run(line.replace("llm2comp-small", "llm2comp-tiny"))
    shown = capsys.readouterr().out.splitlines()
    assert len([line for line in shown if line.split()[-1:] and line.split()[-1] in {row["_id"] for row in ROWS}]) == 3


def test_compressed_context(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its model is one of 20,000 weights, which was never trained: the answers say nothing, but come."""
    pytest.importorskip("llama_index.core", reason="needs the extra llama-index")
    pytest.importorskip("langchain_core", reason="needs the extra langchain")
    LLM2Comp.from_backbone(BACKBONE, 2, dtype="float32", device="cpu").save(folder / "runs" / "stage1" / "model")
    _run("llm2comp index build corpus.jsonl -o python.index")
    space: dict[str, Any] = {}
    for block in python(DOCS / "compressed-context.md"):
        exec(compile(block, "docs/compressed-context.md", "exec"), space)
    assert "Answer(text=" in capsys.readouterr().out
    question = "How do I parse a date from a string?"
    texts = [f"{found.page_content}" for found in space["retriever"].invoke(question)]
    assert len(texts) == 3
    assert space["chain"].invoke(question) == space["reader"].answer(question, texts).text
    assert len(space["engine"].query(question).source_nodes) == 3
