"""The promises every command keeps: light help, one line per error, exit codes, a version."""

import errno
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import llm2comp
from llm2comp.cli import app
from llm2comp.errors import CorpusError

HEAVY = (
    "torch",
    "faiss",
    "transformers",
    "datasets",
    "sentence_transformers",
    "peft",
    "mteb",
    "pandas",
    "pyarrow",
    "numpy",
)
HELP_THEN_LIST_MODULES = """
import sys
from llm2comp.cli import main
sys.argv = ["llm2comp", *{arguments!r}]
try:
    main()
except SystemExit as stop:
    print(stop.code or 0, *sorted({{name.partition(".")[0] for name in sys.modules}}), file=sys.stderr)
"""


def modules_loaded_by(*arguments: str) -> tuple[str, list[str]]:
    script = HELP_THEN_LIST_MODULES.format(arguments=list(arguments))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    code, *modules = done.stderr.split()
    assert code == "0"
    return done.stdout, modules


@pytest.fixture
def failing_command() -> Iterator[SimpleNamespace]:
    """A command `fail` that raises whatever `error` holds."""
    failure = SimpleNamespace(error=None)

    def fail() -> None:
        raise failure.error

    app.command("fail")(fail)
    yield failure
    app.registered_commands.pop()


def test_help_names_the_commands_and_loads_nothing_heavy() -> None:
    out, modules = modules_loaded_by("--help")
    assert "Usage: llm2comp" in out
    assert "--install-completion" in out
    assert not set(HEAVY) & set(modules)


@pytest.mark.parametrize("command", [(), ("search",), ("index",), ("index", "build"), ("train", "recipe")])
def test_help_has_a_short_name(llm2comp_command: Callable[..., Any], command: tuple[str, ...]) -> None:
    short = llm2comp_command(*command, "-h")
    assert short.code == 0
    assert short.out.startswith(f"Usage: {' '.join(['llm2comp', *command])} ")
    assert short == llm2comp_command(*command, "--help")


def test_warnings_are_for_people_and_verbose_ones_for_developers(
    llm2comp_command: Callable[..., Any],
) -> None:
    def log() -> None:
        logger = logging.getLogger("llm2comp.model")
        logger.warning("%d texts were cut", 3)
        logger.info("done")

    app.command("log")(log)
    try:
        assert llm2comp_command("log").err == "warning: 3 texts were cut\ndone\n"
        assert llm2comp_command("--verbose", "log").err == (
            "WARNING llm2comp.model: 3 texts were cut\nINFO llm2comp.model: done\n"
        )
    finally:
        app.registered_commands.pop()


def test_completion_names_the_commands_and_loads_nothing_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("_LLM2COMP_COMPLETE", "complete_bash"),
        ("COMP_WORDS", "llm2comp index "),
        ("COMP_CWORD", "2"),
    ):
        monkeypatch.setenv(name, value)
    out, modules = modules_loaded_by()
    assert {"build", "add", "delete", "merge", "info", "verify"} <= set(out.split())
    assert not set(HEAVY) & set(modules)


def test_version(llm2comp_command: Callable[..., Any]) -> None:
    assert llm2comp_command("--version") == (0, f"llm2comp {llm2comp.__version__}\n", "")


@pytest.mark.parametrize("arguments", [("--nonsense",), ("nonsense",)])
def test_wrong_usage_exits_2(llm2comp_command: Callable[..., Any], arguments: tuple[str, ...]) -> None:
    run = llm2comp_command(*arguments)
    assert run.code == 2
    assert "nonsense" in run.err
    assert run.out == ""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (CorpusError("corpus.jsonl:3: no id;\nadd one"), "corpus.jsonl:3: no id; add one"),
        (MemoryError(), "out of memory"),
        (OSError(errno.ENOSPC, "No space left on device", "idx"), "No space left on device"),
    ],
)
def test_errors_are_one_line_without_traceback(
    llm2comp_command: Callable[..., Any], failing_command: SimpleNamespace, error: Exception, words: str
) -> None:
    failing_command.error = error
    run = llm2comp_command("fail")
    assert run.code == 1
    assert run.out == ""
    assert run.err.startswith("llm2comp: error: ")
    assert words in run.err
    assert run.err.count("\n") == 1


def test_verbose_shows_the_traceback(llm2comp_command: Callable[..., Any], failing_command: SimpleNamespace) -> None:
    failing_command.error = CorpusError("no such file")
    run = llm2comp_command("--verbose", "fail")
    assert run.code == 1
    assert "Traceback" in run.err
    assert "in fail" in run.err


def test_interrupt_exits_130(llm2comp_command: Callable[..., Any], failing_command: SimpleNamespace) -> None:
    failing_command.error = KeyboardInterrupt()
    run = llm2comp_command("fail")
    assert run.code == 130
    assert run.err == "llm2comp: interrupted\n"


def test_a_bug_keeps_its_traceback(llm2comp_command: Callable[..., Any], failing_command: SimpleNamespace) -> None:
    failing_command.error = ZeroDivisionError("ours")
    with pytest.raises(ZeroDivisionError, match="ours"):
        llm2comp_command("fail")
