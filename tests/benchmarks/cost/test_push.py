"""The benchmark of pushes on a small LanceDB: every number is there, and nothing is left behind."""

from pathlib import Path

import pytest

from llm2comp.errors import SettingsError
from llm2comp_benchmarks.cost.push.run import PushBenchmark, run_push_benchmark
from llm2comp_benchmarks.cost.push.tables import format_pushes


def test_loading_and_searching_are_measured(tmp_path: Path) -> None:
    lancedb = pytest.importorskip("lancedb", reason="no LanceDB: pip install 'llm2comp[lancedb]'")
    store = f"lancedb://{tmp_path / 'lance'}"
    settings = PushBenchmark(tmp_path / "work", (store,), rows=2000, dimensions=(8,), queries=5, rounds=2)
    told: list[str] = []
    record = run_push_benchmark(settings, tell=told.append)
    index, case = record["cases"]
    assert (index["store"], case["store"], case["rows"], case["local"]) == ("the index", "lancedb", 2000, False)
    assert case["recall"] == 1.0  # a small table is compared row by row
    assert case["narrow_recall"] == index["narrow_recall"] == 1.0
    assert set(case["rows_per_second"]) == {"index push", "its own loader"}
    assert 0 < case["ratio"]["least"] <= case["ratio"]["most"]
    assert 0 < case["searchable_ratio"]["least"] <= case["searchable_ratio"]["most"]
    assert "lancedb, 2,000 rows of 8, round 2: its own loader" in told
    lines = format_pushes(record).splitlines()
    assert lines[0].split()[:4] == ["store", "dimension", "rows", "rows/s"]
    assert sum(line.startswith("lancedb") for line in lines) == 2
    assert lancedb.connect(tmp_path / "lance").list_tables().tables == []
    assert not list((tmp_path / "work").iterdir())


def test_settings_that_measure_nothing() -> None:
    for stores, dimensions, message in (
        ((), (8,), "name at least one store"),
        (("lancedb://x",), (), "name at least one store .* and one dimension"),
        (("redis://x",), (8,), "redis:// is no store"),
    ):
        with pytest.raises(SettingsError, match=message):
            PushBenchmark(Path("work"), stores, dimensions=dimensions)
