"""What all stages share: checkpoints that are whole or passed over, a stop before anything is spoiled, reports without gaps or repeats."""

import json
import math
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.errors import SettingsError, TrainingError
from llm2comp.model import LLM2Comp
from llm2comp.training import loop
from llm2comp.training.batches import RunRows
from llm2comp.training.checkpoints import discard, last_checkpoint, prune, seal, trained_weights
from llm2comp.training.compression import train_compression
from llm2comp.training.contrastive import train_contrastive
from llm2comp.training.loop import StageMixin, trainer_arguments
from llm2comp.training.metrics import append_metrics, read_metrics, rewind_metrics
from llm2comp.training.run_folder import sole_user
from llm2comp.training.settings import CompressionSettings, StageSettings
from llm2comp.training.token_trainer import TokenTrainer
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


def make(folder: Path, step: int, *, whole: bool = True) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_bytes(b"12345")
    if whole:
        seal(checkpoint)
    return checkpoint


def test_the_newest_whole_checkpoint_counts(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    make(tmp_path, 9)
    whole = make(tmp_path, 100)
    make(tmp_path, 200, whole=False)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-300").write_text("a file")
    assert last_checkpoint(tmp_path) == whole
    for spoil in (
        lambda: (whole / "weights").write_bytes(b"123"),
        lambda: (whole / "weights").unlink(),
        lambda: (whole / "complete.json").write_text('{"st'),
    ):
        (whole / "weights").write_bytes(b"12345")
        seal(whole)
        assert last_checkpoint(tmp_path) == whole
        spoil()
        assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-9"


def test_pruning_keeps_two_whole_ones_whatever_lies_beside_them(tmp_path: Path) -> None:
    for step in (3, 6, 9, 12):
        make(tmp_path, step)
    for step in (1, 15, 18):
        make(tmp_path, step, whole=False)
    prune(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-12", "checkpoint-9"]


def test_a_checkpoint_no_longer_counts_while_it_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = make(tmp_path, 5)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    discard(checkpoint)
    assert (checkpoint / "weights").exists()
    assert last_checkpoint(tmp_path) is None


def test_reports_after_the_step_gone_back_to_are_dropped(tmp_path: Path) -> None:
    for step in (0, 1, 2, 2, 3):
        append_metrics(tmp_path, {"step": step, "loss": 1.0})
    append_metrics(tmp_path, {"step": 4, "loss": float("nan")})
    assert read_metrics(tmp_path)[-1] == {"step": 4, "loss": None}
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    assert len(read_metrics(tmp_path)) == 6
    rewind_metrics(tmp_path, 2)
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [0, 1, 2, 2]
    rewind_metrics(tmp_path, None)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_every_pass_over_the_rows_has_its_own_order_and_misses_none() -> None:
    rows = [{"id": number} for number in range(7)]
    run = RunRows(rows, length=24, seed=5)
    met = [run[place]["id"] for place in range(len(run))]
    passes = [met[start : start + 7] for start in (0, 7, 14)]
    assert all(sorted(one) == list(range(7)) for one in passes)
    assert len({tuple(one) for one in passes}) == 3
    again = RunRows(rows, length=24, seed=5)
    assert [again[place]["id"] for place in reversed(range(24))] == met[::-1]
    assert [RunRows(rows, length=24, seed=6)[place]["id"] for place in range(24)] != met


class Killed(Exception):
    pass


class KillAfter(TrainerCallback):
    """Ends a run in the middle of an update, without any of its own clean-up."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise Killed


def at_start(monkeypatch: pytest.MonkeyPatch, callback: TrainerCallback) -> None:
    """Adds a callback to the next run that starts at its beginning."""
    for kind in (StageMixin, TokenTrainer):
        monkeypatch.setattr(
            kind, "begin", lambda trainer, begin=kind.begin: (begin(trainer), trainer.add_callback(callback))
        )


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
        found = train(tmp_path / "killed")
    assert checked == [True] * 3, "optimizer, schedule and random states, none of them unpickled"
    assert weights_of(found).keys() == weights_of(expected).keys()
    for name, weight in weights_of(expected).items():
        assert torch.equal(weights_of(found)[name], weight), name
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
    half = make(tmp_path / "run", 4, whole=False)
    make(tmp_path / "run", 9, whole=False)
    (half / "optimizer.pt").write_bytes(b"cut sho")
    found = train_compression(small_model(), settings, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint-4" / "weights").exists()
    assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-6"]
    for name, weight in weights_of(expected).items():
        assert torch.equal(weights_of(found)[name], weight)


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


class Poison(TrainerCallback):
    """Makes a number of the model, or of its gradient, NaN or infinite before an update."""

    def __init__(self, step: int, *, gradient: bool = False) -> None:
        self.step, self.gradient = step, gradient

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step == self.step - 1:
            memory = (model.encoder if hasattr(model, "encoder") else model[0]).memory
            if self.gradient:
                memory.register_hook(lambda gradient: gradient * float("inf"))
            else:
                memory.data[0, 0] = float("nan")


@pytest.mark.parametrize("gradient", [False, True], ids=["loss", "gradient"])
@pytest.mark.parametrize("stage", ["compression", "supervised"])
def test_not_a_number_stops_before_it_reaches_the_weights(
    stage: str, gradient: bool, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_start(monkeypatch, Poison(4, gradient=gradient))
    model = small_model()
    pairs = write_pairs(tmp_path / "pairs.jsonl", 20)
    common: dict[str, Any] = {"steps": 9, "save_steps": 3, "batch_size": 4, "accumulation": 2}
    begin: Train = train_compression if stage == "compression" else train_contrastive
    settings: StageSettings = compression(corpus, **common) if stage == "compression" else supervised(pairs, **common)
    with pytest.raises(TrainingError) as stopped:
        begin(model, settings, tmp_path / "run")
    message = str(stopped.value)
    checkpoint = tmp_path / "run" / "checkpoint-3"
    assert f"{checkpoint} is whole and untouched" in message
    assert "at step 4 on texts [" in message
    assert ("the gradient's norm is" if gradient else "the loss is nan") in message
    texts = message[message.index("[") : message.index("]")]
    assert texts.count("', '") == (3 if gradient else 1), "the texts of one of two passes, or of both"
    assert "\n" not in message
    assert last_checkpoint(tmp_path / "run") == checkpoint
    assert not (tmp_path / "run" / "checkpoint-4").exists()
    saved = load_file(checkpoint / "trained.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in saved.values())
    prefix = "" if stage == "compression" else "0."
    untouched = [name for name in saved if "lora_" in name]
    now = weights_of(model)
    for name in untouched:
        ours = next(key for key in now if key.endswith(name.removeprefix("encoder.").removeprefix(prefix)))
        assert torch.equal(now[ours], saved[name]), "the optimizer stepped"
    assert not model.training
    assert max(entry["step"] for entry in read_metrics(tmp_path / "run")) == 3


def test_weights_that_blow_up_are_not_kept(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError,
        match=r"weights, .* first, are not finite at step 1 on texts \['d.*no checkpoint had been written",
    ):
        train_compression(small_model(), compression(corpus, learning_rate=1e39, save_steps=1), tmp_path / "run")
    with pytest.raises(TrainingError, match="are not finite at step 1"):
        train_compression(
            small_model(), compression(corpus, learning_rate=1e39, steps=1, save_steps=9), tmp_path / "last"
        )
    assert not list(tmp_path.glob("*/checkpoint-*"))


def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fill(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 4:
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    at_start(monkeypatch, Fill())
    try:
        with pytest.raises(
            TrainingError, match=r"checkpoint-4 could not be written: .*[Ff]ile.*start again"
        ) as stopped:
            train_compression(small_model(), compression(corpus, save_steps=2), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "\n" not in str(stopped.value)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert not (tmp_path / "checkpoint-4").exists()


def test_too_little_memory_is_one_line(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB")

    monkeypatch.setattr(TokenTrainer, "compute_loss", fail)
    with pytest.raises(
        TrainingError,
        match=r"too small for step 1 \(CUDA out of memory. Tried to allocate 2.00 GiB\): set gradient_checkpointing",
    ):
        train_compression(small_model(), compression(corpus), tmp_path)


def test_a_checkpoint_of_other_weights_is_refused(corpus: Path, tmp_path: Path) -> None:
    settings = compression(corpus, steps=2, save_steps=1)
    train_compression(small_model(), settings, tmp_path)
    with pytest.raises(TrainingError, match="was written by a run with other trained weights"):
        train_compression(small_model(memory_tokens=4), settings, tmp_path)


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with sole_user(tmp_path), pytest.raises(TrainingError, match="another run is training in"), sole_user(tmp_path):
        pass
    with sole_user(tmp_path):
        pass


def shared(**fields: Any) -> StageSettings:
    return StageSettings(**{"steps": 10, "batch_size": 12, "learning_rate": 1e-3, **fields})


def test_a_batch_is_shared_by_devices_and_accumulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trainer_arguments(shared(accumulation=3), tmp_path).per_device_train_batch_size == 4
    monkeypatch.setenv("WORLD_SIZE", "5")
    with pytest.raises(SettingsError, match="batch_size 12 is not a multiple of 5 devices x 1 accumulation steps"):
        trainer_arguments(shared(), tmp_path)


def test_settings_reach_the_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "get_available_reporting_integrations", lambda: ["wandb", "mlflow"])
    chosen = shared(
        report_to=("wandb",),
        clip=2.0,
        weight_decay=0.1,
        seed=9,
        log_steps=3,
        save_steps=4,
        eval_steps=5,
        precision="bfloat16",
    )
    made = trainer_arguments(chosen, tmp_path)
    assert made.report_to == ["wandb"]
    assert (made.max_grad_norm, made.weight_decay, made.seed, made.bf16) == (2.0, 0.1, 9, True)
    assert (made.logging_steps, made.save_steps, made.eval_steps, made.max_steps) == (3, 4, 5, 10)
    assert trainer_arguments(shared(), tmp_path).report_to == []
    with pytest.raises(SettingsError, match="report_to names tensorboard; installed here: wandb, mlflow"):
        trainer_arguments(shared(report_to=("tensorboard",)), tmp_path)


def test_one_process_trains_on_one_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with several GPUs the trainer would wrap the model in threads that cannot split a batch of texts."""

    def four(arguments: Any) -> torch.device:
        arguments._n_gpu = 4
        return torch.device("cpu")

    monkeypatch.setattr("transformers.TrainingArguments._setup_devices", property(four))
    made = trainer_arguments(shared(), tmp_path)
    assert (made.n_gpu, made.train_batch_size) == (1, 12)


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
