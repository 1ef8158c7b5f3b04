"""Progress of a command: a bar on a terminal, plain lines elsewhere, with rate and time left in both."""

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm2comp.cli.progress import Progress
from tests.paths import ROOT

ON_A_TERMINAL = """
import sys, time
sys.path[:0] = {paths!r}
import llm2comp
from llm2comp.cli import main
from llm2comp_indexes.builder import blocks as row_blocks
from tests.word_encoder import WordEncoder
class Slow(WordEncoder):
    def encode_document(self, inputs, /, **options):
        time.sleep(0.15)
        return super().encode_document(inputs)
row_blocks.BLOCK = 2
vars(llm2comp)["load"] = lambda name=None: Slow()
sys.argv = ["llm2comp", *{arguments!r}]
main()
"""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that the test sets."""
    fake = SimpleNamespace(now=1000.0)
    monkeypatch.setattr("llm2comp.cli.progress.time", SimpleNamespace(monotonic=lambda: fake.now))
    return fake


def run(progress: Progress, clock: SimpleNamespace, steps: list[tuple[float, str, int]]) -> None:
    """Plays (seconds since the start, phase, count)."""
    for seconds, phase, count in steps:
        clock.now = 1000.0 + seconds
        progress.phase(phase, count)


def test_lines_have_the_rate_and_the_time_left(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("documents", about=1000) as progress:
        run(
            progress,
            clock,
            [
                (4, "documents", 40),
                (10, "documents", 100),
                (14, "documents", 140),
                (20, "documents", 200),
                (1000, "documents", 990),
            ],
        )
    assert capsys.readouterr().err.splitlines() == [
        "100 of about 1,000 documents after 10 s (10 a second, about 90 s left)",
        "200 of about 1,000 documents after 20 s (10 a second, about 80 s left)",
        "990 of about 1,000 documents after 17 min (0.81 a second, about 12 s left)",
    ]


def test_the_rate_is_that_of_the_last_minute(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    """Blocks of an interrupted build are skipped at once; only those after them say how fast encoding is."""
    with Progress("documents", total=100_000) as progress:
        run(
            progress,
            clock,
            [(1, "documents", 50_000), *((1 + step, "documents", 50_000 + 100 * step) for step in range(10, 200, 10))],
        )
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "69,000 of 100,000 documents after 191 s (100 a second, about 310 s left)".replace(
        "191 s", "3 min"
    ).replace("310 s", "5 min")


def test_an_estimate_that_was_too_low_is_dropped(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("documents", about=50) as progress:
        run(progress, clock, [(20, "documents", 100)])
    assert capsys.readouterr().err == "100 documents after 20 s (5 a second)\n"


def test_one_document_is_no_plural(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("documents") as progress:
        run(progress, clock, [(20, "documents", 1)])
    assert capsys.readouterr().err.startswith("1 document after 20 s")


def test_the_rows_written_are_the_total_of_the_structure(
    clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("documents") as progress:
        run(
            progress,
            clock,
            [
                (5, "documents", 100),
                (6, "rows written", 300),
                (6, "rows in the structure", 0),
                (16, "rows in the structure", 100),
            ],
        )
    assert capsys.readouterr().err.splitlines() == [
        "rows in the structure …",
        "100 of 300 rows in the structure after 10 s (10 a second, about 20 s left)",
    ]


def test_what_is_done_within_seconds_is_done_without_a_word(
    clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("documents") as progress:
        run(progress, clock, [(1, "documents", 100), (2, "choosing the type", 0), (2.9, "measuring", 0)])
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("stand_in")
def test_a_build_says_what_it_does(
    tmp_path: Path,
    llm2comp_command: Callable[..., Any],
    write_lines: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Progress, "_SECONDS_BETWEEN_LINES", 0)
    monkeypatch.setattr(Progress, "_SILENT_SECONDS", 0)
    corpus = write_lines(tmp_path / "corpus.jsonl", [{"_id": str(row), "text": "word"} for row in range(3)])
    lines = llm2comp_command("index", "build", corpus, "-o", tmp_path / "idx", "--type", "hnsw").err.splitlines()
    assert lines[:2] == ["loading the model …", "documents …"]
    assert re.fullmatch(r"3 of about 3 documents after \d+ s( \(.* a second\))?", lines[2])
    assert lines[3] == "rows in the structure …"
    assert re.fullmatch(r"3 of 3 rows in the structure after \d+ s( \(.* a second\))?", lines[4])
    assert lines[5:] == ["measuring …"]
    assert "choosing the type …" in llm2comp_command("index", "build", corpus, "-o", tmp_path / "other").err


def run_on_a_terminal(arguments: list[str]) -> tuple[str, str]:
    """What the command writes to stdout, and to a terminal as stderr."""
    import pty
    import termios

    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    script = ON_A_TERMINAL.format(paths=[str(ROOT), str(ROOT / "indexes")], arguments=arguments)
    environment = {**os.environ, "COLUMNS": "100", "TQDM_MININTERVAL": "0"}
    shown = b""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=terminal, env=environment
    ) as process:
        os.close(terminal)
        end = time.monotonic() + 120
        while time.monotonic() < end:
            if select.select([controller], [], [], 0.2)[0]:
                try:
                    shown += os.read(controller, 4096)
                except OSError:  # the other side is closed
                    break
        assert process.stdout is not None
        out = process.stdout.read().decode()
    os.close(controller)
    assert process.returncode == 0, shown.decode()
    return out, shown.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")
def test_a_terminal_shows_a_bar_that_goes_when_all_is_done(tmp_path: Path, write_lines: Callable[..., Path]) -> None:
    rows: list[Any] = [{"_id": str(row), "text": "word"} for row in range(12)]
    corpus = write_lines(tmp_path / "corpus.jsonl", [*rows[:7], "not json", *rows[7:]])
    out, shown = run_on_a_terminal(["index", "build", str(corpus), "-o", str(tmp_path / "idx"), "--on-error", "skip"])
    assert out.startswith("12 documents, ")
    assert re.search(r"documents: +\d+%\|.*\| \d+/13 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+(/s|s/)", shown), shown
    assert "measuring … [" in shown
    lines = [line.rsplit("\r", 1)[-1].strip() for line in shown.replace("\r\n", "\n").split("\n")]
    assert (
        f"skipped: {corpus}:8: not JSON (Expecting value at column 1), expected one whole object {{...}} per line"
        in lines
    ), "a line of its own"
    assert lines[-2:] == ["skipped 1 row in all", ""], "the bar is gone"
