"""The benchmark of cold starts: processes in turn, their times beside importing torch, and the table."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llm2comp.cli import app
from llm2comp.errors import LLM2CompError, SettingsError
from llm2comp_benchmarks.cost import startup
from llm2comp_benchmarks.cost.startup import TORCH, Start, StartupBenchmark, measure_starts, run_startup_benchmark
from llm2comp_benchmarks.cost.tables import format_startup

STARTS = {TORCH: [Start(2.0, 1.0), Start(4.0, 1.0)], "llm2comp search": [Start(3.0, 2.0), Start(5.0, 2.0)]}


@pytest.fixture
def fixed_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither index nor processes: the starts are `STARTS`."""
    monkeypatch.setattr(startup, "_build_index", lambda folder, settings: str(folder))
    monkeypatch.setattr(startup, "measure_starts", lambda commands, rounds, **_: STARTS)


def test_every_command_is_measured_in_every_round() -> None:
    commands = {"idle": [sys.executable, "-c", "import time; time.sleep(0.3)"], "plain": [sys.executable, "-c", ""]}
    lines: list[str] = []
    starts = measure_starts(commands, 2, tell=lines.append)
    assert [len(measured) for measured in starts.values()] == [2, 2]
    assert lines[:2] == ["round 0 of 2: idle", "round 0 of 2: plain"]
    for start in starts["idle"]:
        assert start.seconds >= 0.3
        assert start.cpu_seconds > 0


def test_a_process_that_fails_is_named_with_its_last_line() -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such index')"]
    with pytest.raises(LLM2CompError, match="search: failed: no such index"):
        measure_starts({"search": command}, 1)


@pytest.mark.usefixtures("fixed_starts")
def test_entries_stand_beside_importing_torch_round_by_round() -> None:
    record = run_startup_benchmark(StartupBenchmark(rounds=2))
    search = record["llm2comp search"]
    assert search["seconds_ratio"] == {"median": 1.375, "least": 1.25, "most": 1.5}
    assert search["seconds_beyond"] == {"median": 1.0, "least": 1.0, "most": 1.0}
    assert search["cpu_seconds_ratio"]["median"] == 2
    assert record["settings"]["rounds"] == 2
    assert {"versions", "hardware", "commit"} <= record.keys()
    rows = [line.split() for line in format_startup(record).splitlines()]
    assert rows[2] == ["llm2comp", "search", "4.00", "3.00-5.00", "2.00", "1.38x", "+1.00", "+1.00"]


@pytest.mark.usefixtures("fixed_starts")
def test_the_command_writes_the_record(tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["bench", "startup", "--rounds", "2", "--json", str(tmp_path / "startup.json")])
    assert run.exit_code == 0, run.output
    assert "llm2comp search" in run.output
    assert json.loads((tmp_path / "startup.json").read_text())["llm2comp search"]["seconds"]["median"] == 4


def test_rounds_below_one_are_refused() -> None:
    with pytest.raises(SettingsError, match="rounds is 0"):
        StartupBenchmark(rounds=0)


@pytest.mark.slow
def test_real_starts() -> None:
    record = run_startup_benchmark(StartupBenchmark(documents=10, rounds=1))
    assert record["llm2comp --help"]["cpu_seconds_ratio"]["median"] < 1
    assert record["llm2comp search"]["cpu_seconds_ratio"]["median"] > 1
