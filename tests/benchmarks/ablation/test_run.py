"""The ablation: every pretext goes through the same stages, is measured as planned, and nothing is done twice."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm2comp import load
from llm2comp.errors import SettingsError
from llm2comp_benchmarks.ablation import measure as ablation_results
from llm2comp_benchmarks.ablation.lineages import Lineage, Stage
from llm2comp_benchmarks.ablation.measure import Measurer
from llm2comp_benchmarks.ablation.run import AblationPlan, lineages, read_plan, run_ablation
from llm2comp_benchmarks.systems.mntp.encoder import load_text_mean
from llm2comp_benchmarks.tasks.sts import SentencePairs, StsTask
from tests.training.tiny import BACKBONE, text, write_corpus, write_pairs

RECIPE = """
name: small
about: a test
model: {{backbone: {backbone}, memory_tokens: 2, max_length: 60, adapter: null}}
compression:
  {{corpora: [{corpus}], min_characters: 100, max_tokens: 50, steps: 2, batch_size: 4, learning_rate: 1.0e-2}}
unsupervised: {{corpora: [{corpus}], steps: 2, batch_size: 4, learning_rate: 1.0e-2, heldout_rows: 0}}
supervised: {{pairs: [{pairs}], steps: 3, batch_size: 4, learning_rate: 1.0e-2, heldout_rows: 0}}
"""
PLAN = {"about": "a test", "recipe": "recipe.yaml", "curve": [1, 3], "suite": "local"}


def _task(name: str) -> StsTask:
    sentences = [text(number, 8) for number in range(12)]
    return StsTask(name, SentencePairs(sentences[:6], sentences[6:], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]), {"pairs": 6})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return _write(tmp_path)


def _write(folder: Path) -> Path:
    corpus = write_corpus(folder / "corpus.jsonl", [text(number, 80) for number in range(12)])
    pairs = write_pairs(folder / "pairs.jsonl", 16)
    (folder / "recipe.yaml").write_text(RECIPE.format(backbone=BACKBONE, corpus=corpus, pairs=pairs))
    return folder


def _run(folder: Path, tasks: list[StsTask], **plan: Any) -> dict[str, dict[str, Any]]:
    """Runs the ablation of the folder; returns the records of its result files."""
    (folder / "plan.yaml").write_text(json.dumps({"name": "small", **PLAN, **plan}))
    ablation, recipe = read_plan(str(folder / "plan.yaml"), data=None, pairs=folder / "run" / "pairs")
    results = folder / "results"
    results.mkdir(exist_ok=True)
    run_ablation(
        ablation,
        recipe,
        folder / "run",
        Measurer(results, list(tasks), {"ablation": "small"}),
        list(lineages(ablation, recipe.model.memory_tokens)),
    )
    return _records(folder)


def _records(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in (folder / "results").glob("*.json")}


@pytest.fixture(scope="module")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = _write(tmp_path_factory.mktemp("ablation"))
    _run(folder, [_task("similar")], pretexts=["none"], seeds=[0])
    return folder


@pytest.fixture
def finished(_finished: Path, tmp_path: Path) -> Path:
    """A copy of the folder in which one lineage has run."""
    return Path(shutil.copytree(_finished, tmp_path / "copy"))


def test_each_pretext_is_measured_after_each_stage_and_along_the_curve(folder: Path) -> None:
    records = _run(folder, [_task("similar")], pretexts=["distillation", "mntp", "none"], seeds=[3])
    curve = ["unsupervised", "supervised-4", "supervised-12"]
    expected = {f"{name}-seed3-{stage}" for name in ("distillation-k2", "mntp-k0") for stage in ("pretext", *curve)}
    expected |= {f"none-k2-seed3-{stage}" for stage in curve} | {"distillation-k2-seed3-supervised-12-cluster"}
    assert set(records) == expected
    half_way = records["distillation-k2-seed3-supervised-4"]["settings"]["ablation"]
    assert half_way == {
        "pretext": "distillation",
        "memory_tokens": 2,
        "seed": 3,
        "stage": "supervised",
        "supervised_samples": 4,
        "pooling": "mean",
        "ablation": "small",
    }
    assert len({record["settings"]["fingerprint"] for record in records.values()}) == len(
        records
    )  # every one is another model
    assert all(-1 <= record["similar"]["cosine_spearman"] <= 1 for record in records.values())
    assert load(folder / "run" / "distillation-k2-seed3" / "supervised" / "model").stages == [
        "compression:distillation",
        "unsupervised",
        "supervised",
    ]
    assert load_text_mean(folder / "run" / "mntp-k0-seed3" / "supervised" / "model").memory_tokens == 0


def test_a_second_run_does_only_what_is_missing(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, before = finished, _records(finished)
    measured: list[str] = []
    evaluate = ablation_results.evaluate

    def note(model: Any, task: Any, **options: Any) -> Any:
        measured.append(task.name)
        return evaluate(model, task, **options)

    monkeypatch.setattr(ablation_results, "evaluate", note)
    models = {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("*.safetensors")}
    assert models
    assert _run(folder, [_task("similar")], pretexts=["none"], seeds=[0]) == before
    assert measured == []
    after = _run(folder, [_task("similar"), _task("other")], pretexts=["none"], seeds=[0])
    assert measured == ["other"] * len(before)
    assert {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("*.safetensors")} == models
    for name, record in after.items():
        assert record["similar"] == before[name]["similar"]
        assert set(record["settings"]["tasks"]) == set(record["seconds"]) == {"similar", "other"}


def test_results_without_their_models_are_not_made_again(finished: Path) -> None:
    folder, before = finished, _records(finished)
    (folder / "run" / "none-k2-seed0").rename(folder / "elsewhere")
    assert _run(folder, [_task("similar")], pretexts=["none"], seeds=[0]) == before
    assert not (folder / "run" / "none-k2-seed0").exists()
    after = _run(folder, [_task("similar"), _task("other")], pretexts=["none"], seeds=[0])  # something is missing
    assert (folder / "run" / "none-k2-seed0").is_dir()
    assert all(after[name]["similar"] == before[name]["similar"] and after[name]["other"] for name in before)


def test_results_of_other_budgets_are_refused(finished: Path) -> None:
    folder = finished
    path = folder / "results" / "none-k2-seed0-supervised-12.json"
    record = json.loads(path.read_text())
    record["settings"]["ablation"]["samples"] = {"unsupervised": 8, "supervised": 99}
    path.write_text(json.dumps(record))
    budgets = {"unsupervised": 8, "supervised": 12}
    measurer = Measurer(folder / "results", [_task("similar")], {"ablation": "small", "samples": budgets})
    lineage, stage = Lineage("none", 2, 0), Stage("supervised", folder, 12)
    with pytest.raises(SettingsError, match=r"other budgets \(unsupervised 8, supervised 99\)"):
        measurer.is_settled(lineage, [stage], folder / "run")


def test_which_models_a_task_is_measured_on(folder: Path) -> None:
    measurer = Measurer(
        folder, [_task("always"), _task("ends"), _task("final")], {}, end_only=("ends",), final_only=("final",)
    )
    stages = [
        Stage("untrained", folder),
        Stage("pretext", folder),
        Stage("supervised", folder, 4, finished=False),
        Stage("supervised", folder, 12),
    ]
    assert [[task.name for task in measurer.tasks_of(stage)] for stage in stages] == [
        ["always", "ends"],
        ["always", "ends"],
        ["always"],
        ["always", "ends", "final"],
    ]


def test_seeds_differ_and_other_numbers_of_memory_tokens_are_trained_once(folder: Path) -> None:
    records = _run(
        folder,
        [_task("similar")],
        pretexts=["distillation"],
        seeds=[0, 1],
        memory_tokens=[1, 2],
        memory_seeds=[0],
        curve=[3],
    )
    names = {name.removesuffix("-pretext") for name in records if name.endswith("-pretext")}
    assert names == {"distillation-k2-seed0", "distillation-k2-seed1", "distillation-k1-seed0"}
    vectors = [
        load(folder / "run" / name / "supervised" / "model").encode_document([text(1)]) for name in sorted(names)
    ]
    assert not np.allclose(vectors[1], vectors[2], atol=1e-3)


def test_other_settings_in_a_folder_are_refused(finished: Path) -> None:
    folder = finished
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        recipe.read_text().replace(
            "batch_size: 4, learning_rate: 1.0e-2, heldout_rows: 0",
            "batch_size: 4, learning_rate: 1.0e-3, heldout_rows: 0",
        )
    )
    with pytest.raises(SettingsError, match=r"learning_rate was 0\.01, now 0\.001"):
        _run(folder, [_task("similar")], pretexts=["none"], seeds=[0])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"curve": [3, 1]}, "rising numbers"),
        ({"curve": [1, 2]}, "curve ends at 2 updates, stage 3 of the recipe at 3"),
        ({"pretexts": ["guessing"]}, "guessing"),
        ({"seeds": []}, "at least one"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(folder: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        _run(folder, [_task("similar")], **{"pretexts": ["none"], "seeds": [0], **changed})


def test_the_plan_of_smollm2_gives_every_pretext_the_same_texts_and_updates(tmp_path: Path) -> None:
    ablation, recipe = read_plan("smollm2", data=tmp_path, pairs=tmp_path / "pairs")
    assert {*ablation.pretexts} == {"distillation", "mntp", "continuation", "reconstruction", "none"}
    assert recipe.compression is not None
    assert recipe.supervised is not None
    assert recipe.compression.steps >= 1000
    assert [updates * recipe.supervised.batch_size for updates in ablation.curve] == [2560, 10240]


def test_the_shipped_ablation_reads(tmp_path: Path) -> None:
    ablation, recipe = read_plan("tiny", data=tmp_path, pairs=tmp_path / "pairs")
    assert isinstance(ablation, AblationPlan)
    assert recipe.lengthen is None
    assert (
        len(list(lineages(ablation, 8)))
        == len(ablation.pretexts) * len(ablation.seeds) + len(ablation.memory_tokens) - 1
    )
    with pytest.raises(SettingsError, match="no ablation 'huge'"):
        read_plan("huge", data=tmp_path, pairs=tmp_path / "pairs")
