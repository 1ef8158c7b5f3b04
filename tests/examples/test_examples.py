"""The scripts and the notebook of `examples/` run as they stand, offline, and find what they should."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from llm2comp.corpus import python_docs, read
from tests.paths import BACKBONE, ROOT

EXAMPLES = ROOT / "examples"
HANDBOOK = EXAMPLES / "handbook"


def run(script: str, *arguments: object, cwd: Path) -> str:
    """What the script prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_rag_with_llama_index_embeds_only_what_changed(tmp_path: Path) -> None:
    pytest.importorskip("llama_index.core")
    question = "How many days of leave do I have?"
    out = run("rag_llama_index.py", HANDBOOK, question, cwd=tmp_path)
    assert re.search(r"(?m)^0\.\d{3}  leave\.md  ## Holidays$", out)
    assert "Everyone has 28 days of paid leave a year" in out.partition("What the language model is asked:")[2]
    assert run("rag_llama_index.py", HANDBOOK, question, cwd=tmp_path).startswith("0 nodes embedded\n")


@pytest.mark.slow
def test_rag_with_langchain_cites_its_chunks(tmp_path: Path) -> None:
    pytest.importorskip("langchain_core")
    out = run("rag_langchain.py", HANDBOOK, "What may a hotel cost?", cwd=tmp_path)
    assert out.startswith("5 documents indexed\n")
    assert "[handbook/travel.md#2]\n## Hotels and meals\n\nHotels cost at most 140 euros a night" in out
    again = run("rag_langchain.py", HANDBOOK, "What may a hotel cost?", cwd=tmp_path)
    assert again.startswith("0 new, 0 changed, 0 gone, 5 unchanged\n")


def test_an_index_follows_its_folder(tmp_path: Path) -> None:
    before, would, done, again, after = run("keep_in_sync.py", HANDBOOK, cwd=tmp_path).splitlines()
    changes = "1 new, 1 changed, 1 renamed, 2 unchanged, gone: handbook/leave.md; "
    assert would == f"would do: {changes}0 rows encoded"
    assert re.fullmatch(rf"done:     {changes}[1-9]\d* rows encoded", done)
    assert again == "again:    0 new, 0 changed, 0 renamed, 5 unchanged, gone: none; 0 rows encoded"
    assert "dog.md" not in before
    assert after.endswith(" handbook/dog.md")
    assert sorted(path.name for path in HANDBOOK.iterdir()) == [
        f"{name}.md" for name in ("equipment", "kitchen", "leave", "security", "travel")
    ]


@pytest.mark.slow
def test_a_backbone_is_trained_and_compared(tmp_path: Path) -> None:
    small = ("--steps", 3, "--batch", 8, "--queries", 30, "-o", tmp_path / "mine")
    out = run("train_your_backbone.py", BACKBONE, *small, cwd=tmp_path)
    assert re.findall(r"(?m)^(\w+) +nDCG@10 0\.\d{3}$", out) == ["untrained", "trained", "BM25"]
    interval = r"[+-]0\.\d{3} \([+-]0\.\d{3} to [+-]0\.\d{3}\), p [01]\.\d{4}"
    assert re.search(rf"(?m)^trained minus untrained: {interval}\ntrained minus BM25: {interval}$", out)
    assert json.loads((tmp_path / "mine" / "model" / "llm2comp.json").read_text())["stages"] == ["supervised"]


def test_the_notebook_prints_what_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers may differ a little between machines, and times do."""
    monkeypatch.chdir(EXAMPLES)
    notebook = json.loads((EXAMPLES / "tour.ipynb").read_text(encoding="utf-8"))
    space: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile("".join(cell["source"]), f"cell {cell['execution_count']}", "exec"), space)
            [shown] = cell["outputs"]
            assert _without_fractions(out.getvalue()) == _without_fractions("".join(shown["text"]))


def _without_fractions(text: str) -> str:
    return re.sub(r"\d+\.\d+( ms)?|\d+ ms", "#", text)


def test_every_example_is_listed() -> None:
    listed = set(re.findall(r"\]\((\w+\.(?:py|ipynb))\)", (EXAMPLES / "README.md").read_text(encoding="utf-8")))
    assert listed == {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")}


def test_the_training_notebook_runs_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a backbone of a few thousand weights, for a few updates, with part of the documentation: its outputs are those
    of SmolLM2."""
    few = [*islice(python_docs.read_python_docs(), 1200)]
    for module in (python_docs, read):
        monkeypatch.setattr(module, "read_python_docs", lambda **_: iter(few))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLM2COMP_BACKBONE", str(BACKBONE))
    monkeypatch.setenv("LLM2COMP_STEPS", "3")
    out = io.StringIO()
    space: dict[str, Any] = {}
    for cell in json.loads((EXAMPLES / "train.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            with contextlib.redirect_stdout(out):
                exec(compile("".join(cell["source"]), f"cell {cell['execution_count']}", "exec"), space)
    assert re.search(r"loss \d+\.\d+ -> \d+\.\d+; curves in my-encoder/supervised/loss.png", out.getvalue())
    assert "update 4, no update twice: True" in out.getvalue()
    assert (tmp_path / "my-encoder" / "model" / "llm2comp.json").is_file()
