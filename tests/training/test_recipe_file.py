"""Files of recipes: shipped ones load, and bad ones are refused by field."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.errors import SettingsError
from llm2comp.training.recipe_file import read_recipe, shipped_recipes
from llm2comp.training.run_folder import changed_fields, settings_values
from llm2comp.training.settings import ContrastiveSettings
from llm2comp.training.sources import check_sources


def test_every_shipped_recipe_loads_and_no_two_are_alike() -> None:
    loaded = {
        name: settings_values(read_recipe(name, data=Path("/data"), pairs=Path("/run/pairs")))
        for name in shipped_recipes()
    }
    assert {"llama-2-7b-paper", "llm2comp-small", "llm2comp-tiny", "qwen3-0.6b"} <= set(loaded)
    for name, values in loaded.items():
        assert values["name"] == name
        assert "{" not in json.dumps({key: value for key, value in values.items() if key != "about"}).replace(
            '{"', ""
        ).replace("{}", "")
    for one, other in itertools.combinations(loaded.values(), 2):
        assert one["model"]["backbone"] != other["model"]["backbone"]
        assert changed_fields(
            {**one, "name": "", "about": "", "model": {}}, {**other, "name": "", "about": "", "model": {}}
        )


def test_the_paper_recipe_holds_the_papers_numbers() -> None:
    recipe = read_recipe("llama-2-7b-paper", data=Path("/data"), pairs=Path("/run/pairs"))
    assert recipe.compression
    assert recipe.unsupervised
    assert recipe.supervised
    assert recipe.compression.steps * recipe.compression.batch_size == 32_000
    assert recipe.unsupervised.steps * recipe.unsupervised.batch_size == 128_000
    assert recipe.supervised.steps * recipe.supervised.batch_size == 204_800
    assert recipe.model.adapter == AdapterSettings(
        rank=16, alpha=32, dropout=0.05, targets=("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    )
    assert (recipe.compression.clip, recipe.compression.weight_decay, recipe.compression.margin) == (2.0, 1e-5, 10)
    assert (recipe.unsupervised.attention_dropout, recipe.unsupervised.freeze_memory, recipe.unsupervised.adapter) == (
        0.2,
        True,
        "merge",
    )
    assert (
        recipe.supervised.max_query_tokens,
        recipe.supervised.max_passage_tokens,
        recipe.supervised.temperature,
    ) == (512, 1024, 0.05)


SMALL: dict[str, Any] = {
    "name": "a",
    "about": "{anything}",
    "model": {"backbone": "b"},
    "compression": {"corpora": ["{data}/c.jsonl"], "steps": 10, "batch_size": 4, "learning_rate": 1e-3},
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": 3}, "r.yaml: unknown field stages; known: name, about, model"),
        ({"name": None}, "r.yaml: name is None; expected a text"),
        ({"model": {"backbone": "b", "memory": 8}}, "r.yaml: model: unknown field memory"),
        ({"model": {}}, "r.yaml: give either model.backbone or pretrain"),
        (
            {"model": {"backbone": "b", "adapter": {"rank": "x"}}},
            "r.yaml: model: adapter: rank is 'x'; expected a whole number",
        ),
        (
            {"model": {"backbone": "b", "max_length": 100}, "compression": {**SMALL["compression"], "max_tokens": 512}},
            "r.yaml: compression.max_tokens 512 and model.memory_tokens 8 exceed model.max_length 100",
        ),
        ({"compression": {**SMALL["compression"], "steps": -1}}, "r.yaml: compression: steps is -1"),
        (
            {"compression": {**SMALL["compression"], "max_tokens": 9, "margin": 10}},
            "r.yaml: compression: max_tokens 9 leaves no room",
        ),
        ({"compression": None}, "r.yaml: give compression, unsupervised or supervised"),
        (
            {"unsupervised": {"pairs": ["p"], "steps": 1, "batch_size": 1, "learning_rate": 1.0}},
            "r.yaml: unsupervised needs corpora",
        ),
        (
            {"supervised": {"corpora": ["p"], "steps": 1, "batch_size": 1, "learning_rate": 1.0}},
            "r.yaml: supervised needs pairs",
        ),
        (
            {"supervised": {"pairs": ["{pairs}"], "steps": 1, "batch_size": 1, "learning_rate": 1.0}},
            "supervised.pairs reads {pairs}, which only derive makes",
        ),
        (
            {"derive": {"articles": ["a"], "query_words": [1, 2, 3]}},
            r"r.yaml: derive: query_words is \[1, 2, 3\]; expected a list of 2",
        ),
        ({"base": "nothing"}, "no recipe 'nothing': give a .yaml file or one of llama-2-7b-paper"),
        ({"base": "r.yaml"}, "base is 'r.yaml'; give the name of another recipe"),
    ],
)
def test_a_bad_recipe_is_refused_by_file_and_field(
    changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(yaml.safe_dump({**SMALL, **changes}), encoding="utf-8")
    with pytest.raises(SettingsError, match=message) as refused:
        read_recipe("r.yaml", data=Path("/data"), pairs=Path("/run/pairs"))
    assert "\n" not in str(refused.value)


def test_data_must_be_named(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    with pytest.raises(
        SettingsError,
        match=r"r.yaml: compression: corpora\[0\] reads texts from {data}: say where they are with --data DIR",
    ):
        read_recipe(path)
    assert read_recipe(path, data=Path("/data")).about == "{anything}"


def test_a_recipe_is_laid_over_its_base_beside_it(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    (tmp_path / "r.yaml").write_text("{name: c, about: d, base: base.yaml, compression: {steps: 99}}", encoding="utf-8")
    recipe = read_recipe(tmp_path / "r.yaml", data=Path("/data"))
    assert recipe.compression
    assert (recipe.name, recipe.compression.steps, recipe.compression.batch_size, recipe.compression.corpora) == (
        "c",
        99,
        4,
        ("/data/c.jsonl",),
    )


def test_a_folder_of_a_recipes_name_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`llm2comp train recipe llm2comp-tiny -o llm2comp-tiny`, twice."""
    monkeypatch.chdir(tmp_path)
    Path("llm2comp-tiny").mkdir()
    assert read_recipe("llm2comp-tiny", data=Path("/data"), pairs=Path("/p")).name == "llm2comp-tiny"


def test_missing_sources_are_named_before_anything_is_trained(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        yaml.safe_dump({**SMALL, "derive": {"articles": ["{data}/c.jsonl"], "docstrings": ["python-docs:all"]}}),
        encoding="utf-8",
    )
    recipe = read_recipe(path, data=tmp_path, pairs=tmp_path / "pairs")
    with pytest.raises(SettingsError, match=r"derive.articles\[0\]: no file or folder '.*/c.jsonl'"):
        check_sources(recipe)
    (tmp_path / "c.jsonl").touch()
    check_sources(recipe)
    supervised = ContrastiveSettings(pairs=(str(tmp_path / "pairs"),), steps=1, batch_size=1, learning_rate=1.0)
    check_sources(supervised, made={str(tmp_path / "pairs")})
    with pytest.raises(SettingsError, match=r"pairs\[0\]: no file or folder"):
        check_sources(supervised)
