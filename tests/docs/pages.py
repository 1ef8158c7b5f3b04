"""What the tests of the documentation read from its pages: code, commands, links, headings."""

import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from llm2comp.cli import app
from tests.paths import ROOT

DOCS = ROOT / "docs"
REPOSITORY = "https://github.com/llm2comp/llm2comp"
INDEX_PAGES = tuple(
    DOCS / name
    for name in (
        "indexing.md",
        "indexing/build.md",
        "indexing/search.md",
        "indexing/change.md",
        "indexing/scale.md",
        "indexing/measured.md",
    )
)
"""In the order in which their commands run."""

_USAGE_ERROR: Any = typer.BadParameter.__base__  # typer has no name for it

PAGES = (
    *(ROOT / page for page in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(ROOT / "benchmarks" / page for page in ("README.md", "results/README.md")),
    *sorted(DOCS.rglob("*.md")),
)


def name(page: Path) -> str:
    """Path of a page from the repository's root."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and content of each block of Python or shell code."""
    text = page.read_text(encoding="utf-8")
    return [(found[1], found[2]) for found in re.finditer(r"^ *```(bash|python)\n(.*?)^ *```", text, re.DOTALL | re.M)]


def python(page: Path) -> list[str]:
    """Blocks of Python code."""
    return [content for language, content in blocks(page) if language == "python"]


def commands(page: Path) -> list[str]:
    """Lines of shell code that call `llm2comp`, as they stand."""
    lines = [line.strip() for language, content in blocks(page) if language == "bash" for line in joined(content)]
    return [line for line in lines if re.match(r"(llm2comp|torchrun .* -m llm2comp) ", line)]


def joined(block: str) -> list[str]:
    """Lines of a block of shell code, those that a backslash continues joined, empty ones left out."""
    return [line for line in block.replace("\\\n", " ").splitlines() if line]


def arguments(line: str) -> list[str]:
    """What stands after `llm2comp` in a line of shell code."""
    words = shlex.split(line, comments=True)
    return words[words.index("llm2comp") + 1 :]


def usage_error(line: str) -> str:
    """What the parser of a command says of a line of shell code; empty if the command takes it.

    Raises:
        KeyError: There is no such command.
    """
    words = list(itertools.takewhile(lambda word: word not in ("|", ">", "<", "&&"), arguments(line)))
    command, called = get_command(app), "llm2comp"
    while isinstance(command, typer.core.TyperGroup) and not words[0].startswith("-"):
        called = words.pop(0)
        command = command.commands[called]
    try:
        command.make_context(called, words)
    except _USAGE_ERROR as error:
        return str(error.format_message())
    return ""


def unknown_options(line: str) -> set[str]:
    """Options in a line of shell code that its command does not have.

    Raises:
        KeyError: There is no such command.
    """
    words = arguments(line)
    command = get_command(app)
    while isinstance(command, typer.core.TyperGroup) and not words[0].startswith("-"):
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return {word for word in words if re.match(r"--?[a-z]", word)} - known


def links(page: Path) -> list[str]:
    """Targets of links and pictures, code left out."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    return re.findall(r"\]\(([^)\s]+)\)", text)


def anchors(page: Path) -> set[str]:
    """Fragments that a link to the page may end in: its headings, as GitHub and the site write them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    headings = re.findall(r"^#{1,6} (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
