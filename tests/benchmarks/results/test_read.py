import json
from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import LLM2CompError
from llm2comp_benchmarks.results.read import read_result_file, read_result_files
from llm2comp_benchmarks.results.record import Samples, TaskResult, write_results
from tests.benchmarks.made_up_results import queries, write_result
from tests.paths import ROOT


def test_what_eval_writes_is_read_back(tmp_path: Path) -> None:
    samples = Samples("cosine_spearman", "spearman", "pair", [0.5, 0.25, 1.0], truth=[1.0, 0.0, 5.0])
    results = [
        TaskResult("stsb", {"cosine_spearman": 1.0}, {"split": "test"}, 2.0, samples=samples),
        TaskResult("scifact", {"map_at_1000": 0.25, "ndcg_at_10": 0.5}, {"queries": 3}, 1.0),
    ]
    write_results(tmp_path / "run.json", results, {"model": "m"})
    run = read_result_file(tmp_path / "run.json")
    assert run.name == "run"
    assert run.settings["model"] == "m"
    assert run.tasks["stsb"].samples == samples
    assert run.tasks["stsb"].details == {"split": "test"}
    assert (run.tasks["scifact"].main_metric, run.tasks["scifact"].score) == ("ndcg_at_10", 0.5)
    assert run.tasks["scifact"].samples is None


def test_the_files_of_this_repository_are_read() -> None:
    runs = {run.name: run for run in read_result_files(ROOT / "benchmarks" / "results")}
    assert "llm2comp-tiny" in runs
    assert not any(name.startswith("index-") for name in runs)


def test_the_metric_that_samples_or_mteb_name_is_the_main_one(tmp_path: Path) -> None:
    scores = {"ndcg_at_10": 0.5, "map_at_1000": 0.3, "mrr_at_10": 0.2}
    path = write_result(
        tmp_path / "a.json",
        {"one": scores, "two": scores, "three": scores},
        details={"two": {"main_metric": "mrr_at_10"}},
        samples={"three": queries([0.1, 0.5], metric="map_at_1000")},
    )
    assert [task.main_metric for task in read_result_file(path).tasks.values()] == [
        "ndcg_at_10",
        "mrr_at_10",
        "map_at_1000",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"a\.json:1: not JSON"),
        ("[]", "not a valid result file: it holds a list, expected an object"),
        ('{"scifact": {"ndcg_at_10": 0.5}}', '"settings" is missing'),
        ('{"settings": {}}', "no task in it has a score"),
        ('{"settings": {}, "scifact": {"ndcg_at_10": NaN}}', "scifact: no metric has a number"),
        ('{"settings": {}, "scifact": {"ndcg_at_10": 0.5}, "samples": []}', "samples .* not an object"),
    ],
)
def test_what_is_no_result_file_is_told_in_a_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(LLM2CompError, match=message):
        read_result_file(tmp_path / "a.json")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LLM2CompError, match=r"a\.json: No such file"):
        read_result_file(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": [0.5, "x"]}, "one finite number or more"),
        ({"values": []}, "one finite number or more"),
        ({"values": [0.5, float("inf")]}, "one finite number or more"),
        ({"statistic": "median"}, "'median', expected one of mean, spearman"),
        ({"metric": "recall_at_100"}, "'recall_at_100', which the task does not have"),
        ({"truth": [1.0, 0.0]}, "truth does not fit"),
        ({"statistic": "spearman"}, "truth does not fit"),
        ({"ids": ["q1", "q1"]}, "1 different ids for 2 values"),
        ({"ids": ["q1"]}, "1 different ids for 2 values"),
    ],
)
def test_samples_that_cannot_be_are_told_with_file_and_task(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = write_result(
        tmp_path / "a.json", {"scifact": {"ndcg_at_10": 0.5}}, samples={"scifact": queries([0.25, 0.75]) | change}
    )
    with pytest.raises(LLM2CompError, match=f"a.json: samples of scifact: .*{message}"):
        read_result_file(path)


def test_files_of_other_benchmarks_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "index-x.json").write_text(
        json.dumps({"flat": {"type": "Flat"}, "settings": {"tasks": {}}}), encoding="utf-8"
    )
    write_result(tmp_path / "a.json", {"scifact": {"ndcg_at_10": 0.5}})
    assert [run.name for run in read_result_files(tmp_path)] == ["a"]
