"""The tables of README.md, benchmarks/README.md and docs/performance.md are those of the result files, and the commands shown exist."""

import re
import shlex

import pytest
import typer
from typer.main import get_command

from llm2comp.cli import app
from llm2comp_benchmarks.report.pages import fill_text, read_results
from tests.paths import ROOT

GUIDES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("benchmarks/README.md", "docs/performance.md")}
BLOCKS = [block for guide in GUIDES.values() for block in re.findall(r"```bash\n(.*?)```", guide, re.DOTALL)]
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("llm2comp ")]


@pytest.mark.parametrize("page", ["README.md", *GUIDES])
def test_every_table_is_what_the_result_files_say(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert "<!-- table " in text, "the tables are gone"
    filled = fill_text(text, read_results(ROOT / "benchmarks" / "results"), (ROOT / page).parent)
    assert filled == text, f"the tables are not those of the result files; run: llm2comp report --write {page}"


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_shown_exists_with_the_options_shown(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command = get_command(app)
    while isinstance(command, typer.core.TyperGroup):
        command = command.commands[words.pop(0)]
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if re.match(r"--?[a-z]", word)} <= options


@pytest.mark.parametrize("guide", GUIDES)
def test_links_and_pictures_are_there(guide: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", GUIDES[guide]) if "://" not in link]
    assert links
    assert [link for link in links if not ((ROOT / guide).parent / link).exists()] == []
