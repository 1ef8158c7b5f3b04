"""The command line run inside the test process, with what a shell would see: exit code, stdout, stderr."""

import signal
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from llm2comp.cli import main


class Run(NamedTuple):
    """What a finished command left."""

    code: int
    out: str
    err: str


@pytest.fixture
def llm2comp_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Run]]:
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
