"""Runs of recipes: interruptions do not change their result, and other settings are refused by field."""

import json
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import llm2comp
from llm2comp.errors import BackboneError, SettingsError
from llm2comp.training.metrics import read_metrics
from llm2comp.training.recipe import run_recipe
from llm2comp.training.recipe_file import read_recipe
from llm2comp.training.whitening import draw_texts, fit_whitening
from tests.training.processes import run_and_kill
from tests.training.tiny import environment, text, write_corpus, write_recipe

STAGES = ("pretrain", "compression", "unsupervised", "supervised")
TIMES = ("tokens_per_second", "runtime")


MOMENTS: list[tuple[int | None, str]] = [
    (2, "/.recipe.json"),
    (4, "pretrain/.tokenizer"),
    (2, ".tokens.npy"),
    (6, "pretrain/metrics"),
    (5, "pretrain/checkpoint-6"),
    (6, "pretrain/checkpoint-9"),
    (9, "pretrain/.backbone"),
    (8, "/.pairs"),
    (9, "compression/checkpoint-3"),
    (12, "compression/.model"),
    (2, "unsupervised/.settings"),
    (5, "unsupervised/metrics"),
    (2, "unsupervised/.metrics"),
    (5, "supervised/checkpoint-9"),
    (20, "supervised/.model"),
    (25, "/.model"),
]
"""Where a run is killed: before the n-th change to a path, in the order of a run."""


def weights(output: Path) -> dict[str, torch.Tensor]:
    files = sorted((output / "model").rglob("*.safetensors"))
    return {f"{path.relative_to(output)}:{name}": tensor for path in files for name, tensor in load_file(path).items()}


def reports(output: Path) -> dict[str, list[dict[str, Any]]]:
    """Reports of each stage, without times."""
    return {
        stage: [
            {name: value for name, value in entry.items() if not name.endswith(TIMES)}
            for entry in read_metrics(output / stage)
        ]
        for stage in STAGES
    }


def finished(output: Path) -> dict[str, tuple[int, int]]:
    """Inode and modification time of every file of the finished stages."""
    done = [path.parent.parent for path in output.glob("*/model/llm2comp.json")] + [
        path.parent for path in output.glob("pretrain/backbone")
    ]
    files = [path for folder in done for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert run_and_kill(write_recipe(folder), folder / "run", kill_at=None) == 0
    return folder


@pytest.mark.parametrize(
    "moments", [MOMENTS[1::3], pytest.param(MOMENTS, marks=pytest.mark.slow)], ids=["some moments", "all moments"]
)
def test_a_run_killed_again_and_again_ends_like_one_that_was_not(
    uninterrupted: Path, tmp_path: Path, moments: list[tuple[int | None, str]]
) -> None:
    output = tmp_path / "run"
    shutil.copytree(uninterrupted / "data", tmp_path / "data")
    recipe = shutil.copy(uninterrupted / "tiny.yaml", tmp_path)
    chance = random.Random(7)
    early, late = (chance.randint(20, 90), ""), (chance.randint(5, 15), "")
    half = len(moments) // 2
    kills, done = 0, dict[str, tuple[int, int]]()
    for kill_at, where in [*moments[:half], early, *moments[half:], late, (None, "")]:
        code = run_and_kill(Path(recipe), output, kill_at=kill_at, where=where)
        assert code in (0, -9), "what the killed run left was in the way"
        kills += code == -9
        now = finished(output)
        assert {path: now.get(path) for path in done} == done, "a finished stage was touched"
        done = now
    assert kills >= 3 / 4 * len(moments)  # a count may lie beyond what is written there now
    expected = weights(uninterrupted / "run")
    actual = weights(output)
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name
    assert json.dumps(reports(output)) == json.dumps(reports(uninterrupted / "run"))
    assert not [path for path in output.rglob("*") if path.name.startswith(".") and path.name != ".lock"], (
        "half-written files were left behind"
    )


def run_here(recipe: Path, output: Path) -> Path:
    return run_recipe(read_recipe(recipe, data=recipe.parent / "data", pairs=output / "pairs"), output)


def edited(recipe: Path, **sections: dict[str, Any]) -> Path:
    values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    path = recipe.with_name("edited.yaml")
    path.write_text(
        yaml.safe_dump({**values, **{name: {**values[name], **fields} for name, fields in sections.items()}}),
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"compression": {"steps": 12}}, "compression was begun with other settings: steps was 11, now 12"),
        (
            {"pretrain": {"learning_rate": 2e-3}},
            "pretrain was begun with other settings: learning_rate was 0.001, now 0.002",
        ),
        (
            {"model": {"memory_tokens": 4}},
            "compression was begun with other settings: model.memory_tokens was 2, now 4",
        ),
        ({"derive": {"seed": 5}}, "run was begun with other settings: derive.seed was 0, now 5"),
        (
            {"supervised": {"mixture": {"title-lead": 2.0}, "steps": 9}},
            "supervised was begun with other settings: steps was 13, now 9",
        ),
    ],
)
def test_a_folder_begun_with_other_settings_is_refused_by_field(
    uninterrupted: Path, sections: dict[str, dict[str, Any]], named: str
) -> None:
    before = finished(uninterrupted / "run")
    with pytest.raises(SettingsError, match=re.escape(named)):
        run_here(edited(uninterrupted / "tiny.yaml", **sections), uninterrupted / "run")
    assert finished(uninterrupted / "run") == before


def test_a_finished_recipe_is_not_run_again(uninterrupted: Path) -> None:
    before = finished(uninterrupted / "run")
    reworded = uninterrupted / "reworded.yaml"
    reworded.write_text(
        (uninterrupted / "tiny.yaml").read_text(encoding="utf-8").replace("a test", "other words"), encoding="utf-8"
    )
    assert run_here(reworded, uninterrupted / "run") == uninterrupted / "run" / "model"
    assert finished(uninterrupted / "run") == before


def test_a_stage_made_from_one_that_is_gone_is_not_taken(uninterrupted: Path, tmp_path: Path) -> None:
    output = tmp_path / "copy"
    shutil.copytree(uninterrupted / "run", output)
    shutil.rmtree(output / "unsupervised")
    with pytest.raises(
        SettingsError, match=r"supervised was made from .*unsupervised/model, which is not finished: delete"
    ):
        run_here(uninterrupted / "tiny.yaml", output)


def test_a_run_may_move_and_be_named_from_elsewhere(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(uninterrupted, tmp_path / "moved")
    assert run_here(uninterrupted / "tiny.yaml", tmp_path / "moved" / "run") == tmp_path / "moved" / "run" / "model"
    monkeypatch.chdir(uninterrupted)
    assert run_here(Path("tiny.yaml"), Path("run")) == Path("run/model")
    with pytest.raises(SettingsError, match="pretrain was begun with other settings: corpora was"):
        run_here(tmp_path / "moved" / "tiny.yaml", Path("run"))


def test_the_finished_model_went_through_all_stages(uninterrupted: Path) -> None:
    model = llm2comp.load(uninterrupted / "run" / "model", device="cpu")
    assert model.stages == ["compression:distillation", "unsupervised", "supervised"]
    assert model.encode(["a bird"]).shape == (1, 16)
    assert {entry["step"] for entry in read_metrics(uninterrupted / "run" / "supervised") if "loss" in entry} == set(
        range(1, 14)
    )


def test_a_whitening_is_fitted_to_the_finished_model(uninterrupted: Path, tmp_path: Path) -> None:
    recipe, output = uninterrupted / "whitened.yaml", tmp_path / "copy"
    shutil.copytree(uninterrupted / "run", output)
    values = yaml.safe_load((uninterrupted / "tiny.yaml").read_text(encoding="utf-8"))
    values["whitening"] = {"pairs": ["{pairs}"], "power": 0.5}
    recipe.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(SettingsError, match="copy was begun with other settings: whitening"):
        run_here(recipe, output)
    shutil.rmtree(output / "model")
    before = finished(output)
    model = llm2comp.load(run_here(recipe, output), device="cpu", dtype="float32")
    assert finished(output) == before, "no stage is trained again"
    drawn = draw_texts(read_recipe(recipe, pairs=output / "pairs", data=uninterrupted).whitening)
    expected = fit_whitening(llm2comp.load(output / "supervised" / "model", device="cpu"), drawn, power=0.5)
    assert model.whitening is not None
    torch.testing.assert_close(model.whitening.linear.weight.detach(), expected)


def test_pairs_that_cannot_be_derived_stop_the_recipe_there(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    write_corpus(tmp_path / "data" / "articles.jsonl", [f"Number {number}." for number in range(300)])
    with pytest.raises(SettingsError, match="derive: no pair can be derived from its corpora"):
        run_here(edited(recipe, pretrain={"steps": 1}), tmp_path / "run")
    assert not (tmp_path / "run" / "pairs").exists()


def test_a_backbone_that_is_none_is_told_before_pairs_are_derived(tmp_path: Path) -> None:
    articles = write_corpus(tmp_path / "articles.jsonl", [text(number, 60) for number in range(4)])
    (tmp_path / "folder").mkdir()
    recipe = {
        "name": "mine",
        "about": "",
        "derive": {"articles": [str(articles)]},
        "supervised": {"pairs": ["{pairs}"], "steps": 2, "batch_size": 2},
    }
    for backbone, message in (("nowhere.gguf", "no GGUF file"), (str(tmp_path / "folder"), "cannot load the config")):
        (tmp_path / "r.yaml").write_text(yaml.safe_dump({**recipe, "model": {"backbone": backbone}}))
        with pytest.raises(BackboneError, match=message):
            run_recipe(read_recipe(tmp_path / "r.yaml", pairs=tmp_path / "run" / "pairs"), tmp_path / "run")
        assert not (tmp_path / "run" / "pairs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_process_killed_from_outside_at_any_time(uninterrupted: Path, tmp_path: Path, seed: int) -> None:
    shutil.copytree(uninterrupted / "data", tmp_path / "data")
    recipe = Path(shutil.copy(uninterrupted / "tiny.yaml", tmp_path))
    command = [
        sys.executable,
        "-m",
        "llm2comp",
        "train",
        "recipe",
        str(recipe),
        "--data",
        str(tmp_path / "data"),
        "-o",
        str(tmp_path / "run"),
    ]
    chance = random.Random(seed)
    for _ in range(4):
        lines = chance.randint(1, 12)
        with subprocess.Popen(
            command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            for _, _ in zip(range(lines), process.stdout, strict=False):
                pass
            time.sleep(chance.random() * 0.1)
            process.kill()
    last = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert last.stdout.splitlines()[-1] == str(tmp_path / "run" / "model")
    expected, actual = weights(uninterrupted / "run"), weights(tmp_path / "run")
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            actual[name], tensor, rtol=1e-5, atol=1e-6
        )  # other processes may add in another order
    assert json.dumps(steps(tmp_path / "run")) == json.dumps(steps(uninterrupted / "run"))


def steps(output: Path) -> dict[str, list[int]]:
    return {stage: [entry["step"] for entry in entries] for stage, entries in reports(output).items()}
