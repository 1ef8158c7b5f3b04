import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmarks.made_up_results import queries, write_result
from tests.cli.conftest import Run

Command = Callable[..., Run]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two systems: far apart on one task, on different data in another, and each with a task that the other lacks."""
    low, high = [0.1, 0.3] * 20, [0.7, 0.6] * 20
    return [
        write_result(
            tmp_path / f"{name}.json",
            {"scifact": {"ndcg_at_10": sum(values) / 40}, "stsb": {"cosine_spearman": 0.5}, name: {"accuracy": 0.5}},
            samples={"scifact": queries(values)},
            details={"stsb": {"split": split}},
        )
        for name, values, split in (("low", low, "test"), ("high", high, "dev"))
    ]


def test_table_refusals_and_json(llm2comp_command: Command, files: list[Path], tmp_path: Path) -> None:
    run = llm2comp_command("compare", *files, "--resamples", 300, "--json", tmp_path / "out.json")
    assert run.code == 0
    line = next(line for line in run.out.splitlines() if line.startswith("scifact"))
    assert line.split() == ["scifact", "ndcg_at_10", "40", "0.200", "0.650", "+0.450", "0.007", "B", "better"]
    assert "stsb: not compared (A and B): split is test in one file and dev in the other" in run.err
    assert "not in both A and B: high, low" in run.err
    record = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert record["comparisons"][0]["p"] == pytest.approx(2 / 301)
    assert record["settings"]["resamples"] == 300


def test_the_same_seed_gives_the_same_words(llm2comp_command: Command, files: list[Path]) -> None:
    assert llm2comp_command("compare", *files, "--seed", 3).out == llm2comp_command("compare", *files, "--seed", 3).out


def test_a_loser_is_no_error(llm2comp_command: Command, files: list[Path]) -> None:
    run = llm2comp_command("compare", *reversed(files))
    assert run.code == 0
    assert "B worse" in run.out


def test_wrong_usage_and_bad_input(llm2comp_command: Command, files: list[Path], tmp_path: Path) -> None:
    assert llm2comp_command("compare", files[0]).code == 2
    assert llm2comp_command("compare", *files, "--json", tmp_path / "no" / "out.json").code == 2
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    run = llm2comp_command("compare", files[0], tmp_path / "broken.json")
    assert run.code == 1
    assert len(run.err.splitlines()) == 1
    assert "broken.json:1: not JSON" in run.err
