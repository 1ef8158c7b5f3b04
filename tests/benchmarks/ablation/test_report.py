"""Tables, words and pictures of made-up ablations."""

import re
from pathlib import Path

import pytest

from llm2comp.errors import LLM2CompError
from llm2comp_benchmarks.ablation.claims import measured_order, order_words
from llm2comp_benchmarks.ablation.plots import plot_ablation
from llm2comp_benchmarks.ablation.summary import Ablation, mean_over_seeds, read_ablation_runs
from llm2comp_benchmarks.report.pages import read_results
from tests.benchmarks.made_up_results import write_ablation_run, write_result

LEVEL = {"distillation": 0.4, "continuation": 0.35, "reconstruction": 0.38, "mntp": 0.395, "none": 0.2}
NOISE = (0.0, 0.01, -0.02)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pretexts with three seeds through all stages; other k and clustered pooling with seed 0."""
    folder = tmp_path / "ablation"
    for seed, noise in enumerate(NOISE):
        for pretext, level in LEVEL.items():
            its_noise = noise if pretext == "mntp" else 0.0
            write_ablation_run(folder, pretext, "pretext", seed, level + noise, level + noise - its_noise / 4)
            write_ablation_run(folder, pretext, "unsupervised", seed, level + noise, level + 0.1)
            for samples, gain in ((1000, 0.1), (4000, 0.2)):
                write_ablation_run(
                    folder, pretext, "supervised", seed, level + gain, level + gain + noise, supervised_samples=samples
                )
    for k, gain in ((1, -0.1), (16, 0.05)):
        write_ablation_run(folder, "distillation", "pretext", 0, 0.4, 0.4 + gain, memory_tokens=k)
    write_ablation_run(folder, "distillation", "supervised", 0, 0.61, 0.63, supervised_samples=4000, pooling="cluster")
    return folder


def _read(folder: Path) -> Ablation:
    ablation = read_ablation_runs(folder)
    assert ablation is not None
    return ablation


def _table(folder: Path, name: str) -> list[list[str]]:
    table = read_results(folder.parent).table(f"ablation {name}")
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if re.match(r"\|(?!---)", line)
    ]


def test_the_interval_over_seeds_is_students() -> None:
    from scipy.stats import t

    values = [0.50, 0.53, 0.49]
    mean = mean_over_seeds(values)
    low, high = t.interval(
        0.95, 2, loc=sum(values) / 3, scale=0.020816659994661344 / 3**0.5
    )  # standard deviation of the three by hand
    assert (mean.value - (mean.half or 0), mean.value + (mean.half or 0)) == pytest.approx((low, high))
    assert mean.formatted() == "0.507 ± 0.052"
    assert mean_over_seeds([0.5]).formatted() == "0.500"


def test_pretexts_stage_by_stage(folder: Path) -> None:
    rows = _table(folder, "pretexts")
    assert rows[0] == [
        "pretext",
        "seeds",
        "retrieval<br>xquad",
        "STS<br>stsb",
        "average",
        "participation ratio",
        "memory-token cosine",
    ]
    assert [row[0] for row in rows[1:7]] == [
        "*pretext only*",
        "CTKD",
        "continuation (NLL)",
        "reconstruction (RC)",
        "LLM2Vec's MNTP",
        "no pretext",
    ]
    ctkd, mntp = rows[2], rows[5]
    assert ctkd[1:5] == ["3", "**0.397 ± 0.038**", "**0.397 ± 0.038**", "**0.397 ± 0.038**"]
    assert ctkd[5:] == ["11.0 ± 2.5", "0.50 ± 0.00"]
    assert mntp[6] == "–"
    assert rows[-5][:3] == ["CTKD", "3", "**0.597 ± 0.038**"]  # the finished models, not those on the way


def test_scores_by_supervised_samples(folder: Path) -> None:
    rows = _table(folder, "samples")
    assert rows[0] == ["average of xquad, stsb", "0 samples", "1,000 samples", "4,000 samples"]
    assert [cell.split(" ")[0] for cell in rows[1]] == ["CTKD", "**0.448", "**0.498", "**0.598"]


def test_tasks_that_only_models_at_the_end_of_a_stage_have_are_no_part_of_the_curve(tmp_path: Path) -> None:
    folder = tmp_path / "ablation"
    ends = {"banking77": {"accuracy": 0.9}}
    for stage, samples, more in (("unsupervised", 0, ends), ("supervised", 10, {}), ("supervised", 20, ends)):
        write_ablation_run(folder, "distillation", stage, 0, 0.3, 0.3, supervised_samples=samples, more=more)
    assert _table(folder, "samples") == [
        ["average of xquad, stsb", "0 samples", "10 samples", "20 samples"],
        ["CTKD", "0.300", "0.300", "0.300"],
    ]
    rows = _table(folder, "pretexts")
    assert rows[0][2:6] == ["retrieval<br>xquad", "STS<br>stsb", "classification<br>banking77", "average"]
    assert rows[-1][2:6] == ["0.300", "0.300", "0.900", "0.500"]


def test_memory_tokens_on_the_seeds_that_all_have(folder: Path) -> None:
    rows = _table(folder, "memory")
    assert rows[0] == ["memory tokens", "seeds", "retrieval", "STS", "average"]
    assert rows[1][0] == "*pretext only*"
    assert rows[2:] == [
        ["1", "1", "0.300", "**0.400**", "0.350"],
        ["8", "1", "0.400", "**0.400**", "0.400"],
        ["16", "1", "**0.450**", "**0.400**", "**0.425**"],
    ]


def test_how_far_other_seeds_of_the_same_k_lie_apart_stands_below(folder: Path) -> None:
    words = read_results(folder.parent).table("ablation memory").splitlines()[-1]
    assert (
        words == "The 3 seeds of k = 8 have averages of 0.380 to 0.410 (pretext only)."
    )  # 0.4 and the noise; k was varied after the pretext only


def test_clustered_pooling_on_the_same_models(folder: Path) -> None:
    rows = _table(folder, "pooling")
    assert rows[1][:4] == ["mean", "1", "0.600", "0.600"]
    assert rows[2][1:4] == ["1", "0.630", "0.610"]
    assert rows[3] == ["difference", "1", "+0.0300", "+0.0100", "+0.0200"]


def test_clustered_pooling_of_other_numbers_of_memory_tokens_is_a_difference(folder: Path) -> None:
    for pooling, xquad in (("mean", 0.5), ("cluster", 0.48)):
        write_ablation_run(
            folder,
            "distillation",
            "supervised",
            0,
            0.5,
            xquad,
            supervised_samples=4000,
            pooling=pooling,
            memory_tokens=16,
        )
    rows = _table(folder, "pooling")
    assert rows[3][:2] == ["difference", "1"]
    assert rows[4:] == [["difference, k = 16", "1", "-0.0200", "+0.0000", "-0.0100"]]


def test_the_order_in_words_made_from_numbers(folder: Path) -> None:
    orderings = {(one.stage, one.better, one.worse): one for one in measured_order(_read(folder))}
    assert {key: one.verdict for key, one in orderings.items() if key[0] == "pretext"} == {
        ("pretext", "distillation", "continuation"): "as in the paper",
        ("pretext", "continuation", "reconstruction"): "the other way round",
        ("pretext", "distillation", "mntp"): "no clear difference",
        ("pretext", "mntp", "none"): "as in the paper",
    }
    words = order_words(_read(folder))
    assert re.match(
        r"Of 12 comparisons: \d as in the paper, \d the other way round, \d without a clear difference\.\n", words
    )
    assert "CTKD above continuation (NLL) by 0.050 ± 0.000, ahead in 6 of 6: as in the paper." in words
    assert (
        "continuation (NLL) below reconstruction (RC) by 0.030 ± 0.000, ahead in 0 of 6: the other way round." in words
    )
    assert "average over xquad, stsb, between models of the same seed (3 seeds)" in words


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    for pretext in ("distillation", "continuation"):
        write_ablation_run(tmp_path, pretext, "pretext", 0, LEVEL[pretext], LEVEL[pretext])
    words = order_words(_read(tmp_path))
    assert "Of 1 comparisons: 1 of one seed, which says nothing." in words
    assert "by 0.050, ahead in 2 of 2: one seed." in words


def test_pretexts_are_compared_on_equal_seeds_only(tmp_path: Path) -> None:
    write_ablation_run(tmp_path, "distillation", "pretext", 0, 0.4, 0.4)
    write_ablation_run(tmp_path, "continuation", "pretext", 1, 0.4, 0.4)
    assert order_words(_read(tmp_path)) == "No two pretexts of the claim have been run with the same seed."


def test_the_papers_averages_beside_ours(folder: Path) -> None:
    table = read_results(folder.parent).table("paper averages")
    assert "| LLM2Comp KL | pretext | 32,000 | 52.49 | 39.7 ± 3.8 |" in table
    assert "| LLM2Comp RC | pretext + UCL + SCL | 360,000 | 65.49 | 57.8 ± 1.9 |" in table
    assert "| PromptEOL | no training | 0 | 43.55 | – |" in table


def test_curves_are_drawn_readable_and_small(folder: Path, tmp_path: Path) -> None:
    from PIL import Image

    drawn = plot_ablation(_read(folder), tmp_path)
    assert [path.name for path in drawn] == ["score-by-samples.png", "score-by-memory-tokens.png"]
    for path in drawn:
        assert path.stat().st_size < 120_000
        with Image.open(path) as image:
            assert image.size == (800, 500)
            assert len(image.convert("RGB").getcolors(1_000_000)) > 20


def test_pictures_that_are_there_are_linked_from_where_the_page_stands(folder: Path) -> None:
    results = read_results(folder.parent)
    assert results.plot()
    assert (
        results.table("ablation pictures", folder.parent.parent)
        .splitlines()[0]
        .endswith(f"({folder.parent.name}/ablation/score-by-samples.png)")
    )


def test_nothing_is_drawn_without_points(tmp_path: Path) -> None:
    write_ablation_run(tmp_path, "distillation", "pretext", 0, 0.4, 0.4)
    assert plot_ablation(_read(tmp_path), tmp_path) == []


def test_a_file_that_does_not_name_its_model_is_refused(folder: Path) -> None:
    write_result(folder / "odd.json", {"stsb": {"cosine_spearman": 0.5}, "xquad": {"ndcg_at_10": 0.5}})
    with pytest.raises(LLM2CompError, match=r"odd\.json: settings.ablation does not name"):
        read_ablation_runs(folder)


def test_files_without_a_task_in_common_are_refused(tmp_path: Path) -> None:
    for task in ("stsb", "xquad"):
        plan = {"pretext": "none", "stage": "pretext", "memory_tokens": 8, "seed": 0}
        write_result(tmp_path / f"{task}.json", {task: {"accuracy": 0.5}}, settings={"ablation": plan})
    with pytest.raises(LLM2CompError, match="no task is in all 2 result files"):
        read_ablation_runs(tmp_path)


def test_no_ablation(tmp_path: Path) -> None:
    assert read_ablation_runs(tmp_path / "none") is None


def test_two_ablations_stand_in_two_folders(folder: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        for pretext, level in (("distillation", 0.5), ("continuation", 0.6)):
            write_ablation_run(tmp_path / "ablation-large", pretext, "pretext", seed, level, level, ablation="large")
    results = read_results(tmp_path)
    assert "CTKD below continuation (NLL) by 0.100" in results.table("ablation-large order")
    assert "CTKD above continuation (NLL) by 0.050" in results.table("ablation order")
    write_ablation_run(tmp_path / "ablation-large", "none", "pretext", 0, 0.5, 0.5, ablation="small")
    with pytest.raises(LLM2CompError, match=r"files of 2 ablations \(large, small\)"):
        read_results(tmp_path)
