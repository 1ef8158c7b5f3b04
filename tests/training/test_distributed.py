"""Two processes train like one: the same losses from the same global batches, each file written once."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

import llm2comp
from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.training.compression import train_compression
from llm2comp.training.contrastive import train_contrastive
from llm2comp.training.metrics import read_metrics
from llm2comp.training.pretrain import pretrain
from llm2comp.training.recipe import run_recipe
from llm2comp.training.recipe_file import read_recipe
from llm2comp.training.settings import BackboneShape, PretrainSettings
from llm2comp.training.token_trainer import TokenTrainer
from tests.training.processes import run_on_devices
from tests.training.tiny import (
    BACKBONE,
    LORA,
    compression,
    environment,
    small_model,
    supervised,
    text,
    unsupervised,
    write_corpus,
    write_pairs,
    write_recipe,
)

COMMON: dict[str, Any] = {"steps": 6, "batch_size": 8, "eval_steps": 3, "save_steps": 2, "learning_rate": 2e-3}


def compress(data: Path, output: Path, objective: str, adapter: bool) -> None:
    settings = compression(data / "corpus.jsonl", heldout=str(data / "heldout.jsonl"), objective=objective, **COMMON)
    train_compression(small_model(adapter=LORA if adapter else None), settings, output)


def contrast(data: Path, output: Path, micro_batch: int | None, accumulation: int, **fields: Any) -> None:
    settings = supervised(
        data / "pairs",
        max_negatives=2,
        micro_batch=micro_batch,
        accumulation=accumulation,
        heldout_rows=4,
        **COMMON,
        **fields,
    )
    train_contrastive(small_model(), settings, output)


def interact(data: Path, output: Path, micro_batch: int | None) -> None:
    contrast(data, output, micro_batch, 1, maxsim_weight=0.5, diversity_weight=0.3)


def simcse(data: Path, output: Path) -> None:
    train_contrastive(
        small_model(adapter=None), unsupervised(data / "corpus.jsonl", freeze_memory=True, **COMMON), output
    )


def stage_zero(data: Path, output: Path) -> None:
    shape = BackboneShape(vocabulary=300, hidden=16, layers=2, heads=2, intermediate=32, max_positions=64)
    corpora, heldout = (str(data / "corpus.jsonl"),), str(data / "heldout.jsonl")
    pretrain(
        PretrainSettings(
            corpora=corpora,
            heldout=heldout,
            shape=shape,
            sequence_length=32,
            log_steps=1,
            precision="float32",
            **COMMON,
        ),
        output,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_corpus(folder / "corpus.jsonl", [text(number, 20 + number) for number in range(40)])
    write_corpus(folder / "heldout.jsonl", [text(500 + number, 50) for number in range(8)])
    (folder / "pairs").mkdir()
    for place in range(3):  # sets with 0, 1 and 2 hard negatives: what the devices gather must fit together
        write_pairs(folder / "pairs" / f"set{place}.jsonl", 60, negatives=place, start=100 * place)
    return folder


@pytest.mark.parametrize(
    ("train", "options"),
    [
        (compress, ("distillation", True)),
        (compress, ("continuation", False)),
        (contrast, (None, 1)),
        (contrast, (2, 1)),
        (contrast, (None, 2)),
        (interact, (None,)),
        (interact, (2,)),
        (simcse, ()),
        (stage_zero, ()),
    ],
    ids=[
        "distillation",
        "continuation, all weights",
        "pairs",
        "pairs, micro-batches",
        "pairs, accumulated",
        "late interaction",
        "late interaction, micro-batches",
        "sentences",
        "pretraining",
    ],
)
def test_two_devices_follow_one(train: Any, options: tuple[Any, ...], data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "one", *options)
    run_on_devices(2, train, data, tmp_path / "two", *options)
    one, two = read_metrics(tmp_path / "one"), read_metrics(tmp_path / "two")
    if options == (None, 2):  # each pass has its own candidates, and the devices' share of one is half as large
        one, two = (
            [{**entry, "loss": 0.0, "grad_norm": 0.0} for entry in entries if "loss" in entry] for entries in (one, two)
        )
    assert [entry.keys() for entry in two] == [entry.keys() for entry in one]
    for here, there in zip(one, two, strict=True):
        for name in here:
            if not name.endswith(("runtime", "tokens_per_second")):
                assert there[name] == pytest.approx(here[name], abs=1e-4, rel=1e-3 if name == "grad_norm" else 1e-5), (
                    name,
                    here["step"],
                )
    checkpoint = tmp_path / "two" / "checkpoint-6"
    assert {"rng_state_0.pth", "rng_state_1.pth", "complete.json"} <= {path.name for path in checkpoint.iterdir()}
    if options != (None, 2):
        expected = load_file(tmp_path / "one" / "checkpoint-6" / "trained.safetensors")
        actual = load_file(checkpoint / "trained.safetensors")
        assert actual.keys() == expected.keys()
        assert max(float((actual[name] - tensor).abs().max()) for name, tensor in expected.items()) < 1e-3


class AtStep(TrainerCallback):
    """Does something before an update."""

    def __init__(self, step: int, action: Callable[[Any], None]) -> None:
        self.step, self.action = step, action

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step == self.step - 1:
            self.action(model)


def compress_until(data: Path, output: Path, step: int, spoil: bool) -> None:
    """Trains with dropout; before the update, ends the process or, on the second device only, makes a weight NaN."""
    rank = int(os.environ["RANK"])

    def act(model: Any) -> None:
        if not spoil:
            os._exit(0)
        if rank == 1:
            model.encoder.memory.data[0, 0] = float("nan")

    settings = compression(data / "corpus.jsonl", **COMMON)
    setattr(TokenTrainer, "begin", lambda trainer: trainer.add_callback(AtStep(step, act)))  # noqa: B010  in this process alone
    train_compression(small_model(adapter=AdapterSettings(rank=4, alpha=8, dropout=0.2)), settings, output)


def test_two_devices_go_on_where_they_were(data: Path, tmp_path: Path) -> None:
    run_on_devices(2, compress_until, data, tmp_path / "whole", 99, False)
    run_on_devices(2, compress_until, data, tmp_path / "killed", 6, False)
    assert not (tmp_path / "killed" / "checkpoint-6").exists()
    run_on_devices(2, compress_until, data, tmp_path / "killed", 99, False)
    expected, actual = (
        load_file(tmp_path / name / "checkpoint-6" / "trained.safetensors") for name in ("whole", "killed")
    )
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name


def whole_recipe(path: Path, output: Path) -> None:
    run_recipe(read_recipe(path, data=path.parent / "data", pairs=output / "pairs"), output)


def test_two_devices_make_a_model_by_a_recipe(tmp_path: Path) -> None:
    recipe, output = write_recipe(tmp_path), tmp_path / "run"
    run_on_devices(2, whole_recipe, recipe, output)
    model = llm2comp.load(output / "model", device="cpu")
    assert model.stages == ["compression:distillation", "unsupervised", "supervised"]
    for stage, last in (("pretrain", 14), ("compression", 11), ("unsupervised", 10), ("supervised", 13)):
        assert [entry["step"] for entry in read_metrics(output / stage) if "loss" in entry] == list(range(1, last + 1))
    assert not [path for path in output.rglob(".*") if path.name != ".lock"]
    run_on_devices(2, whole_recipe, recipe, output)


def test_not_a_number_on_one_device_stops_them_all(data: Path, tmp_path: Path) -> None:
    run_on_devices(2, compress_until, data, tmp_path, 4, True, ends=1)
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-2"]
    saved = load_file(tmp_path / "checkpoint-2" / "trained.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in saved.values())
    assert [entry["step"] for entry in read_metrics(tmp_path) if "loss" in entry] == [1, 2, 3]


@pytest.mark.slow
def test_torchrun_runs_the_command(data: Path, tmp_path: Path) -> None:
    fields = {
        "steps": 4,
        "batch_size": 4,
        "warmup_steps": 1,
        "learning_rate": 2e-3,
        "log_steps": 1,
        "save_steps": 2,
        "min_characters": 60,
        "max_tokens": 40,
        "precision": "float32",
    }
    arguments = [str(BACKBONE), "-c", str(data / "corpus.jsonl"), "--max-length", "64", "--rank", "0"]
    for name, value in fields.items():
        arguments += ["--set", f"{name}={value}"]
    losses = {}
    for devices in (1, 2):
        torchrun = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            str(devices),
            "-m",
            "llm2comp",
            "train",
            "compress",
        ]
        command = [*torchrun, *arguments, "-o", str(tmp_path / str(devices))]
        ran = subprocess.run(command, env={**environment(), "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.splitlines().count(str(tmp_path / str(devices) / "model")) == 1
        assert sum(line.startswith("step 1/4 ") for line in ran.stdout.splitlines()) == 1
        losses[devices] = [entry["loss"] for entry in read_metrics(tmp_path / str(devices)) if "loss" in entry]
    assert len(losses[1]) == 4
    assert losses[2] == pytest.approx(
        losses[1], abs=1e-4
    )  # all weights are trained, for an adapter's dropout is drawn by each device
    assert (tmp_path / "2" / "model" / "llm2comp.json").is_file()
    assert not [path for path in os.listdir(tmp_path / "2") if path.startswith(".model")]
