"""Settings are refused before anything is loaded, by the field's name."""

import subprocess
import sys
from typing import Any

import pytest

from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.errors import SettingsError
from llm2comp.training.settings import (
    BackboneShape,
    CompressionSettings,
    ContrastiveSettings,
    ModelSettings,
    PretrainSettings,
)
from llm2comp.training.settings_file import read_fields, to_settings
from tests.training.tiny import environment

STAGE: dict[str, Any] = {"steps": 10, "batch_size": 8, "learning_rate": 1e-3}
SHAPE: dict[str, Any] = {"vocabulary": 300, "hidden": 16, "layers": 1, "heads": 2, "intermediate": 32}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"save_steps": 0}, "save_steps is 0"),
        ({"warmup_steps": -1}, "warmup_steps is -1"),
        ({"warmup_steps": 10}, "warmup_steps 10 must be below steps 10"),
        ({"warmup_steps": 10, "decay_steps": 10}, "warmup_steps 10 must be below decay_steps 10"),
        ({"decay_steps": 5}, "decay_steps 5 must not be below steps 10"),
        ({"learning_rate": 0.0}, "learning_rate_floor 0.0 and learning_rate 0.0"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"learning_rate_floor": 1.0}, "learning_rate_floor 1.0 and learning_rate 0.001"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; give a finite number"),
        ({"weight_decay": float("inf")}, "weight_decay is inf"),
        ({"accumulation": 3}, "batch_size 8 must be a multiple of accumulation 3"),
        ({"precision": "half"}, "precision is 'half'; give auto or bfloat16 or float32"),
        ({"objective": "kl"}, "objective is 'kl'; give distillation or continuation or reconstruction"),
        ({"corpora": ()}, "corpora is empty"),
        ({"heldout": "a"}, "heldout 'a' is also in corpora"),
        ({"margin": 0}, "margin is 0"),
        ({"chunk_rows": 0}, "chunk_rows is 0"),
        ({"max_tokens": 20}, "max_tokens 20 leaves no room for a split with margin 10 on both sides"),
    ],
)
def test_compression(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        CompressionSettings(**{"corpora": ("a",), **STAGE, **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"corpora": ("a",)}, "give either corpora .* or pairs"),
        ({"pairs": ()}, "give either corpora .* or pairs"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"similarity": "l2"}, "similarity is 'l2'; give cosine or dot"),
        ({"attention_dropout": 1.0}, "attention_dropout is 1.0"),
        ({"attention_dropout": -0.1}, "attention_dropout is -0.1"),
        ({"heldout_rows": -1}, "heldout_rows is -1"),
        ({"max_negatives": -1}, "max_negatives is -1"),
        ({"micro_batch": 9}, "micro_batch 9 must be between 1 and batch_size 8"),
        ({"micro_batch": 0}, "micro_batch 0"),
        ({"mixture": {"a": -1.0, "b": 1.0}}, "mixture of a must be a finite number of at least 0"),
        ({"pairs": (), "corpora": ("c",), "mixture": {"a": 1.0}}, "mixture weighs the data sets of pairs"),
        ({"adapter": "drop"}, "adapter is 'drop'; give keep or merge"),
    ],
)
def test_contrastive(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        ContrastiveSettings(**{"pairs": ("a",), **STAGE, **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vocabulary": 258}, "vocabulary is 258; give between 259"),
        ({"vocabulary": 65_537}, "vocabulary is 65537; .* and 65536"),
        ({"heads": 0}, "heads is 0"),
        ({"heads": 3}, "hidden 16 / heads 3 must be an even whole number"),
        ({"hidden": 6}, "hidden 6 / heads 2 must be an even whole number"),
    ],
)
def test_backbone_shape(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        BackboneShape(**{**SHAPE, **fields})
    BackboneShape(**{**SHAPE, "vocabulary": 65_536})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"corpora": ()}, "corpora is empty"),
        ({"heldout": "a"}, "heldout 'a' is also in corpora"),
        ({"sequence_length": 4096}, "sequence_length 4096 exceeds shape.max_positions 2048"),
        ({"sequence_length": 1}, "sequence_length is 1"),
        ({"tokenizer_share": 0.0}, "tokenizer_share is 0.0"),
    ],
)
def test_pretrain(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        PretrainSettings(**{"corpora": ("a",), "heldout": "b", "shape": BackboneShape(**SHAPE), **STAGE, **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"memory_tokens": 0}, "memory_tokens is 0"),
        ({"max_length": 9}, "max_length 9 leaves no room for a text beside memory_tokens 8"),
        ({"weights": "float16"}, "weights is 'float16'"),
        ({"pooling": {"mode": "max"}}, "pooling is {'mode': 'max'}; give {mode: mean}"),
        ({"pooling": {"mode": "cluster"}}, "pooling"),
        ({"pooling": {"mode": "mean", "threshold": 0.5}}, "pooling"),
    ],
)
def test_model(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        ModelSettings(**fields)
    ModelSettings(pooling={"mode": "cluster", "threshold": 0.9})


@pytest.mark.parametrize("fields", [{"rank": 0}, {"dropout": 1.0}, {"dropout": float("nan")}])
def test_adapter(fields: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="an adapter of rank"):
        AdapterSettings(**fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step: 3", "here: unknown field step; did you mean steps?"),
        ("1: 3", "here: unknown field 1"),
        ("steps: 10", "here: batch_size, corpora, learning_rate must be given"),
        ("steps: ten", "here: steps is 'ten'; expected a whole number"),
        ("steps: true", "here: steps is True; expected a whole number"),
        ("steps: 1.5", "here: steps is 1.5; expected a whole number"),
        ("learning_rate: fast", "here: learning_rate is 'fast'; expected a number"),
        ("gradient_checkpointing: 1", "here: gradient_checkpointing is 1; expected true or false"),
        ("corpora: a.jsonl", "here: corpora is 'a.jsonl'; expected a list"),
        ("corpora: [1]", r"here: corpora\[0\] is 1; expected a text"),
        ("heldout: [a]", "here: heldout is \\['a'\\]; expected a text"),
        ("objective: kl", "here: objective is 'kl'; give distillation or continuation or reconstruction"),
        ("- a", "here: expected fields with values, such as `steps: 1000`, found list"),
        ("", "here: expected fields with values, such as `steps: 1000`, found NoneType"),
        ("steps: [1", "here: .*expected ',' or '\\]'"),
        ("{steps: 1, clip: 2.0, steps: 3}", "here: steps is given twice"),
    ],
)
def test_values_from_a_file(text: str, message: str) -> None:
    needed = "" if "must be given" in message else "{steps: 10, batch_size: 8, learning_rate: 1e-3, corpora: [a]}"

    def read() -> CompressionSettings:
        values = read_fields(text, "here")
        return to_settings(
            CompressionSettings, {**(read_fields(needed, "here") if needed else {}), **values}, where="here"
        )

    with pytest.raises(SettingsError, match=message) as refused:
        read()
    assert "\n" not in str(refused.value)


def test_numbers_lists_and_nothing_are_taken_as_written() -> None:
    values = read_fields(
        "{steps: 10, batch_size: 8, learning_rate: 1e-3, clip: 2, corpora: [a, b], heldout: null}", "here"
    )
    settings = to_settings(CompressionSettings, values, where="here")
    assert (settings.learning_rate, settings.clip, settings.corpora, settings.heldout) == (0.001, 2.0, ("a", "b"), None)
    with pytest.raises(SettingsError, match="here: learning_rate is nan; give a finite number"):
        to_settings(CompressionSettings, {**values, "learning_rate": "nan"}, where="here")


def test_settings_load_nothing_heavy() -> None:
    training = ("recipe_file", "settings", "pairs.settings", "sources")
    modules = ", ".join(["llm2comp.cli", *(f"llm2comp.training.{name}" for name in training)])
    heavy = {"torch", "transformers", "datasets", "numpy", "peft", "faiss"}
    code = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_fields_that_are_right_are_checked_beside_others_that_are_not() -> None:
    values = {**STAGE, "pair": ["p"], "warmup_steps": 800, "micro_batch": 64, "temperature": "hot", "loss": "ctkd"}
    with pytest.raises(SettingsError) as refused:
        to_settings(ContrastiveSettings, values, where="here")
    problems = [problem.split(";")[0] for problem in refused.value.problems]
    assert problems == [
        "here: unknown field pair",
        "here: unknown field loss",
        "here: temperature is 'hot'",
        "here: warmup_steps 800 must be below steps 10",
        "here: micro_batch 64 must be between 1 and batch_size 8",
    ], "and that there are no pairs follows from the first"
    assert "unknown field pair; did you mean pairs?" in refused.value.problems[0]
    with pytest.raises(SettingsError, match=r"unknown field memory; did you mean memory_tokens\?"):
        to_settings(ModelSettings, {"memory": 4}, where="here")
    assert "unknown field loss; known: steps, " in refused.value.problems[1]
