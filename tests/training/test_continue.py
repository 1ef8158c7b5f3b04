"""A finished run goes on with more updates than before, and its model has the same weights wherever it is saved."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import llm2comp
from llm2comp.errors import SettingsError
from llm2comp.training.compression import train_compression
from llm2comp.training.metrics import read_metrics
from llm2comp.training.recipe import run_recipe, run_stage, starting_point
from llm2comp.training.recipe_file import read_recipe
from llm2comp.training.settings import ContrastiveSettings, ModelSettings
from tests.paths import BACKBONE
from tests.training.tiny import LORA, compression, small_model, supervised, text, write_corpus, write_pairs

MODEL = ModelSettings(backbone=str(BACKBONE), memory_tokens=2, max_length=64, adapter=LORA)


def train(settings: ContrastiveSettings, folder: Path, model: ModelSettings = MODEL) -> Path:
    return run_stage("supervised", settings, folder, starting_point(model, BACKBONE, None, settings), model, final=True)


def steps_of(folder: Path) -> list[int]:
    return [entry["step"] for entry in read_metrics(folder) if "loss" in entry]


def fingerprint(folder: Path) -> str:
    return llm2comp.load(folder, device="cpu").fingerprint


def test_more_updates_go_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    pairs, folder = write_pairs(tmp_path / "pairs.jsonl", 40), tmp_path / "run"
    fields: dict[str, Any] = {"learning_rate": 1e-3, "warmup_steps": 1}
    before = fingerprint(train(supervised(pairs, steps=4, **fields), folder))
    longer = supervised(pairs, steps=9, **{**fields, "warmup_steps": 2})
    assert train(longer, folder) == folder / "model"
    assert steps_of(folder) == list(range(1, 10)), "no update is made twice"
    rates = [entry["learning_rate"] for entry in read_metrics(folder) if "loss" in entry]
    assert rates[5] > rates[3], "the rate decays to the new end"
    assert fingerprint(folder / "model-4") == before
    after = fingerprint(folder / "model")
    assert after != before
    assert train(longer, folder) == folder / "model"
    assert fingerprint(folder / "model") == after, "it is finished"
    with pytest.raises(SettingsError, match="run was begun with other settings: steps was 9, now 4"):
        train(supervised(pairs, steps=4, **fields), folder)
    with pytest.raises(SettingsError, match=r"temperature was 0\.05, now 0\.1"):
        train(supervised(pairs, steps=20, temperature=0.1, **fields), folder)


def test_without_a_checkpoint_it_cannot_go_on(tmp_path: Path) -> None:
    pairs, folder = write_pairs(tmp_path / "pairs.jsonl", 40), tmp_path / "run"
    train(supervised(pairs, steps=2), folder)
    for checkpoint in folder.glob("checkpoint-*"):
        (checkpoint / "complete.json").unlink()
    with pytest.raises(SettingsError, match="finished after 2 updates, and has no checkpoint to go on from to 3"):
        train(supervised(pairs, steps=3), folder)
    assert (folder / "model" / "llm2comp.json").is_file()


def write(tmp_path: Path, steps: int, weights: str) -> Path:
    model = {"backbone": str(BACKBONE), "memory_tokens": 2, "max_length": 64, "adapter": None, "weights": weights}
    stage = {"pairs": [str(tmp_path / "pairs.jsonl")], "batch_size": 4, "heldout_rows": 0, "precision": "float32"}
    values = {"name": "mine", "about": "", "model": model, "supervised": {**stage, "steps": steps}}
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_the_last_stage_and_the_result_are_the_same_model(tmp_path: Path, weights: str) -> None:
    write_pairs(tmp_path / "pairs.jsonl", 20)
    result = run_recipe(read_recipe(write(tmp_path, 2, weights)), tmp_path / "run")
    assert fingerprint(result) == fingerprint(tmp_path / "run" / "supervised" / "model")
    sizes = {
        folder.parent.name: sum(file.stat().st_size for file in (folder / "backbone").glob("*.safetensors"))
        for folder in (result, tmp_path / "run" / "supervised" / "model")
    }
    assert len(set(sizes.values())) == 1, sizes


def test_a_recipe_with_more_updates_in_its_last_stage_makes_a_new_result(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.jsonl", 20)
    run = tmp_path / "run"
    before = fingerprint(run_recipe(read_recipe(write(tmp_path, 2, "float32")), run))
    after = fingerprint(run_recipe(read_recipe(write(tmp_path, 4, "float32")), run))
    assert after != before
    assert (fingerprint(run / "model-2"), fingerprint(run / "supervised" / "model-2")) == (before, before)
    assert steps_of(run / "supervised") == [1, 2, 3, 4]


def test_a_run_does_not_go_on_with_other_pairs(tmp_path: Path) -> None:
    pairs, folder = write_pairs(tmp_path / "pairs.jsonl", 40), tmp_path / "run"
    fields: dict[str, Any] = {"heldout_rows": 0, "save_steps": 2}
    train(supervised(pairs, steps=4, **fields), folder)
    shutil.rmtree(folder / "model")  # as if it had been killed before
    lines = pairs.read_text().splitlines(keepends=True)
    pairs.write_text("".join([*lines, lines[0]]))
    with pytest.raises(SettingsError, match="run was begun with other data: pairs had 40 rows, now 41. Give the same"):
        train(supervised(pairs, steps=4, **fields), folder)
    pairs.write_text("".join([lines[1], lines[0], *lines[2:]]))
    with pytest.raises(SettingsError, match="the rows of pairs are others"):
        train(supervised(pairs, steps=4, **fields), folder)
    pairs.rename(tmp_path / "others.jsonl")
    pairs = write_pairs(tmp_path / "pairs.jsonl", 45)
    train(supervised(pairs, steps=6, **fields), folder)
    assert steps_of(folder) == list(range(1, 7)), "more updates may have more rows behind those of before"


def test_a_run_does_not_go_on_with_other_texts(tmp_path: Path) -> None:
    folder, fields = tmp_path / "run", {"batch_size": 2, "save_steps": 1}
    texts = [text(number, 60) for number in range(12)]
    corpus = write_corpus(tmp_path / "corpus.jsonl", texts)
    train_compression(small_model(), compression(corpus, steps=2, **fields), folder)
    train_compression(small_model(), compression(corpus, steps=3, **fields), folder)
    write_corpus(corpus, texts[1:])
    with pytest.raises(SettingsError, match="run was begun with other data: the rows of texts are others"):
        train_compression(small_model(), compression(corpus, steps=3, **fields), folder)
