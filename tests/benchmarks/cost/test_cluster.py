"""The benchmark of encoding on a cluster: overhead beside one process, the forecast by hand, and the table."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llm2comp.cli import app
from llm2comp.errors import SettingsError
from llm2comp_benchmarks.cost import cluster
from llm2comp_benchmarks.cost.cluster import PLAIN, ClusterBenchmark, forecast, run_cluster_benchmark
from llm2comp_benchmarks.cost.tables import format_cluster

SECONDS = {0: 10.0, 1: 11.0, 2: 8.0}


@pytest.fixture
def fixed_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """No processes: one process takes 10 s, one actor 11 s and a start of 12 s, two actors 8 s."""

    def run(title: str, command: list[str], threads: int) -> dict[str, Any]:
        if title == "reading":
            return {"documents_per_second": 5000.0}
        arguments = json.loads(command[-1])
        Path(arguments["output"]).mkdir()
        actors = arguments["actors"]
        return {
            "encode_seconds": SECONDS[actors],
            "start_seconds": 12.0 if actors else 0.0,
            "join_seconds": 1.0 if actors else 0.0,
            "spilled": 0,
            "bytes": 200_000,
            "driver_bytes": 300_000_000,
            "actor_bytes": 400_000_000,
            "all_bytes": 900_000_000,
        }

    monkeypatch.setattr(cluster, "run_process", run)
    monkeypatch.setattr(cluster, "_write_corpus", lambda file, settings: None)


@pytest.mark.usefixtures("fixed_runs")
def test_overhead_is_counted_without_the_start() -> None:
    record = run_cluster_benchmark(ClusterBenchmark(documents=100, rounds=2))
    assert record["ray, 1 actor"]["seconds_ratio"]["median"] == pytest.approx(1.1)
    assert record["ray, 2 actors"]["seconds_ratio"]["median"] == pytest.approx(0.8)
    assert record[PLAIN]["documents_per_second"]["median"] == 10
    assert record["ray, 1 actor"]["seconds_of_start"]["median"] == 12
    lines = [line.split() for line in format_cluster(record).splitlines()]
    assert lines[2] == ["ray,", "1", "actor", "9", "1.10x", "1.10-1.10", "12.0", "1.0", "400", "300"]
    assert "computed, not run" in format_cluster(record)


def test_forecast_by_hand() -> None:
    entry = {
        "documents_per_second": {"median": 2000.0},  # of two actors: 1,000 each
        "seconds_of_encoding": {"median": 50.0},  # 100,000 documents
        "seconds_of_joining": {"median": 5.0},
        "bytes_per_document": 2000.0,
    }
    computed = forecast(entry, 2, 20_000.0, 0.5, documents=7_200_000)
    eight, many = computed["8 workers"], computed["64 workers"]
    assert eight["hours_of_encoding"] == pytest.approx(0.25)  # 7.2M / 8,000 a second
    assert eight["hours_of_joining"] == pytest.approx(0.1)  # 7.2M x 50 microseconds
    assert eight["hours_of_reading_one_file"] == pytest.approx(0.1)
    assert eight["hours"] == pytest.approx(0.35)
    assert eight["cost_per_million"] == pytest.approx((0.25 * 8 + 0.1) * 0.5 / 7.2)
    assert eight["network_bytes_per_second"] == pytest.approx(16e6)
    assert many["hours"] == pytest.approx(0.2)  # reading takes longer than encoding now
    assert many["longest_after_encoding"] == "joining"
    assert computed["computed"] is True


@pytest.mark.usefixtures("fixed_runs")
def test_the_command_writes_the_record(tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["bench", "ray", "--rounds", "1", "--json", str(tmp_path / "ray.json")])
    assert run.exit_code == 0, run.output
    record = json.loads((tmp_path / "ray.json").read_text())
    assert record["forecast"]["ray, 1 actor"]["computed"] is True


def test_rounds_below_one_are_refused() -> None:
    with pytest.raises(SettingsError, match="rounds is 0"):
        ClusterBenchmark(rounds=0)
