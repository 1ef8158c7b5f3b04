from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmarks.made_up_results import write_ablation_run, write_result
from tests.cli.conftest import Run

Command = Callable[..., Run]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    write_result(folder / "ours.json", {"scifact": {"ndcg_at_10": 0.5}})
    for stage, samples in (("unsupervised", 0), ("supervised", 100)):
        write_ablation_run(folder / "ablation", "distillation", stage, 0, 0.4, 0.5, supervised_samples=samples)
    return folder


def test_all_tables_to_the_terminal(llm2comp_command: Command, results: Path) -> None:
    run = llm2comp_command("report", "--results", results)
    assert run.code == 0
    assert "| ours | 0.500 | 0.500 |" in run.out
    assert "<!-- table ablation samples -->" in run.out
    assert "intervals" not in run.out  # no file has samples


def test_files_are_filled_and_curves_drawn(llm2comp_command: Command, results: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- table set ours -->\n<!-- end -->\n", encoding="utf-8")
    run = llm2comp_command("report", "--results", results, "--write", page, "--plots")
    assert run.code == 0
    assert run.out == ""
    assert "| SciFact, test | `scifact.ndcg_at_10` | 0.500 |" in page.read_text(encoding="utf-8")
    assert (results / "ablation" / "score-by-samples.png").is_file()
    assert f"{page}: changed" in run.err
    assert f"{page}: unchanged" in llm2comp_command("report", "--results", results, "--write", page).err


def test_bad_input_is_one_line(llm2comp_command: Command, tmp_path: Path) -> None:
    run = llm2comp_command("report", "--results", tmp_path / "none")
    assert (run.code, len(run.err.splitlines())) == (1, 1)
    (tmp_path / "empty").mkdir()
    run = llm2comp_command("report", "--results", tmp_path / "empty")
    assert (run.code, len(run.err.splitlines())) == (1, 1)
    assert "no result file" in run.err
