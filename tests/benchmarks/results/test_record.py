"""The form of result files."""

import json
from pathlib import Path

import pytest

from llm2comp.errors import SettingsError
from llm2comp_benchmarks import TaskResult, write_results
from llm2comp_benchmarks.results.record import Samples, check_task_names, format_table, result_record

SCIFACT = TaskResult(
    "scifact",
    {"ndcg_at_10": 0.31, "mrr_at_10": 0.25},
    {"queries": 300},
    1.25,
    {"q": {"ndcg_at_10": 0.31}},
    {"q": {"d": 1.0}},
)
STSB = TaskResult("stsb", {"cosine_spearman": 0.7}, {"pairs": 1379}, 0.5)


def test_a_result_file_maps_task_to_metric_to_value_beside_what_the_numbers_rest_on(tmp_path: Path) -> None:
    write_results(tmp_path / "out.json", [SCIFACT, STSB], {"model": "some/model"})
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert written["scifact"] == {"ndcg_at_10": 0.31, "mrr_at_10": 0.25}
    assert written["stsb"] == {"cosine_spearman": 0.7}
    assert set(written) == {"scifact", "stsb", "settings", "versions", "hardware", "commit", "seconds", "samples"}
    assert written["settings"] == {
        "model": "some/model",
        "tasks": {"scifact": {"queries": 300}, "stsb": {"pairs": 1379}},
    }
    assert written["seconds"] == {"scifact": 1.25, "stsb": 0.5}
    assert written["versions"]["python"].count(".") == 2
    assert written["versions"]["pytrec_eval-terrier"]
    assert written["hardware"]["cores"] >= 1


def test_the_samples_of_a_task_are_one_line_of_the_file(tmp_path: Path) -> None:
    per_query = {"q1": {"ndcg_at_10": 1 / 3, "mrr_at_10": 0}, "q2": {"ndcg_at_10": 1.0, "mrr_at_10": 1.0}}
    search = TaskResult(
        "scifact", {"ndcg_at_10": 2 / 3}, {}, 1, per_query, samples=Samples.of_queries("ndcg_at_10", per_query)
    )
    pairs = TaskResult(
        "stsb",
        {"cosine_spearman": 1},
        {},
        1,
        samples=Samples("cosine_spearman", "spearman", "pair", [0.1234567, 1.0], truth=[0.5, 5.0]),
    )
    file = tmp_path / "out.json"
    write_results(file, [search, pairs, TaskResult("other", {"accuracy": 1}, {}, 1)], {})
    assert json.loads(file.read_text(encoding="utf-8"))["samples"] == {
        "scifact": {
            "metric": "ndcg_at_10",
            "statistic": "mean",
            "unit": "query",
            "ids": ["q1", "q2"],
            "values": [0.33333, 1.0],
        },
        "stsb": {
            "metric": "cosine_spearman",
            "statistic": "spearman",
            "unit": "pair",
            "ids": None,
            "values": [0.12346, 1.0],
            "truth": [0.5, 5.0],
        },
    }
    assert file.read_text(encoding="utf-8").splitlines()[-5:-1] == [
        '  "samples": {',
        '    "scifact": {"metric": "ndcg_at_10", "statistic": "mean", "unit": "query", "ids": ["q1", "q2"], "values": '
        "[0.33333, 1.0]},",
        '    "stsb": {"metric": "cosine_spearman", "statistic": "spearman", "unit": "pair", "ids": null, "values": '
        '[0.12346, 1.0], "truth": [0.5, 5.0]}',
        "  }",
    ]


def test_the_commit_is_that_of_the_checkout() -> None:
    commit = result_record([], {})["commit"]
    assert commit is None or len(commit.removesuffix("-dirty")) == 40


@pytest.mark.parametrize("names", [["scifact", "stsb", "scifact"], ["settings"], ["samples"]])
def test_results_that_would_hide_each_other_are_refused(names: list[str]) -> None:
    with pytest.raises(SettingsError, match=f"would be called '{names[0]}'"):
        check_task_names(names)


def test_the_table_is_aligned_and_shows_what_is_not_measured() -> None:
    assert format_table([SCIFACT, STSB]).splitlines() == [
        "task     ndcg_at_10  mrr_at_10  cosine_spearman",
        "scifact      0.3100     0.2500                -",
        "stsb              -          -           0.7000",
    ]
