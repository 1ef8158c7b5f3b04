"""What README.md shows runs as it is written."""

import json
import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from llm2comp.cli import app
from tests.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = [
    line
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if "llm2comp " in line
]
SCORES = json.loads((ROOT / "benchmarks" / "results" / "llm2comp-tiny.json").read_text(encoding="utf-8"))


def test_the_ten_lines_print_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(PYTHON[0], "README.md", "exec"), {})
    assert capsys.readouterr().out.strip() == "Remove a file or directory."


@pytest.mark.slow
def test_the_index_example_finds_something(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(PYTHON[1], "README.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_classes_of_both_frameworks_agree() -> None:
    for framework in ("llama_index.core", "langchain_core"):
        pytest.importorskip(framework, reason="needs the extras llama-index and langchain")
    exec(compile(PYTHON[2], "README.md", "exec"), {})


@pytest.mark.parametrize("line", [line for line in SHELL if not line.startswith("#")])
def test_every_command_shown_exists_with_the_options_shown(line: str) -> None:
    words = shlex.split(line, comments=True)
    words = words[words.index("llm2comp") + 1 :]
    command = get_command(app)
    while isinstance(command, typer.core.TyperGroup):
        command = command.commands[words.pop(0)]
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= options


def test_the_scores_shown_are_the_scores_measured() -> None:
    shown = {
        name: float(value)
        for name, value in re.findall(r"^\| [^|]+ \| `([^`]+)` \| ([0-9.]+) \|", README, re.MULTILINE)
    }
    measured = {
        f"{task}.{metric}": value
        for task, metrics in SCORES.items()
        if isinstance(metrics, dict)
        for metric, value in metrics.items()
    }
    assert shown, "the table of scores is gone"
    for name, value in shown.items():
        assert value == pytest.approx(measured[name], abs=0.0005), name
