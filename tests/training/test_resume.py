"""A run that was interrupted ends like one that was not."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.model import LLM2Comp
from llm2comp.training import loop
from llm2comp.training.checkpoints import last_checkpoint, seal, trained_weights
from llm2comp.training.compression import train_compression
from llm2comp.training.contrastive import train_contrastive
from llm2comp.training.metrics import read_metrics
from llm2comp.training.settings import CompressionSettings
from tests.training.interruption import KillAfter, Killed, at_start, write_checkpoint
from tests.training.tiny import (
    compression,
    small_model,
    supervised,
    text,
    unsupervised,
    weights_of,
    write_corpus,
    write_pairs,
)

DROPOUT = AdapterSettings(rank=4, alpha=8, dropout=0.2)
Train = Callable[..., LLM2Comp]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", [text(number, 40) for number in range(30)])


@pytest.fixture(
    params=["compression", "compression, all weights", "unsupervised", "supervised", "supervised, merged, cached"]
)
def train(request: pytest.FixtureRequest, corpus: Path, tmp_path: Path) -> Train:
    """Trains a stage with dropout, more updates than the data fill, and checkpoints between the passes over them."""
    pairs = write_pairs(tmp_path / "pairs.jsonl", 26, negatives=1)
    heldout = str(write_corpus(tmp_path / "heldout.jsonl", [text(300 + number, 40) for number in range(6)]))
    common: dict[str, Any] = {"steps": 9, "batch_size": 6, "save_steps": 2, "learning_rate": 5e-3, "eval_steps": 2}

    def run(folder: Path) -> LLM2Comp:
        model = small_model(adapter=None if "all weights" in request.param else DROPOUT)
        if request.param.startswith("compression"):
            return train_compression(
                model, compression(corpus, heldout=heldout, objective="continuation", **common), folder
            )
        if request.param == "unsupervised":
            return train_contrastive(
                model, unsupervised(corpus, attention_dropout=0.1, heldout_rows=2, **common), folder
            )
        more = {"adapter": "merge", "micro_batch": 4} if "merged" in request.param else {}
        return train_contrastive(
            model, supervised(pairs, max_negatives=1, heldout_rows=2, **common, **more), folder, fresh_adapter=DROPOUT
        )

    return run


def test_an_interrupted_stage_ends_with_the_same_weights(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(tmp_path / "whole")
    with monkeypatch.context() as patch:
        at_start(patch, KillAfter(7))
        with pytest.raises(Killed):
            train(tmp_path / "killed")
    assert last_checkpoint(tmp_path / "killed") == tmp_path / "killed" / "checkpoint-6"
    checked: list[bool] = []
    load = torch.load

    def load_and_note(*args: Any, **kwargs: Any) -> Any:
        checked.append(kwargs["weights_only"])
        return load(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", load_and_note)
        resumed = train(tmp_path / "killed")
    assert checked == [True] * 3, "optimizer, schedule and random states, none of them unpickled"
    assert weights_of(resumed).keys() == weights_of(expected).keys()
    for name, weight in weights_of(expected).items():
        assert torch.equal(weights_of(resumed)[name], weight), name
    assert without_times(tmp_path / "killed") == without_times(tmp_path / "whole")
    third = train(tmp_path / "killed")
    for name, weight in weights_of(expected).items():
        assert torch.equal(weights_of(third)[name], weight), "a run at its last step took another one"


def without_times(folder: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in entry.items() if not name.endswith(("runtime", "per_second"))}
        for entry in read_metrics(folder)
    ]


def test_checkpoints_hold_what_is_trained_and_not_the_backbone(corpus: Path, tmp_path: Path) -> None:
    model = small_model(adapter=DROPOUT)
    train_compression(model, compression(corpus, save_steps=2), tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint-4"
    names = {path.name for path in checkpoint.iterdir()}
    assert names == {
        "trained.safetensors",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "trainer_state.json",
        "complete.json",
    }
    saved = load_file(checkpoint / "trained.safetensors")
    assert "encoder.memory" in saved
    assert all("lora_" in name for name in saved if name != "encoder.memory")
    assert sum(tensor.numel() for tensor in saved.values()) == sum(
        weight.numel() for weight in trained_weights(model).values()
    )
    backbone = sum(weight.numel() for weight in model.parameters()) - sum(tensor.numel() for tensor in saved.values())
    assert sum(path.stat().st_size for path in checkpoint.iterdir()) < 4 * backbone
    assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]


def test_a_half_written_checkpoint_is_no_obstacle(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = compression(corpus, steps=6, save_steps=2)
    expected = train_compression(small_model(), settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        at_start(patch, KillAfter(3))
        with pytest.raises(Killed):
            train_compression(small_model(), settings, tmp_path / "run")
    half = write_checkpoint(tmp_path / "run", 4, whole=False)
    write_checkpoint(tmp_path / "run", 9, whole=False)
    (half / "optimizer.pt").write_bytes(b"cut sho")
    resumed = train_compression(small_model(), settings, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint-4" / "weights").exists()
    assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-6"]
    for name, weight in weights_of(expected).items():
        assert torch.equal(weights_of(resumed)[name], weight)


def test_one_whole_checkpoint_lives_while_the_next_is_written(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainer removes old checkpoints before the new one counts; this package does it after."""
    seen: list[int] = []

    def count_and_seal(folder: Path) -> None:
        seen.append(len(list(folder.parent.glob("*/complete.json"))))
        seal(folder)

    monkeypatch.setattr(loop, "seal", count_and_seal)
    train_compression(small_model(), compression(corpus, steps=5, save_steps=1), tmp_path)
    assert seen == [0, 1, 2, 2, 2]


def test_intervals_may_change_after_an_interruption(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_start(patch, KillAfter(5))
        with pytest.raises(Killed):
            train_compression(small_model(), compression(corpus, steps=12, save_steps=2), tmp_path)
    train_compression(small_model(), compression(corpus, steps=12, save_steps=5, log_steps=3), tmp_path)
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-12"]
    assert [entry["step"] for entry in read_metrics(tmp_path)] == [1, 2, 3, 4, 6, 9, 12]


def test_learning_rates_follow_the_schedule_after_an_interruption(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: CompressionSettings = compression(
        corpus, steps=8, warmup_steps=4, decay_steps=12, learning_rate=1e-2, learning_rate_floor=1e-3, save_steps=3
    )
    with monkeypatch.context() as patch:
        at_start(patch, KillAfter(5))
        with pytest.raises(Killed):
            train_compression(small_model(), settings, tmp_path)
    train_compression(small_model(), settings, tmp_path)
    rates = [entry["learning_rate"] for entry in read_metrics(tmp_path)]
    shares = [
        0,
        0,
        math.log(2) / math.log(4),
        math.log(3) / math.log(4),
        1,
        1,
        7 / 8,
        6 / 8,
    ]  # logarithmic to the peak, then linear
    assert rates == pytest.approx([1e-3 + 9e-3 * share for share in shares])
