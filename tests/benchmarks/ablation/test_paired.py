"""Paired intervals between models of an ablation, and what they allow to be said."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm2comp_benchmarks.ablation.claims import measured_order, order_words
from llm2comp_benchmarks.ablation.paired import paired_interval
from llm2comp_benchmarks.ablation.plots import plot_ablation
from llm2comp_benchmarks.ablation.summary import Run, read_ablation_runs
from llm2comp_benchmarks.report.pages import read_results
from llm2comp_benchmarks.results.record import Samples
from tests.benchmarks.made_up_results import queries, write_ablation_run

COUNT = 400
BASE = np.random.default_rng(5).uniform(0.3, 0.5, COUNT)
NOISE = np.random.default_rng(6).normal(0, 0.1, COUNT)
NOISE -= NOISE.mean()


def _run(values: Any, *, seed: int = 0, task: str = "xquad") -> Run:
    samples = Samples(
        "ndcg_at_10", "mean", "query", list(map(float, values)), ids=[f"q{n}" for n in range(len(values))]
    )
    return Run("distillation", "pretext", 8, seed, 0, "mean", {task: float(np.mean(values))}, {}, {task: samples})


@pytest.mark.parametrize(("level", "deviations"), [(0.95, 1.959964), (0.99583, 2.8653)])
def test_the_interval_of_a_mean_is_that_of_its_standard_error(level: float, deviations: float) -> None:
    interval = paired_interval([_run(BASE + 0.02 + NOISE)], [_run(BASE)], ["xquad"], level=level)
    assert interval is not None
    half = deviations * NOISE.std() / COUNT**0.5  # the spread of BASE, which both share, is not in it
    assert interval == pytest.approx((0.02 - half, 0.02 + half), abs=0.1 * half)


def test_the_same_model_twice_and_seeds_that_cancel_out() -> None:
    assert paired_interval([_run(BASE)], [_run(BASE)], ["xquad"], level=0.95) == (0.0, 0.0)
    seeds = [_run(BASE + NOISE, seed=0), _run(BASE - NOISE, seed=1)]
    assert paired_interval(seeds, [_run(BASE), _run(BASE)], ["xquad"], level=0.95) == pytest.approx((0, 0), abs=1e-12)


def test_without_samples_or_with_others_there_is_no_interval() -> None:
    bare = Run("mntp", "pretext", 0, 0, 0, "mean", {"xquad": 0.4}, {})
    assert paired_interval([_run(BASE)], [bare], ["xquad"], level=0.95) is None
    assert paired_interval([_run(BASE)], [_run(BASE[:-1])], ["xquad"], level=0.95) is None


def _write(folder: Path, pretext: str, values: Any, *, seed: int = 0, **settings: Any) -> None:
    samples = {"stsb": {**queries(list(values), metric="cosine_spearman")}, "xquad": queries(list(values))}
    mean = float(np.mean(values))
    write_ablation_run(folder, pretext, "pretext", seed, mean, mean, beside={"samples": samples}, **settings)


def _verdicts(folder: Path) -> list[str]:
    ablation = read_ablation_runs(folder)
    assert ablation is not None
    return [one.verdict for one in measured_order(ablation)]


def test_one_seed_speaks_where_texts_decide(tmp_path: Path) -> None:
    _write(tmp_path, "distillation", BASE + 0.05 + NOISE)
    _write(tmp_path, "continuation", BASE)
    assert _verdicts(tmp_path) == ["as in the paper"]
    ablation = read_ablation_runs(tmp_path)
    assert ablation is not None
    words = order_words(ablation)
    # two tasks of independent draws: 0.05 ± 1.96 · 0.1 / sqrt(400) / sqrt(2)
    interval = r"\(\+0\.04[234] to \+0\.05[678]\)"
    assert re.search(
        rf"CTKD above continuation \(NLL\) by 0\.050 {interval}, ahead in 2 of 2: as in the paper\.", words
    )
    assert words.startswith("Of 1 comparisons, all of one seed: 1 as in the paper.")
    assert "one of a single seed may still be that seed's" in words
    _write(tmp_path, "mntp", BASE + 0.09 + NOISE)
    assert _verdicts(tmp_path) == ["as in the paper", "the other way round"]


def test_what_one_comparison_would_call_clear_many_do_not(tmp_path: Path) -> None:
    half = 1.96 * NOISE.std() / (2 * COUNT) ** 0.5
    _write(tmp_path, "distillation", BASE + 1.2 * half + NOISE)
    _write(tmp_path, "continuation", BASE)
    assert _verdicts(tmp_path) == ["as in the paper"]
    _write(tmp_path, "reconstruction", BASE)
    _write(tmp_path, "mntp", BASE - 1.0)
    _write(tmp_path, "none", BASE - 2.0)
    assert _verdicts(tmp_path)[0] == "no clear difference"
    ablation = read_ablation_runs(tmp_path)
    assert ablation is not None
    assert "more seeds are worth their time: CTKD, continuation (NLL), reconstruction (RC)" in order_words(ablation)


def test_seeds_and_texts_must_agree(tmp_path: Path) -> None:
    for seed, shift in ((0, 0.2), (1, 0.02)):
        _write(tmp_path, "distillation", BASE + shift, seed=seed)
        _write(tmp_path, "continuation", BASE, seed=seed)
    assert _verdicts(tmp_path) == ["no clear difference"], "no other text would change it, but another seed might"


def test_the_claims_beside_the_papers_figures(tmp_path: Path) -> None:
    _write(tmp_path / "ablation", "distillation", BASE + 0.05 + NOISE)
    _write(tmp_path / "ablation", "continuation", BASE)
    row = read_results(tmp_path).table("ablation claims").splitlines()[2]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:4] == ["pretext only", "CTKD above continuation (NLL)", "+6.27", "+5.0"]  # 52.49 - 46.22
    assert cells[4:] == ["+4.3 to +5.7", "1", "as in the paper"]


def test_the_claims_as_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    _write(tmp_path, "distillation", BASE + 0.05 + NOISE)
    _write(tmp_path, "continuation", BASE)
    ablation = read_ablation_runs(tmp_path)
    assert ablation is not None
    assert [path.name for path in plot_ablation(ablation, tmp_path)] == ["claims.png"]


def test_what_is_partial_is_called_partial(tmp_path: Path) -> None:
    plan = [f"{pretext}-k8-seed0" for pretext in ("distillation", "continuation")] + ["mntp-k0-seed0"]
    fields = {"plan": plan, "samples": {"pretext": 4000, "supervised": 10240}}
    folder = tmp_path / "ablation"
    for stage, samples in (("pretext", 0), ("unsupervised", 0), ("supervised", 2560)):
        write_ablation_run(folder, "distillation", stage, 0, 0.4, 0.5, supervised_samples=samples, **fields)
    write_ablation_run(folder, "continuation", "pretext", 0, 0.4, 0.5, beside={"missing": ["scifact"]}, **fields)
    results = read_results(tmp_path)
    assert results.table("ablation progress").splitlines() == [
        "Finished: 0 of 3 runs of the plan.",
        "Begun, so partial: CTKD, k = 8, seed 0 (pretext only, + UCL, + UCL + SCL (2,560 of 10,240 samples)).",
        "Not run: continuation (NLL), k = 8, seed 0; LLM2Vec's MNTP, seed 0.",
        "Being measured, so left out: continuation-pretext-0-8-0-mean.",
    ]
    assert "*+ UCL + SCL*" not in results.table("ablation pretexts"), "stage 3 is not at its end"
    assert results.table("ablation order") == "No two pretexts of the claim have been run with the same seed."
    assert results.table("ablation claims") == "*Not in the result files.*"


def test_seconds_stand_beside_the_budget(tmp_path: Path) -> None:
    budget = {"samples": {"pretext": 4000, "unsupervised": 12800, "supervised": 10240}}
    for pretext, seconds in (("distillation", 5.4), ("mntp", 2.7)):
        training = {"updates": 1000, "seconds_per_update": seconds, "seconds": 1000 * seconds}
        write_ablation_run(
            tmp_path / "ablation", pretext, "pretext", 0, 0.4, 0.5, beside={"training": training}, **budget
        )
    lines = read_results(tmp_path).table("ablation seconds").splitlines()
    assert "pretext only, hours<br>4,000 texts" in lines[0]
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == [
        "CTKD",
        "1",
        "5.4",
        "–",
        "–",
        "1.50",
        "–",
        "–",
        "1.50 so far",
    ]
    assert "| 0.75 so far |" in lines[3]
