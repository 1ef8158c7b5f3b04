"""Shared by all stages: learning rate, trainer arguments, and an end of the run before bad weights are written."""

import resource
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from llm2comp.errors import SettingsError, TrainingError
from llm2comp.model import LLM2Comp
from llm2comp.training import arguments, loop
from llm2comp.training.arguments import learning_rate, trainer_arguments
from llm2comp.training.checkpoints import last_checkpoint
from llm2comp.training.compression import train_compression
from llm2comp.training.contrastive import train_contrastive
from llm2comp.training.metrics import read_metrics
from llm2comp.training.run_folder import sole_user
from llm2comp.training.settings import StageSettings
from llm2comp.training.token_trainer import TokenTrainer
from tests.training.interruption import at_start
from tests.training.tiny import compression, small_model, supervised, text, weights_of, write_corpus, write_pairs

Train = Callable[..., LLM2Comp]
SCHEDULE: dict[str, Any] = {"total": 100, "warmup": 10, "peak": 1e-3, "floor": 1e-5}
"""Figures of the published schedule itself are compared in tests/test_golden.py."""


def test_it_rises_from_the_floor_to_the_peak_and_falls_to_the_floor() -> None:
    rates = [learning_rate(update, **SCHEDULE) for update in range(1, 103)]
    assert rates[0] == rates[1] == SCHEDULE["floor"]
    assert max(rates) == rates[10] == rates[11] == SCHEDULE["peak"]
    assert all(before < after for before, after in zip(rates[1:10], rates[2:11], strict=True))
    assert all(before > after for before, after in zip(rates[11:], rates[12:], strict=False))
    assert rates[101] == pytest.approx(SCHEDULE["floor"])
    steps = {round(after - before, 12) for before, after in zip(rates[11:100], rates[12:101], strict=True)}
    assert len(steps) == 1, "the decay is linear"


def test_the_warmup_grows_with_the_logarithm() -> None:
    rates = [learning_rate(update, total=10**6, warmup=1000, peak=1.0, floor=0.0) for update in (11, 101, 1001)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1.0], rel=1e-3)


@pytest.mark.parametrize("warmup", [0, 1])
def test_no_warmup_starts_at_the_peak(warmup: int) -> None:
    assert learning_rate(1, total=10, warmup=warmup, peak=2.0, floor=0.5) == 2.0
    assert learning_rate(10, total=10, warmup=warmup, peak=2.0, floor=0.5) < 1.0


def test_it_stays_at_the_floor_after_the_end() -> None:
    assert learning_rate(5000, **SCHEDULE) == SCHEDULE["floor"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", [text(number, 40) for number in range(30)])


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


@pytest.mark.parametrize(
    ("step", "message"), [(1, "begins again, for no checkpoint"), (3, "goes on from {folder}/checkpoint-2")]
)
def test_an_interrupted_run_says_from_where_it_goes_on(
    step: int,
    message: str,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == step:
                raise KeyboardInterrupt

    caplog.set_level("INFO", logger="llm2comp.training.loop")
    at_start(monkeypatch, Stop())
    with pytest.raises(KeyboardInterrupt):
        train_compression(small_model(), compression(corpus, save_steps=2), tmp_path)
    expected = message.format(folder=tmp_path)
    assert f"interrupted after step {step} of 4; the same command {expected}" in caplog.text


def test_a_file_in_place_of_the_output_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(TrainingError, match=r"file: cannot be made a folder of a run \(File exists\); give another"),
        sole_user(tmp_path / "file"),
    ):
        pass


def test_a_disk_without_space_is_named(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 90304 vs 90196")

    monkeypatch.setattr(loop, "seal", fail)
    monkeypatch.setattr(loop.shutil, "disk_usage", lambda folder: SimpleNamespace(free=4096))
    with pytest.raises(TrainingError, match=r"checkpoint-2 could not be written: the disk is full \(4.1 kB free\)"):
        train_compression(small_model(), compression(corpus, save_steps=2), tmp_path)
    assert not (tmp_path / "checkpoint-2").exists()


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
    with sole_user(tmp_path), pytest.raises(TrainingError, match="another run is writing to"), sole_user(tmp_path):
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
    monkeypatch.setattr(arguments, "get_available_reporting_integrations", lambda: ["wandb", "mlflow"])
    settings = shared(
        report_to=("wandb",),
        clip=2.0,
        weight_decay=0.1,
        seed=9,
        log_steps=3,
        save_steps=4,
        eval_steps=5,
        precision="bfloat16",
    )
    made = trainer_arguments(settings, tmp_path)
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
    result = trainer_arguments(shared(), tmp_path)
    assert (result.n_gpu, result.train_batch_size) == (1, 12)
