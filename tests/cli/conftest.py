"""Runs the command line inside the test process; returns what a shell sees: exit code, stdout, stderr."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import llm2comp
from llm2comp.bundled_models import DEFAULT_MODEL
from llm2comp.cli import main
from tests.word_encoder import WordEncoder


class Run(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def llm2comp_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Run]]:
    def run(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["llm2comp", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        return Run(int(stop.value.code or 0), *capsys.readouterr())

    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    handler = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every name load the stand-in encoder, and fixes the width of the terminal."""

    def load(name: str | None = None) -> WordEncoder:
        return WordEncoder(fingerprint="words" if name in (None, DEFAULT_MODEL) else str(name))

    monkeypatch.setitem(vars(llm2comp), "load", load)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def write_lines() -> Callable[[Path, list[Any]], Path]:
    """Writes rows as JSON lines, and strings unaltered."""

    def write(path: Path, rows: list[Any]) -> Path:
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return path

    return write


@pytest.fixture
def propagating_reports() -> Iterator[None]:
    """Restores the logger that the command redirects to stdout, because the test process goes on."""
    import logging

    logger = logging.getLogger("llm2comp.training.loop")
    before = list(logger.handlers), logger.propagate
    yield
    logger.handlers, logger.propagate = before
