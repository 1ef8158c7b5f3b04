"""Fields that are left out follow from the model and the steps; all mistakes are named at once."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm2comp.errors import SettingsError
from llm2comp.training import recipe_file
from llm2comp.training.defaults import fill_model, fill_stage
from llm2comp.training.limits import BackboneLimits, TrainedLimits, backbone_limits, trained_limits
from llm2comp.training.recipe_file import Recipe, read_recipe, shipped_recipes
from llm2comp.training.run_folder import settings_values
from llm2comp.training.settings_file import to_settings
from tests.paths import BACKBONE
from tests.training.tiny import write_corpus


def fill(name: str, *, max_length: int = 1024, trained: bool = False, **values: Any) -> dict[str, Any]:
    return fill_stage(name, values, max_length=max_length, memory_tokens=8, memory_trained=trained)


def test_the_papers_steps_give_the_papers_schedule() -> None:
    """Numbers of section 4 and of the published code: warm-up 800 of 8,000, 100 of 1,000; rates 1e-4 and 3e-5."""
    first, second = fill("compression"), fill("unsupervised", trained=True)
    assert [first[name] for name in ("steps", "batch_size", "warmup_steps", "max_tokens", "margin")] == [
        8000,
        4,
        800,
        512,
        10,
    ]
    assert (first["learning_rate"], first["min_characters"], first["clip"]) == (1e-4, 1000, 2.0)
    assert first["learning_rate_floor"] == pytest.approx(1e-5)
    assert [second[name] for name in ("steps", "batch_size", "warmup_steps", "freeze_memory")] == [1000, 128, 100, True]
    third = fill("supervised", decay_steps=2000)
    assert (third["warmup_steps"], third["max_query_tokens"], third["adapter"]) == (200, 512, "merge")


def test_few_steps_have_a_short_warmup_and_checkpoints_on_the_way() -> None:
    values = fill("compression", steps=40)
    assert [values[name] for name in ("warmup_steps", "save_steps", "eval_steps", "log_steps")] == [4, 4, 4, 2]
    assert "decay_steps" not in values, "the decay ends with the last update"
    one = fill("supervised", steps=1)
    assert [one[name] for name in ("warmup_steps", "save_steps", "log_steps")] == [0, 1, 1]


def test_lengths_stay_within_the_models() -> None:
    values = fill("compression", max_length=128)
    assert (values["max_tokens"], values["min_characters"], values["margin"]) == (120, 240, 10)
    assert fill("mntp", max_length=128)["max_tokens"] == 128, "no memory tokens beside the text"
    assert "max_query_tokens" not in fill("supervised", max_length=512)
    assert fill_model({"backbone": "b"}, BackboneLimits(512)) == ({"backbone": "b", "max_length": 512}, [])
    assert fill_model({"backbone": "b"}, BackboneLimits(8192))[0]["max_length"] == 1024
    assert fill_model({"layers": 4}, BackboneLimits(512, 4))[1] == []
    assert fill_model({"max_length": 600}, BackboneLimits(512))[1] == [
        "model: max_length 600 exceeds the language model's own maximum, 512"
    ]


def test_what_is_given_stays() -> None:
    given = {"steps": 7, "warmup_steps": 0, "learning_rate_floor": 0.0, "save_steps": 3, "min_characters": 5}
    values = fill("compression", **given)
    assert {name: values[name] for name in given} == given


def test_memory_tokens_that_nothing_has_trained_are_not_frozen() -> None:
    assert fill("unsupervised")["freeze_memory"] is False


def test_limits_are_read_without_loading(tmp_path: Path) -> None:
    config = json.loads((BACKBONE / "config.json").read_text())
    assert backbone_limits(BACKBONE) == (config["max_position_embeddings"], config["num_hidden_layers"])
    assert backbone_limits("llm2comp-tiny") == (512, None)
    assert trained_limits("llm2comp-tiny") == TrainedLimits(512, 8)
    assert trained_limits(BACKBONE) is None
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"max_position_embeddings": 77, "n_layer": 3}}))
    assert backbone_limits(tmp_path) == (77, 3)
    (tmp_path / "config.json").write_text("{")
    assert backbone_limits(tmp_path) == BackboneLimits()
    assert backbone_limits(tmp_path / "none.gguf") == BackboneLimits()


def test_all_mistakes_of_all_stages_are_named_at_once(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", ["a text"])
    recipe = {
        "name": "mine",
        "about": "",
        "model": {"backbone": str(BACKBONE), "max_length": 100_000, "layers": 99, "memory_token": 8},
        "compression": {"corpora": [str(corpus)], "steps": "many", "max_token": 40},
        "unsupervised": {"corpora": ["nowhere.jsonl"], "warmup_steps": 99, "steps": 40, "batch_size": 0},
        "supervised": {"pairs": ["{pairs}"], "learning_rate": 0},
    }
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump(recipe))
    with pytest.raises(SettingsError) as refused:
        read_recipe(file, pairs=tmp_path / "pairs", sources=True)
    expected = {
        "model: max_length 100000 exceeds the language model's own maximum, 1024",
        "model: layers 99 exceeds the language model's number of layers, 3",
        "supervised.pairs reads {pairs}, which only derive makes; add derive or name the files",
        "unsupervised.corpora[0]: no file or folder 'nowhere.jsonl'",
        "model: unknown field memory_token; did you mean memory_tokens?",
        "compression: unknown field max_token; did you mean max_tokens?",
        "compression: steps is 'many'; expected a whole number",
        "unsupervised: batch_size is 0; it must be at least 1",
        "unsupervised: warmup_steps 99 must be below steps 40",
        "supervised: learning_rate_floor 0.0 and learning_rate 0.0: give 0 <= floor <= rate and a rate above 0",
    }
    assert {problem.removeprefix(f"{file}: ") for problem in refused.value.problems} == expected


def test_a_recipe_of_ones_own_needs_no_rates(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    model = {"backbone": str(BACKBONE)}
    stages = {"compression": {"corpora": ["c"], "steps": 40}, "supervised": {"pairs": ["p"], "steps": 40}}
    file.write_text(yaml.safe_dump({"name": "mine", "about": "", "model": model, **stages}))
    recipe = read_recipe(file)
    assert recipe.compression is not None
    assert recipe.supervised is not None
    assert (recipe.compression.learning_rate, recipe.supervised.learning_rate) == (1e-4, 1e-4)
    assert recipe.compression.max_tokens + recipe.model.memory_tokens <= recipe.model.max_length


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_name_every_field_that_a_default_would_change(name: str) -> None:
    """Their models stay the same: what decides the weights does not depend on the defaults."""
    folders = {"data": Path("/data"), "pairs": Path("/run/pairs")}
    places = {"{data}": folders["data"], "{pairs}": folders["pairs"], "{long_pairs}": Path("/run/long_pairs")}
    named = settings_values(to_settings(Recipe, recipe_file._values(name, places), where=name))
    filled = settings_values(read_recipe(name, **folders))
    reports = ("eval_steps", "log_steps", "save_steps")
    for stage in ("pretrain", "compression", "unsupervised", "supervised", "lengthen"):
        differing = {field for field, value in (filled[stage] or {}).items() if named[stage][field] != value}
        assert differing <= set(reports), (stage, differing)
    assert filled["model"] == named["model"]


def test_trackers_are_a_text_or_a_list(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    stage = {"pairs": ["p"], "report_to": "tensorboard"}
    file.write_text(yaml.safe_dump({"name": "a", "about": "", "model": {"backbone": "b"}, "supervised": stage}))
    recipe = read_recipe(file)
    assert recipe.supervised is not None
    assert recipe.supervised.report_to == ("tensorboard",)


def test_a_recipe_of_ones_own_has_the_name_of_its_file(tmp_path: Path) -> None:
    stage: dict[str, object] = {"pairs": ["p.jsonl"], "report_to": "wandb, mlflow"}
    values = {"model": {"backbone": str(BACKBONE)}, "supervised": stage}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    recipe = read_recipe(tmp_path / "mine.yaml")
    assert (recipe.name, recipe.about) == ("mine", "")
    assert recipe.supervised is not None
    assert recipe.supervised.report_to == ("wandb", "mlflow")
    stage["pairs"] = "p.jsonl"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(SettingsError, match=r"pairs is 'p\.jsonl'; expected a list, such as \['p\.jsonl'\]"):
        read_recipe(tmp_path / "mine.yaml")
