"""Training for late interaction beside its control: from one model, on the same batches; then measured together."""

import json
from pathlib import Path

import pytest
import yaml

import llm2comp
from llm2comp.errors import SettingsError
from llm2comp.training.metrics import read_metrics
from llm2comp.training.recipe_file import read_recipe
from llm2comp_benchmarks.late import train as training
from llm2comp_benchmarks.late.run import run
from llm2comp_benchmarks.late.train import stage_of, train
from tests.training.tiny import small_model, write_recipe


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plan of two updates from a small model, with the recipe of a test."""
    small_model(adapter=None, memory_tokens=2).save(tmp_path / "first")
    recipe = write_recipe(tmp_path, model={"memory_tokens": 2, "max_length": 64, "adapter": None})
    content = {
        "model": str(tmp_path / "first"),
        "recipe": str(recipe),
        "stage": {"steps": 2, "eval_steps": 2, "warmup_steps": 0},
        "variants": {"control": {}, "maxsim": {"maxsim_weight": 0.5, "diversity_weight": 0.1}},
    }
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump(content))
    monkeypatch.setattr(training, "_FILE", file)
    return tmp_path


def test_variants_differ_in_the_loss_alone(plan: Path) -> None:
    folders = train(plan / "run", plan / "data", ["control", "maxsim"])
    assert folders == [plan / "run" / name / "model" for name in ("control", "maxsim")]
    control, maxsim = (read_metrics(plan / "run" / name) for name in ("control", "maxsim"))
    assert [entry["step"] for entry in control] == [entry["step"] for entry in maxsim]
    assert control[0]["loss"] != maxsim[0]["loss"]
    settings = [json.loads((plan / "run" / name / "settings.json").read_text()) for name in ("control", "maxsim")]
    differing = {name for name in settings[0] if settings[0][name] != settings[1][name]}
    assert differing == {"maxsim_weight", "diversity_weight", "folder"}
    first = llm2comp.load(plan / "first", device="cpu")
    assert len({llm2comp.load(folder, device="cpu").fingerprint for folder in folders} | {first.fingerprint}) == 3
    before = [(folder / "llm2comp.json").stat().st_mtime_ns for folder in folders]
    train(plan / "run", plan / "data", ["control", "maxsim"])
    assert [(folder / "llm2comp.json").stat().st_mtime_ns for folder in folders] == before, "finished ones stay"


def test_an_unknown_variant_is_refused_before_pairs_are_derived(plan: Path) -> None:
    with pytest.raises(SettingsError, match="no variant 'other'; plan.yaml has control, maxsim"):
        train(plan / "run", plan / "data", ["control", "other"])
    assert not (plan / "run").exists()


@pytest.mark.parametrize("variant", ["control", "maxsim", "maxsim-apart"])
def test_the_shipped_plan_is_the_recipe_with_a_short_continuation(variant: str, tmp_path: Path) -> None:
    stage = stage_of(variant, tmp_path / "pairs", tmp_path)
    recipe = read_recipe("llm2comp-small", data=tmp_path, pairs=tmp_path / "pairs").supervised
    assert recipe is not None
    for name in ("mixture", "batch_size", "max_query_tokens", "max_passage_tokens", "temperature", "seed"):
        assert getattr(stage, name) == getattr(recipe, name)
    assert stage.pairs == (str(tmp_path / "pairs"),)
    assert stage.steps == 200
    assert stage_of(variant, tmp_path, tmp_path, steps=150).steps == 150
    assert stage.maxsim_weight == (0.0 if variant == "control" else 0.5)
    assert bool(stage.diversity_weight) is (variant == "maxsim-apart")


def test_several_models_are_measured_into_one_file(plan: Path) -> None:
    pytest.importorskip("pytrec_eval", reason="needs the extra eval")
    folder = plan / "beir"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": f"d{row}", "text": f"bridge {row} of stone"}) + "\n" for row in range(12))
    )
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "bridge 3"}) + "\n")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td3\t1\n")
    run(plan / "late.json", f"one={plan / 'first'},two={plan / 'first'}", [folder])
    record = json.loads((plan / "late.json").read_text())
    assert set(record["settings"]["models"]) == {"one", "two"}
    assert [row["model"] for row in record["rows"]] == ["one"] * 5 + ["two"] * 5
    values = record["samples"]
    assert len(values) == 10
    assert values["one beir maxsim int8 2"] == values["two beir maxsim int8 2"]
