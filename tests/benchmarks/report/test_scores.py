from pathlib import Path

import pytest

from llm2comp.errors import LLM2CompError
from llm2comp_benchmarks.report.pages import fill_text, read_results, write_file
from tests.benchmarks.made_up_results import queries, write_result


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three systems; one lacks a task, one has samples."""
    folder = tmp_path / "results"
    scores = {
        "stsb": {"cosine_spearman": 0.7},
        "scifact": {"ndcg_at_10": 0.3, "map_at_1000": 0.9},
        "banking77": {"accuracy": 0.5},
    }
    write_result(folder / "model-small.json", scores)
    write_result(
        folder / "model-large.json",
        scores | {"scifact": {"ndcg_at_10": 0.5}},
        samples={"scifact": queries([0.25, 0.75] * 50)},
    )
    write_result(folder / "bm25.json", {"scifact": {"ndcg_at_10": 0.6789}})
    return folder


def _rows(table: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if not line.startswith("|---")
    ]


def test_systems_in_rows_and_tasks_in_columns_grouped_by_kind(results: Path) -> None:
    rows = _rows(read_results(results).table("systems model-*"))
    assert rows == [
        ["", "retrieval<br>scifact", "STS<br>stsb", "classification<br>banking77", "average"],
        ["model-large", "**0.500**", "**0.700**", "**0.500**", "**0.567**"],
        ["model-small", "0.300", "**0.700**", "**0.500**", "0.500"],
    ]


def test_the_average_is_over_what_all_systems_have_and_says_so(results: Path) -> None:
    rows = _rows(read_results(results).table("systems model-small bm25"))
    assert rows[0][-1] == "average of the 1 that all have"
    assert rows[1:] == [
        ["model-small", "0.300", "0.700", "0.500", "0.300"],
        ["bm25", "**0.679**", "–", "–", "**0.679**"],
    ]


def test_one_system_set_by_set_has_an_interval_where_there_are_samples(results: Path) -> None:
    rows = _rows(read_results(results).table("set model-large"))
    assert rows[0] == ["set", "measure", "score", "95 % interval"]
    assert rows[1][:3] == ["SciFact, test", "`scifact.ndcg_at_10`", "0.500"]
    low, high = map(float, rows[1][3].split(" to "))
    assert low == pytest.approx(
        0.5 - 1.96 * 0.025, abs=0.01
    )  # 100 values 0.25 from their mean: a standard error of 0.025
    assert high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.01)
    assert rows[2][3] == "–"
    assert _rows(read_results(results).table("set model-small"))[0] == ["set", "measure", "score"]


def test_intervals_stand_where_the_scores_do(results: Path) -> None:
    rows = _rows(read_results(results).table("intervals model-*"))
    assert [row[0] for row in rows] == ["", "model-large", "model-small"]
    assert " to " in rows[1][1]
    assert rows[1][2:] == ["–", "–"]


def test_what_a_run_took(results: Path) -> None:
    rows = _rows(read_results(results).table("runs model-small"))
    assert rows[1] == ["model-small", "`model-small`", "a processor, 1 thread", "1.5", "2.13.0", "5.23.0", "cccccccccc"]


def test_the_papers_figures_stand_over_ours_on_the_same_tasks(results: Path) -> None:
    write_result(results / "ours.json", {"SciFact": {"ndcg_at_10": 0.8}, "stsb": {"cosine_spearman": 0.9}})
    rows = {row[0]: row for row in _rows(read_results(results).table("paper tasks"))}
    place = next(number for number, cell in enumerate(rows[""]) if cell.endswith("SciFact"))
    assert rows["LLM2Comp KL, pretext + UCL + SCL (paper)"][place] == "76.79"
    assert rows["ours"][place] == "**80.00**"
    assert set(rows) == {"", "LLM2Comp KL, pretext (paper)", "LLM2Comp KL, pretext + UCL + SCL (paper)", "ours"}
    averages = {tuple(row[:2]): row[3] for row in _rows(read_results(results).table("paper averages"))}
    assert averages["LLM2Comp KL", "pretext"] == "52.49"
    assert averages["LLM2Vec (MNTP)", "pretext + UCL"] == "57.82"


def test_blocks_of_a_file_are_filled_and_the_rest_is_left(results: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("# Page\n\n<!-- table set bm25 -->\nold\n<!-- end -->\n\nwords | of | mine\n", encoding="utf-8")
    assert write_file(file, read_results(results))
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# Page\n\n<!-- table set bm25 -->\n| set | measure | score |\n")
    assert text.endswith("| SciFact, test | `scifact.ndcg_at_10` | 0.679 |\n<!-- end -->\n\nwords | of | mine\n")
    assert not write_file(file, read_results(results))


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("set nobody", "no result file in .* is called nobody.json; there are: bm25, model"),
        ("pie", "no table is called 'pie'"),
        ("bench train-mine", r".*train-mine\.json: no such result file of `llm2comp bench encode`"),
        ("bench index-mine", r".*index-mine\.json: no such result file of `llm2comp bench encode`"),
        ("systems", "no table is"),
    ],
)
def test_a_block_that_cannot_be_filled_leaves_the_file_alone(
    results: Path, tmp_path: Path, block: str, message: str
) -> None:
    text = f"<!-- table set bm25 -->\nold\n<!-- end -->\n<!-- table {block} -->\nold\n<!-- end -->\n"
    (tmp_path / "page.md").write_text(text, encoding="utf-8")
    with pytest.raises(LLM2CompError, match=rf"page\.md: {message}"):
        write_file(tmp_path / "page.md", read_results(results))
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == text


def test_a_file_without_blocks_and_a_folder_that_is_not_there(results: Path, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("nothing\n", encoding="utf-8")
    with pytest.raises(LLM2CompError, match="no block to fill"):
        write_file(tmp_path / "page.md", read_results(results))
    with pytest.raises(LLM2CompError, match="no such folder"):
        read_results(tmp_path / "none")


def test_what_has_not_been_run_is_told(results: Path) -> None:
    text = "<!-- table ablation order -->\n<!-- end -->\n<!-- table ablation pictures -->\n<!-- end -->"
    assert fill_text(text, read_results(results), results).count("yet.*") == 2
