"""The code of docs/llamaindex.md and docs/langchain.md runs as written; their tables name exactly the arguments."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llm2comp.cli import app
from llm2comp_adapters import TextEncoder
from tests.paths import ROOT

PAGES = pytest.mark.parametrize("page", ["llamaindex", "langchain"])
MODULES = ("datetime", "_datetime", "_strptime", "calendar", "random", "shutil", "string", "textwrap", "time")


def _read(page: str) -> str:
    return (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")


def _blocks(page: str) -> list[tuple[str, str]]:
    return re.findall(r"```(bash|python)\n(.*?)```", _read(page), re.DOTALL)


@pytest.fixture
def _few_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The documentation of some modules instead of all; it answers the questions of the pages."""
    from llm2comp.corpus import read as corpus

    whole = corpus.read_python_docs
    monkeypatch.setattr(
        corpus,
        "read_python_docs",
        lambda **options: (page for page in whole(**options) if page.metadata["module"] in MODULES),
    )


@pytest.fixture
def _default_settings() -> Iterator[None]:
    yield
    try:
        from llama_index.core import Settings
    except ImportError:
        return
    Settings._embed_model = Settings._llm = None


def _run(page: str) -> dict[str, Any]:
    """Variables by name after the code of the page ran."""
    space: dict[str, Any] = {"__name__": "page"}
    for language, block in _blocks(page):
        if language == "python":
            exec(compile(block, f"docs/{page}.md", "exec"), space)
            continue
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[0] == "llm2comp":
                result = CliRunner().invoke(app, words[1:])
                assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"
    return space


def _needs(page: str) -> None:
    pytest.importorskip(
        "llama_index.core" if page == "llamaindex" else "langchain_core", reason="needs the page's extra"
    )


@PAGES
@pytest.mark.usefixtures("_few_modules", "_default_settings")
def test_the_page_runs_and_finds_what_it_asks_for(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _needs(page)
    monkeypatch.chdir(tmp_path)
    space = _run(page)
    out = capsys.readouterr().out
    assert out.startswith("Bread rises because yeast makes gas.")
    assert "The train leaves at nine." in out
    assert "How do I parse a date from a string?" in out  # from the prompt that the stand-in language model repeats
    for name in (
        "datetime.date.fromisoformat",
        "datetime.datetime.fromisoformat",
        "datetime.datetime.strptime",
        "random.Random.shuffle",
    ):
        assert name in out
        assert f"`{name}`" in _read(page) or name.startswith("random")
    for line in re.findall(r"^ *print\(.*\)  # (\S.*)$", _read(page), re.MULTILINE):
        assert f"\n{line}\n" in f"\n{out}", line
    assert len(space["vector"]) == 256


@PAGES
def test_the_table_names_every_argument_and_its_default(page: str) -> None:
    table = _read(page).split("| argument |")[1].split("\n\n")[0]
    shown = re.findall(r"`(\w+)`(?:, `(\w+)`)? \|", table)
    assert {name for names in shown for name in names if name} == set(TextEncoder.model_fields)
    assert f"up to 2,048; {TextEncoder.model_fields['embed_batch_size'].default} |" in table


@PAGES
def test_the_versions_named_are_those_of_the_extra(page: str) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    package, version = re.search(r"Works with `([\w-]+)` ([\d.]+);", _read(page)).groups()
    assert re.search(rf'"{package}>={re.escape(version)}[\d.]*,<', project)
