from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm2comp.errors import LLM2CompError, SettingsError
from llm2comp_benchmarks.compare.compare import Comparisons, compare, record_of
from llm2comp_benchmarks.compare.table import format_comparisons
from llm2comp_benchmarks.results.read import ResultFile, read_result_file
from tests.benchmarks.made_up_results import queries, write_result

GENERATOR = np.random.default_rng(11)
BASE = GENERATOR.beta(1, 2, 200).round(5)
EQUAL = np.clip(BASE + GENERATOR.normal(0, 0.1, 200), 0, 1).round(5)
BETTER = np.clip(BASE + 0.05 + GENERATOR.normal(0, 0.1, 200), 0, 1).round(5)


def _file(path: Path, details: dict[str, Any] | None = None, **tasks: Any) -> ResultFile:
    """Tasks of nDCG with the given values of their queries; a number alone: a task without samples."""
    scores = {name: {"ndcg_at_10": float(np.mean(values))} for name, values in tasks.items()}
    samples = {name: queries(list(values)) for name, values in tasks.items() if not isinstance(values, float)}
    return read_result_file(write_result(path, scores, samples=samples, details=details or {}))


def _compared(*files: ResultFile) -> Comparisons:
    return compare(files, resamples=500)


def test_better_worse_and_no_clear_difference(tmp_path: Path) -> None:
    first = _file(tmp_path / "first.json", up=BASE, down=BETTER, level=BASE)
    second = _file(tmp_path / "second.json", up=BETTER, down=BASE, level=EQUAL)
    by_task = {one.task: one for one in _compared(first, second).comparisons}
    assert {task: one.words for task, one in by_task.items()} == {
        "up": "B better",
        "down": "B worse",
        "level": "no clear difference",
    }
    up = by_task["up"]
    assert up.difference is not None
    assert up.difference.interval is not None
    assert up.count == (200, "query")
    assert up.difference.value == pytest.approx(BETTER.mean() - BASE.mean())
    assert 0 < up.difference.interval.low < up.difference.value < up.difference.interval.high
    assert up.first.interval is not None
    assert up.first.interval.low < BASE.mean() < up.first.interval.high


def test_p_is_corrected_for_all_comparisons_made(tmp_path: Path) -> None:
    tasks = {f"task{number}": BASE for number in range(3)}
    first = _file(tmp_path / "first.json", **tasks)
    second = _file(tmp_path / "second.json", task0=BETTER, task1=EQUAL, task2=EQUAL)
    third = _file(tmp_path / "third.json", task0=BETTER)
    comparisons = _compared(first, second, third).comparisons
    assert [one.letters for one in comparisons] == ["AB", "AB", "AB", "AC"]
    least = min(one.difference.p for one in comparisons if one.difference)
    assert comparisons[0].corrected_p == pytest.approx(4 * least)


def test_samples_are_paired_by_id_whatever_their_order(tmp_path: Path) -> None:
    ids = [f"q{number}" for number in range(200)]
    first = _file(tmp_path / "first.json", task=BASE)
    order = GENERATOR.permutation(200)
    shuffled = queries(list(BETTER[order]), [ids[place] for place in order])
    second = read_result_file(
        write_result(
            tmp_path / "second.json", {"task": {"ndcg_at_10": float(BETTER.mean())}}, samples={"task": shuffled}
        )
    )
    straight = _compared(first, _file(tmp_path / "third.json", task=BETTER)).comparisons[0]
    assert _compared(first, second).comparisons[0].difference == straight.difference


def test_files_without_samples_show_their_difference_and_say_why_there_is_no_more(tmp_path: Path) -> None:
    report = _compared(_file(tmp_path / "first.json", task=0.25), _file(tmp_path / "second.json", task=BETTER))
    one = report.comparisons[0]
    assert (one.words, one.difference, one.corrected_p) == ("no samples in A", None, None)
    assert one.first.interval is None
    assert one.second.interval is not None
    shown = format_comparisons(report)
    assert f"{BETTER.mean() - 0.25:+.3f}" in shown
    assert "No interval and no test can be given for 1 comparison" in shown
    assert "mteb" not in shown


def test_tasks_of_mteb_that_cannot_have_samples_are_not_to_be_evaluated_again_in_vain(tmp_path: Path) -> None:
    details = {"STS17": {"benchmark": "mteb", "main_metric": "cosine_spearman"}}
    files = [
        read_result_file(
            write_result(tmp_path / f"{score}.json", {"STS17": {"cosine_spearman": score}}, details=details)
        )
        for score in (0.5, 0.6)
    ]
    assert "those with several subsets or splits and those of rarer kinds have none" in format_comparisons(
        _compared(*files)
    )


def test_too_few_samples_are_told(tmp_path: Path) -> None:
    report = _compared(
        _file(tmp_path / "first.json", task=[0.1, 0.2, 0.3, 0.2, 0.1]),
        _file(tmp_path / "second.json", task=[0.9, 0.8, 0.7, 0.8, 0.9]),
    )
    assert report.comparisons[0].words == "too few to tell (5)"


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ({"split": "test"}, {"split": "dev"}, "split is test in one file and dev in the other"),
        ({"pool_fingerprint": "aa"}, {"pool_fingerprint": "bb"}, "pool_fingerprint is aa in one file and bb"),
        ({"documents": 5183}, {"documents": 5000}, "documents is 5183 in one file and 5000"),
        (
            {"identical_ids": {"rule": "auto", "dropped": 3}},
            {"identical_ids": {"rule": "keep", "dropped": 0}},
            "identical_ids is auto in one file and keep",
        ),
    ],
)
def test_a_task_on_other_data_is_refused_by_name_and_the_others_go_on(
    tmp_path: Path, first: Any, second: Any, reason: str
) -> None:
    one = _file(tmp_path / "first.json", {"odd": first}, odd=BASE, even=BASE)
    other = _file(tmp_path / "second.json", {"odd": second}, odd=BASE, even=BETTER)
    report = _compared(one, other)
    assert [comparison.task for comparison in report.comparisons] == ["even"]
    assert [(refusal.task, refusal.letters) for refusal in report.refused] == [("odd", "AB")]
    assert reason in report.refused[0].reason


def test_where_the_data_lie_and_what_the_rankings_dropped_is_no_difference(tmp_path: Path) -> None:
    details = [
        {"task": {"source": place, "split": "test", "identical_ids": {"rule": "auto", "dropped": count}}}
        for place, count in (("x", 0), ("y", 7))
    ]
    files = [_file(tmp_path / f"{number}.json", detail, task=BASE) for number, detail in enumerate(details)]
    assert _compared(*files).refused == []


def test_other_queries_and_other_judgements_are_refused(tmp_path: Path) -> None:
    def sts(name: str, truth: list[float]) -> dict[str, Any]:
        return {
            "metric": "cosine_spearman",
            "statistic": "spearman",
            "unit": "pair",
            "ids": None,
            "values": [0.1, 0.2, 0.3],
            "truth": truth,
        }

    scores = {"scifact": {"ndcg_at_10": 0.5}, "stsb": {"cosine_spearman": 1.0}, "level": {"ndcg_at_10": 0.5}}
    files = [
        read_result_file(
            write_result(
                tmp_path / f"{number}.json",
                scores,
                samples={
                    "scifact": queries([0.25, 0.75], ["q1", query]),
                    "stsb": sts("stsb", truth),
                    "level": queries([0.4, 0.6]),
                },
            )
        )
        for number, (query, truth) in enumerate([("q2", [1.0, 2.0, 3.0]), ("q3", [1.0, 2.0, 4.0])])
    ]
    reasons = {one.task: one.reason for one in _compared(*files).refused}
    assert reasons["scifact"] == "not the same samples: 2 are in one file only, such as 'q2'"
    assert reasons["stsb"] == "the judgements of the samples differ"
    assert "level" not in reasons


def test_samples_that_do_not_make_the_score_are_refused(tmp_path: Path) -> None:
    scores = {"task": {"ndcg_at_10": 0.9}, "level": {"ndcg_at_10": 0.5}}
    wrong = read_result_file(
        write_result(tmp_path / "a.json", scores, samples={"task": queries([0.25, 0.75]), "level": queries([0.4, 0.6])})
    )
    assert "give ndcg_at_10 0.5000, its metrics say 0.9000" in _compared(wrong, wrong).refused[0].reason


def test_nothing_in_common_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        LLM2CompError, match=r"^no task is in the first file and in another: .*a\.json has one; .*b\.json has two$"
    ):
        _compared(_file(tmp_path / "a.json", one=BASE), _file(tmp_path / "b.json", two=BASE))
    with pytest.raises(LLM2CompError, match=r"^nothing to compare: one: split is"):
        _compared(_file(tmp_path / "a.json", {"one": {"split": "dev"}}, one=BASE), _file(tmp_path / "b.json", one=BASE))
    with pytest.raises(SettingsError, match="give 2 to 26 result files, not 1"):
        _compared(_file(tmp_path / "a.json", one=BASE))


def test_the_table_and_the_record_say_the_same(tmp_path: Path) -> None:
    report = _compared(_file(tmp_path / "first.json", up=BASE), _file(tmp_path / "second.json", up=BETTER))
    shown, record = format_comparisons(report), record_of(report)
    entry = record["comparisons"][0]
    assert f"{entry['first']['score']:.3f}" in shown
    assert f"[{entry['difference_interval'].low:+.3f}, {entry['difference_interval'].high:+.3f}]" in shown
    assert entry["words"] == "B better"
    assert entry["test"] == "randomisation"
    assert "after Holm's correction over 1 comparison." in shown
    assert "randomisation test of means" in shown
    assert "bootstrap of correlations" not in shown
    assert max(map(len, shown.splitlines())) <= 120
