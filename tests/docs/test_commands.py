"""Commands that pages show exist, with the options shown; docs/cli.md is what typer writes of the command line."""

import importlib.util
import re
from pathlib import Path

import pytest
from typer.cli import app as typer_app
from typer.testing import CliRunner

from tests.docs.pages import DOCS, PAGES, blocks, commands, joined, name, unknown_options, usage_error
from tests.paths import ROOT

LINES = [(page, line) for page in PAGES for line in commands(page)]
DOCS_COMMAND = ("llm2comp.cli", "utils", "docs", "--name", "llm2comp")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{name(page)}: {line[:60]}" for page, line in LINES])
def test_every_command_shown_exists_with_the_options_shown(page: Path, line: str) -> None:
    assert unknown_options(line) == set()


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{name(page)}: {line[:60]}" for page, line in LINES])
def test_every_command_shown_takes_the_arguments_shown(page: Path, line: str) -> None:
    if "--install-completion" not in line:  # which the parser would do
        assert usage_error(line) == ""


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_module_shown_exists(page: Path) -> None:
    modules = re.findall(r"python -m ([\w.]+)", page.read_text(encoding="utf-8"))
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_target_of_make_shown_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    shell = [line for language, block in blocks(page) if language == "bash" for line in joined(block)]
    lines = [line for line in [*re.findall(r"`([^`\n]+)`", text), *shell] if line.startswith("make ")]
    shown = {word for line in lines for word in line.split("#")[0].split()[1:] if "=" not in word}
    assert shown <= set(re.findall(r"^([\w-]+):", MAKEFILE, re.M))


def test_the_page_of_commands_is_what_typer_writes(tmp_path: Path) -> None:
    written = tmp_path / "cli.md"
    run = CliRunner().invoke(typer_app, [*DOCS_COMMAND, "--output", str(written)])
    assert run.exit_code == 0, run.output
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == written.read_text(encoding="utf-8"), (
        f"run: python -m typer {' '.join(DOCS_COMMAND)} --output docs/cli.md"
    )
