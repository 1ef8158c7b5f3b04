"""Recipes that mine negatives between stage 3 and its continuation."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import llm2comp
from llm2comp.errors import SettingsError
from llm2comp.training.recipe import run_recipe
from llm2comp.training.recipe_file import Recipe, read_recipe
from tests.training.tiny import write_recipe

KIND = "sentence-rest"


def write(folder: Path, **mine: Any) -> Path:
    """A recipe whose `lengthen` reads mined pairs, without the stages before stage 3."""
    path = write_recipe(folder)
    recipe = yaml.safe_load(path.read_text())
    recipe |= {"mine": {"kinds": [KIND], "negatives": 1, "margin": 1.0, **mine}, "compression": None}
    recipe |= {"unsupervised": None, "lengthen": {**recipe["supervised"], "pairs": ["{mined_pairs}"]}}
    path.write_text(yaml.safe_dump(recipe))
    return path


def read(path: Path) -> Recipe:
    return read_recipe(path, data=path.parent / "data", pairs=path.parent / "run" / "pairs")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.open(path, "rt", encoding="utf-8")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a recipe that has run."""
    path = write(tmp_path_factory.mktemp("mining"))
    llm2comp.load(run_recipe(read(path), path.parent / "run"))
    return path


def test_pairs_of_some_kinds_get_negatives_and_the_others_stay(finished: Path) -> None:
    output = finished.parent / "run"
    mined, pairs = output / "mined_pairs", output / "pairs"
    names = {path.name for path in pairs.glob("*.jsonl.gz")}
    assert {path.name for path in mined.glob("*.jsonl.gz")} == names
    assert len(names) > 1
    plain = rows(pairs / f"{KIND}.jsonl.gz")
    with_negatives = rows(mined / f"{KIND}.jsonl.gz")
    assert [(row["query"], row["positive"]) for row in with_negatives] == [
        (row["query"], row["positive"]) for row in plain
    ]
    positives = {row["positive"]: row["source"] for row in plain}
    negatives = [(row["source"], row["negative"]) for row in with_negatives if "negative" in row]
    assert len(negatives) > len(plain) / 2
    assert all(positives[negative] != source for source, negative in negatives)
    for name in names - {f"{KIND}.jsonl.gz"}:
        assert (mined / name).read_bytes() == (pairs / name).read_bytes()
    assert (output / "lengthen" / "model").is_dir()


def test_a_finished_run_mines_nothing_again(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm2comp.training.recipe.mine_hard_negatives", lambda *_: pytest.fail("mined again"))
    run_recipe(read(finished), finished.parent / "run")


def test_other_settings_are_refused_once_it_has_mined(finished: Path) -> None:
    changed = finished.parent / "changed.yaml"
    changed.write_text(finished.read_text().replace("margin: 1.0", "margin: 0.5"))
    with pytest.raises(SettingsError, match=r"mine.*margin"):
        run_recipe(read(changed), finished.parent / "run")


def test_a_kind_that_nothing_derives(tmp_path: Path) -> None:
    recipe = read(write(tmp_path, kinds=["no-such-kind"]))
    with pytest.raises(
        SettingsError, match="mine: derive made no pairs of the kinds no-such-kind, but of .*title-lead"
    ):
        run_recipe(recipe, tmp_path / "run")


@pytest.mark.parametrize("missing", ["derive", "supervised", "lengthen"])
def test_what_it_needs(tmp_path: Path, missing: str) -> None:
    path = write(tmp_path)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {missing: None}))
    with pytest.raises(SettingsError, match="mine takes the pairs of derive and the model of supervised, for lengthen"):
        read(path)


def test_mined_pairs_that_nothing_mines(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"mine": None}))
    with pytest.raises(SettingsError, match=r"lengthen.pairs reads \{mined_pairs\}, which only mine makes"):
        read(path)
