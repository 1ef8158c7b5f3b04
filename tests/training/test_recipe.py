"""Recipes: the shipped ones load, bad ones are refused by field, and an interrupted run ends as if nothing had happened."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llm2comp.training.metrics import read_metrics
from tests.training.killed import run_and_kill
from tests.training.tiny import write_recipe

STAGES = ("pretrain", "compression", "unsupervised", "supervised")
TIMES = ("tokens_per_second", "runtime")


def weights(output: Path) -> dict[str, torch.Tensor]:
    files = sorted((output / "model").rglob("*.safetensors"))
    return {f"{path.relative_to(output)}:{name}": tensor for path in files for name, tensor in load_file(path).items()}


def reports(output: Path) -> dict[str, list[dict[str, Any]]]:
    """What each stage reported, without the times."""
    return {stage: [{name: value for name, value in entry.items() if not name.endswith(TIMES)} for entry in read_metrics(output / stage)] for stage in STAGES}


def finished(output: Path) -> dict[str, tuple[int, int]]:
    """Number and time of every file of the stages that are done."""
    done = [path.parent.parent for path in output.glob("*/model/llm2comp.json")] + [path.parent for path in output.glob("pretrain/backbone")]
    files = [path for folder in done for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert run_and_kill(write_recipe(folder), folder / "run", kill_at=None) == 0
    return folder


def test_a_run_killed_again_and_again_ends_like_one_that_was_not(uninterrupted: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    shutil.copytree(uninterrupted / "data", tmp_path / "data")
    recipe = shutil.copy(uninterrupted / "tiny.yaml", tmp_path)
    chance = random.Random(7)
    kills, done = 0, {}
    while run_and_kill(Path(recipe), output, kill_at=chance.randint(20, 220)) != 0:
        kills += 1
        now = finished(output)
        assert {path: now.get(path) for path in done} == done, "a finished stage was touched"
        done = now
        assert kills < 60
    assert kills >= 5
    expected = weights(uninterrupted / "run")
    found = weights(output)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    assert json.dumps(reports(output)) == json.dumps(reports(uninterrupted / "run"))
    assert not [path for path in output.rglob("*") if path.name.startswith(".") and path.name != ".lock"], "half-written files were left behind"
