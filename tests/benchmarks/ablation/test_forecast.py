"""An ablation from its forecast to its report: what is left is known before, while and after it runs."""

import logging
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from llm2comp.errors import SettingsError
from llm2comp.training.metrics import append_metrics
from llm2comp_benchmarks.ablation.forecast import Forecast, Step, duration
from llm2comp_benchmarks.ablation.lineages import Lineage
from llm2comp_benchmarks.ablation.pace import read_pace
from llm2comp_benchmarks.ablation.plan import read_plan
from llm2comp_benchmarks.ablation.rates import PROBED, RAN, UNKNOWN, Rate, Rates
from llm2comp_benchmarks.ablation.run import Choice, ablate, forecast
from llm2comp_benchmarks.report.pages import read_results
from tests.benchmarks.ablation.toy import write_toy


def _step(doing: str, total: int, left: int, seconds: float, *, part: str = "objectives", seed: int = 0) -> Step:
    lineage = Lineage("distillation", 8, seed)
    return Step(part, lineage, "pretext", doing, total, left, Rate(seconds, RAN), total * seconds, left * seconds)


def test_only_what_is_left_counts_and_parts_are_summed() -> None:
    steps = [
        _step("train", 1000, 850, 6.0),
        _step("measure", 5, 5, 240.0),
        _step("train", 1000, 1000, 6.0, part="seeds", seed=1),
    ]
    predicted = Forecast(steps)
    assert predicted.seconds_left == 850 * 6 + 1200 + 6000
    lines = predicted.table().splitlines()
    assert lines[1].split() == [
        "CTKD,",
        "k",
        "=",
        "8,",
        "seed",
        "0",
        "pretext",
        "only",
        "1,000",
        "850",
        "6",
        "1:25",
        "h",
        "20",
        "min",
        "begun",
    ]
    assert lines[2].endswith("to do")
    sums = {line.split("  ")[0]: re.split("  +", line)[-4:] for line in lines[4:]}
    assert sums["objectives, one seed"] == ["1:45 h", "2:00 h", "1:25 h", "20 min"]
    assert sums["more seeds"] == ["1:40 h", "1:40 h", "1:40 h", "0 s"]
    assert sums["all"] == ["3:25 h", "3:40 h", "3:05 h", "20 min"]
    assert predicted.line() == "3 of 3 steps left, about 3:25 h"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0 s"), (59, "59 s"), (90, "2 min"), (3599, "60 min"), (11100, "3:05 h")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_a_pause_does_not_change_the_pace(tmp_path: Path) -> None:
    assert read_pace(tmp_path / "none", 10, "llm2comp.json") == (0, None, None)
    lines = [(1, 4.0), (2, 4.0), (3, 900.0), (4, 4.2), (3, 3.8)]
    (tmp_path / "times.jsonl").write_text(
        "".join(f'{{"step": {step}, "seconds": {seconds}}}\n' for step, seconds in lines) + '{"step": 5, "sec'
    )
    append_metrics(tmp_path, {"step": 4, "loss": 1.0, "tokens_per_second": 300.0})
    assert read_pace(tmp_path, 10, "llm2comp.json") == (0, 4.0, 300.0)


def _times(folder: Path, seconds: float) -> None:
    folder.mkdir(parents=True)
    (folder / "times.jsonl").write_text(f'{{"step": 1, "seconds": {seconds}}}\n')


def _no_probe(*_: object) -> None:
    raise AssertionError("a model was loaded for a probe")


def test_without_probes_the_most_alike_that_have_run_stand_for_a_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rates, "_model", _no_probe)
    plan = write_toy(tmp_path)
    _, recipe = read_plan(str(plan), data=tmp_path / "data", pairs=tmp_path / "run" / "pairs")
    rates = Rates(recipe, "backbone", tmp_path / "run", tmp_path / "results", [], ["text"], probe=False)
    assert rates.update(Lineage("distillation", 2, 0), "pretext") == (0.0, UNKNOWN)
    assert rates.analysis() == (0.0, UNKNOWN)
    _times(tmp_path / "run/mntp-k0-seed0/pretext", 3.0)
    _times(tmp_path / "run/distillation-k2-seed0/pretext", 5.0)
    _times(tmp_path / "run/distillation-k2-seed1/pretext", 6.0)
    for lineage, seconds in {
        Lineage("distillation", 2, 0): 5.0,
        Lineage("distillation", 4, 0): 5.5,  # median of its pretext
        Lineage("continuation", 2, 0): 5.0,  # of all
    }.items():
        assert rates.update(lineage, "pretext") == (seconds, RAN)
    assert rates.update(Lineage("distillation", 2, 0), "supervised") == (0.0, UNKNOWN)


def test_what_has_not_run_yet_is_counted_and_not_timed() -> None:
    unknown = replace(_step("train", 10, 10, 0.0), rate=Rate(0.0, UNKNOWN))
    done = replace(unknown, left=0)
    timed = _step("measure", 1, 1, 60.0)
    assert Forecast([unknown, done]).line() == "1 of 2 steps left, all of a kind that has not run yet, so not timed"
    assert Forecast([unknown, timed, unknown]).line() == (
        "3 of 3 steps left, about 1 min and 2 steps of a kind that has not run yet"
    )


@pytest.mark.slow
def test_a_whole_ablation(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = write_toy(tmp_path, pretexts=["distillation", "none"], seeds=[0], memory_tokens=[])
    places = (str(plan), tmp_path / "run", tmp_path / "results" / "ablation-toy", tmp_path / "data")
    before = forecast(*places)
    assert {step.rate.source for step in before.steps} == {PROBED}
    assert before.seconds_left == sum(step.seconds for step in before.steps) > 0
    assert not (tmp_path / "run").exists()
    assert not places[2].exists()
    with caplog.at_level(logging.INFO, logger="llm2comp_benchmarks.ablation"), monkeypatch.context() as patched:
        patched.setattr(Rates, "_model", _no_probe)
        ablate(*places, choice=Choice(pretexts=["none"]))
    assert "5 of 5 steps left, all of a kind that has not run yet, so not timed" in caplog.messages
    after_stage_2 = next(line for line in caplog.messages if "3 of 5 steps left, about " in line)
    assert after_stage_2.startswith("none-k2-seed0-unsupervised: ")
    assert after_stage_2.endswith(" and 1 step of a kind that has not run yet"), "the training of stage 3"
    half = forecast(*places)
    done = {(step.lineage.pretext, step.stage) for step in half.steps if not step.left}
    assert done == {("none", "unsupervised"), ("none", "supervised")}
    partial = read_results(tmp_path / "results").table("ablation-toy progress")
    assert partial == "Finished: 1 of 2 runs of the plan.\nNot run: CTKD, k = 2, seed 0."
    ablate(*places)
    after = forecast(*places)
    assert after.seconds_left == 0
    assert {step.rate.source for step in after.steps if step.doing == "train"} == {RAN}
    _check_report(tmp_path / "results")


def _check_report(folder: Path) -> None:
    results = read_results(folder)
    assert results.table("ablation-toy progress") == "Finished: 2 of 2 runs of the plan."
    pretexts = results.table("ablation-toy pretexts")
    for name in ("mean of the states", "PromptEOL", "CTKD", "no pretext", "*no training*"):
        assert name in pretexts
    seconds = results.table("ablation-toy seconds").splitlines()
    assert [line.split("|")[1].strip() for line in seconds[2:]] == ["CTKD", "no pretext"]
    run = results.ablations["ablation-toy"].finished("pretext")[0]
    assert set(run.values) == {"similar", "passages", "labelled"}
    assert {"context_share", "context_gain", "participation_ratio"} <= set(run.analysis)
    assert "| PromptEOL | no training | 0 | 43.55 | " in results.table("ablation-toy paper")


def test_a_language_model_still_to_be_trained_has_no_forecast(tmp_path: Path) -> None:
    plan = write_toy(tmp_path)
    recipe = (tmp_path / "recipe.yaml").read_text()
    shape = "{vocabulary: 300, hidden: 16, layers: 2, heads: 2, intermediate: 32, max_positions: 64}"
    pretrain = (
        f'pretrain: {{corpora: ["{{data}}/corpus.jsonl"], heldout: "{{data}}/heldout.jsonl", shape: {shape}, steps: 2, '
        "sequence_length: 32, batch_size: 2, learning_rate: 1.0e-3}\n"
    )
    (tmp_path / "recipe.yaml").write_text(
        recipe.replace(f"backbone: {recipe.split('backbone: ')[1].split(',')[0]}, ", "") + pretrain
    )
    with pytest.raises(SettingsError, match="the language model of .* is still to be trained"):
        forecast(str(plan), tmp_path / "run", tmp_path / "results", tmp_path / "data")


@pytest.mark.slow
def test_all_pretexts_and_numbers_of_memory_tokens(tmp_path: Path) -> None:
    plan = write_toy(tmp_path, pretexts=["distillation", "continuation", "reconstruction", "mntp", "none"])
    places = (str(plan), tmp_path / "run", tmp_path / "results" / "ablation-toy", tmp_path / "data")
    ablate(*places)
    shutil.rmtree(tmp_path / "run" / "mntp-k0-seed1" / "supervised")
    left = [(step.lineage.name, step.stage, step.doing) for step in forecast(*places).steps if step.left]
    assert left == [("mntp-k0-seed1", "supervised", "train")]
    results = read_results(tmp_path / "results")
    drawn = [path.name for path in results.plot()]
    assert drawn == ["score-by-samples.png", "score-by-memory-tokens.png", "claims.png"]
    for part in ("claims", "order", "samples", "memory", "pooling", "seconds"):
        assert results.table(f"ablation-toy {part}").count("\n") > 3
