"""The training benchmark: both systems do the same work, and what is written was measured."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from llm2comp.cli import app
from llm2comp.errors import SettingsError
from llm2comp_benchmarks.cost.shapes import Shape
from llm2comp_benchmarks.cost.tables import format_training
from llm2comp_benchmarks.cost.train import jobs as train_jobs
from llm2comp_benchmarks.cost.train import micro_batches
from llm2comp_benchmarks.cost.train import run as train_benchmark
from llm2comp_benchmarks.cost.train.jobs import SYSTEMS, draw_batch, open_system
from llm2comp_benchmarks.cost.train.run import PEER, TrainBenchmark, run_train_benchmark
from tests.benchmarks.cost.in_process import InProcess
from tests.paths import RESULTS
from tests.training.tiny import BACKBONE

FILES = sorted(RESULTS.glob("train-*.json"))
SIZE: dict[str, Any] = {"vocabulary": 90, "texts": 3, "tokens": 40}
SHAPE = "32x2x48"


def _gradients(system: str) -> tuple[float, torch.Tensor, dict[str, torch.Tensor]]:
    """Loss of a batch, and its gradients with respect to the memory vectors and to the adapter by layer."""
    module, loss_of = SYSTEMS[system](Shape.parse(SHAPE), SIZE["vocabulary"], SIZE["tokens"], 0, "float32")
    train_jobs._start_adapter(module)
    module.eval()
    loss = loss_of(*draw_batch(0, **SIZE))
    loss.backward()
    named = dict(module.named_parameters())
    memory = (
        named["memory"].grad
        if "memory" in named
        else module.student.get_input_embeddings().weight.grad[SIZE["vocabulary"] :]
    )
    assert memory is not None
    return (
        float(loss.detach()),
        memory,
        {name[name.index("layers.") :]: parameter.grad for name, parameter in named.items() if "lora_" in name},
    )


def test_both_systems_have_the_same_loss_and_gradients() -> None:
    (ours, memory, adapter), (plain, plain_memory, plain_adapter) = (_gradients(system) for system in SYSTEMS)
    assert ours == pytest.approx(plain, abs=1e-5)
    assert ours > 1e-4
    assert adapter.keys() == plain_adapter.keys()
    assert len(adapter) == 2 * 2 * 6
    for gradient, expected in ((memory, plain_memory), *((adapter[name], plain_adapter[name]) for name in adapter)):
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6 + 1e-3 * float(expected.abs().max()))
    assert all(float(gradient.abs().max()) > 0 for gradient in adapter.values())


def test_the_plain_one_trains_all_embeddings_and_holds_the_model_twice() -> None:
    plain, _ = SYSTEMS["plain transformers"](Shape.parse(SHAPE), SIZE["vocabulary"], SIZE["tokens"], 0, "float32")
    ours, _ = SYSTEMS["llm2comp"](Shape.parse(SHAPE), SIZE["vocabulary"], SIZE["tokens"], 0, "float32")

    def count(module: torch.nn.Module, trained: bool) -> int:
        return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad == trained)

    layers = 2 * (4 * 32 * 32 + 3 * 32 * 48 + 2 * 32) + 32
    adapter = 2 * 16 * (3 * 64 + 3 * 80)
    assert count(ours, trained=True) == adapter + 8 * 32
    assert count(ours, trained=False) == layers + 90 * 32
    assert count(plain, trained=True) == adapter + (90 + 8) * 32
    assert count(plain, trained=False) == 2 * layers + 90 * 32


def test_batches_are_the_same_for_the_same_number_and_split_within_the_margin() -> None:
    contexts, continuations = draw_batch(3, vocabulary=50, texts=40, tokens=30)
    assert (contexts, continuations) == draw_batch(3, vocabulary=50, texts=40, tokens=30)
    assert contexts != draw_batch(4, vocabulary=50, texts=40, tokens=30)[0]
    assert {
        len(context) + len(continuation) for context, continuation in zip(contexts, continuations, strict=True)
    } == {30}
    assert min(map(len, contexts)) >= 10
    assert min(map(len, continuations)) >= 10
    assert len(set(map(len, contexts))) > 1
    assert max(map(max, contexts)) < 50


@pytest.mark.parametrize("system", SYSTEMS)
def test_steps_lower_the_loss(system: str) -> None:
    _, jobs = open_system(system, shape=SHAPE, **SIZE)
    before = jobs["loss"](number=0)["loss"]
    for _ in range(10):
        assert jobs["step"](number=0)["seconds"] > 0
    assert jobs["loss"](number=0)["loss"] < before
    assert jobs["peak"]()["peak_bytes"] > 0


def test_checkpointed_steps_are_the_same_steps() -> None:
    losses = []
    for checkpointing in (False, True):
        _, jobs = open_system("llm2comp", shape=SHAPE, **SIZE, checkpointing=checkpointing)
        torch.manual_seed(5)
        losses.append([jobs["step"](number=number)["loss"] for number in range(4)])
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert losses[0][0] != pytest.approx(losses[0][3], abs=1e-4)


def test_on_a_gpu_ours_is_measured_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_benchmark, "Worker", _InProcess)
    monkeypatch.setattr(train_benchmark, "choose_device", str)
    monkeypatch.setattr(train_benchmark, "precisions", lambda precision, device: ("float32",))
    record = run_train_benchmark(
        TrainBenchmark(shape=SHAPE, **SIZE, rounds=1, device="cpu:0", vocabularies=(90,))
    )  # a processor that does not say cpu
    assert record["ratios"] == {"llm2comp float32": {}}
    assert PEER not in record
    assert record["vocabulary"]["90"].keys() == {"llm2comp float32"}
    assert format_training(record).splitlines()[0].split() == [
        "s/step",
        "least-most",
        "tokens/s",
        "peak",
        "MB",
        "beyond",
        "loading",
    ]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_steps_on_a_gpu_begin_at_the_loss_of_the_cpu() -> None:
    losses = [
        open_system("llm2comp", shape=SHAPE, **SIZE, device=device)[1]["loss"](number=0)["loss"]
        for device in ("cpu", "cuda")
    ]
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rounds": 0}, "rounds is 0"),
        ({"tokens": 5}, "tokens is 5"),
        ({"shape": "big"}, "shape is 'big'"),
        ({"precision": "half"}, "precision is 'half'"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        TrainBenchmark(**wrong)


class _InProcess(InProcess):
    module = "llm2comp_benchmarks.cost.train.jobs"
    open_system = staticmethod(open_system)


def _check_run() -> None:
    settings = TrainBenchmark(shape=SHAPE, **SIZE, precision="float32", rounds=2, vocabularies=(90, 5000))
    record = run_train_benchmark(settings)
    ours, plain = record["llm2comp float32"], record[PEER]
    assert ours["loss_before"] == pytest.approx(plain["loss_before"], abs=1e-5)
    ratios = [other / one for one, other in zip(ours["seconds"], plain["seconds"], strict=True)]
    speed = record["ratios"]["llm2comp float32"][PEER]["speed"]
    assert (speed["least"], speed["most"]) == (min(ratios), max(ratios))
    assert ours["tokens_per_second"]["most"] == pytest.approx(3 * 40 / min(ours["seconds"]))
    assert list(record["vocabulary"]) == ["90", "5000"]
    assert record["hardware"]["threads"] == 1
    assert record["settings"]["shape"] == SHAPE
    shown = format_training(record)
    assert shown.startswith("ours over theirs")
    assert f"vocabulary 5000, {PEER}" in shown


def test_a_run_compares_round_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_benchmark, "Worker", _InProcess)
    _check_run()


@pytest.mark.slow
def test_a_run_in_processes_of_their_own() -> None:
    _check_run()


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_ratios_in_results_are_those_of_their_seconds_and_peaks(file: Path) -> None:
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["ratios"]
    for name, others in record["ratios"].items():
        speed = [other / one for one, other in zip(record[name]["seconds"], record[PEER]["seconds"], strict=True)]
        assert others[PEER]["speed"]["least"] == pytest.approx(min(speed))
        assert others[PEER]["peak_memory"] == pytest.approx(record[name]["peak_bytes"] / record[PEER]["peak_bytes"])


def test_the_command_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    for arguments, message in (
        (["--shape", "huge"], "shape is 'huge'"),
        (["--json", str(tmp_path / "nowhere" / "out.json")], "there is no folder"),
    ):
        run = CliRunner().invoke(app, ["bench", "train", *arguments])
        assert run.exit_code == 2 or "huge" in str(run.exception)
        assert message in run.output or message in str(run.exception)


def test_one_pass_is_compared_with_micro_batches_by_seconds_of_updates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(micro_batches, "_BATCH", 4)
    monkeypatch.setattr(micro_batches, "_VARIANTS", {"micro-batches": 2, "one pass": None})
    sizes: list[set[int]] = []
    train = micro_batches.train_contrastive

    def observed(model: Any, settings: Any, *given: Any, **options: Any) -> Any:
        sizes.append(set())
        model.register_forward_pre_hook(lambda module, inputs: sizes[-1].add(len(inputs[0]["input_ids"])))
        return train(model, settings, *given, **options)

    monkeypatch.setattr(micro_batches, "train_contrastive", observed)
    micro_batches.compare(tmp_path / "result.json", str(BACKBONE))
    assert [min(texts) for texts in sizes] == [2, 4, 2, 4], "texts of a pass, by turns"
    result = json.loads((tmp_path / "result.json").read_text())
    assert [len(result["seconds"][name]) for name in ("micro-batches", "one pass")] == [4, 4]
    assert result["ratio"] == pytest.approx(
        np.median(result["seconds"]["micro-batches"]) / np.median(result["seconds"]["one pass"])
    )
