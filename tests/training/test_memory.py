"""Memory of a step is measured, and a batch that does not fit is taken in parts."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llm2comp.encoder import MemoryEncoder
from llm2comp.training import contrastive, memory
from llm2comp.training.contrastive import batch_memory, train_contrastive
from llm2comp.training.contrastive_data import read_data
from llm2comp.training.memory import StepMemory, available_memory, fit, kept_for_backward, most_tokens
from tests.training.tiny import small_model, supervised, weights_of, write_pairs


def test_what_a_pass_keeps_is_counted_in_bytes() -> None:
    weight = torch.nn.Parameter(torch.ones(4, 4))
    rows = torch.randn(10, 4, requires_grad=True)
    state = torch.get_rng_state()
    kept = kept_for_backward(lambda: torch.nn.functional.dropout(torch.sigmoid(rows @ weight)).sum(), [weight])
    assert torch.equal(torch.get_rng_state(), state)
    assert 2 * 160 <= kept <= 3 * 160, "the rows (40 floats), the sigmoid and the mask of the dropout; not the weight"


def test_a_batch_is_as_long_as_its_texts() -> None:
    lengths = np.array([[10, 30], [20, 40]])
    assert most_tokens(lengths, 2, padded=True) == 2 * (20 + 40)
    assert most_tokens(lengths, 1, padded=False) == 60
    assert most_tokens(np.full((50, 2), 8), 100, padded=False) == 1600


def test_memory_at_hand_is_that_of_the_machine_shared_by_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = available_memory(torch.device("cpu"))
    assert 10**7 < whole < 10**14
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert available_memory(torch.device("cpu")) == pytest.approx(whole / 4, rel=0.2)


@pytest.mark.parametrize(
    ("texts_that_fit", "rows", "recompute"), [(100, None, False), (9, 8, False), (5, 4, False), (2.5, 8, True)]
)
def test_micro_batches_come_before_checkpointing(
    texts_that_fit: float, rows: int | None, recompute: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = supervised(write_pairs(tmp_path / "pairs.jsonl", 20), batch_size=16)
    model = small_model()
    data = read_data(settings, "")
    batch = batch_memory(model, settings, data, bfloat16=False)
    step = StepMemory(per_token=1000.0, recomputed=250.0, optimizer=5000)
    batch = memory.BatchMemory(batch.backbone, lambda: step, batch.tokens, batch.text_tokens)
    usable = step.of_pass(texts_that_fit * batch.text_tokens)
    monkeypatch.setattr(memory, "available_memory", lambda device: usable / 0.8)
    chosen = fit(settings, batch)
    assert (chosen.micro_batch, chosen.gradient_checkpointing) == (rows, recompute)
    assert batch.needed(chosen) <= usable * 1.001


def test_batches_that_fit_go_in_one_pass_where_the_longest_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradients are those of a run in micro-batches alone, up to rounding; without dropout here."""
    words = [f"w{number}" for number in range(400)]
    sets = {"short": 4, "long": 60}
    (tmp_path / "pairs").mkdir()
    for name, count in sets.items():
        rows = (
            {"query": f"{name} {row}", "positive": " ".join([name, str(row), *words[row : row + count]])}
            for row in range(16)
        )
        (tmp_path / "pairs" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    step = StepMemory(per_token=1000.0, recomputed=250.0, optimizer=5000)
    settings = supervised(tmp_path / "pairs", batch_size=8, steps=4)
    measured = batch_memory(small_model(), settings, read_data(settings, ""), bfloat16=False)
    usable = step.of_pass(measured.tokens / 1.8)
    monkeypatch.setattr(memory, "available_memory", lambda device: usable / 0.8)
    monkeypatch.setattr(contrastive, "step_memory", lambda *given, **options: step)
    passes: dict[str, set[int]] = {name: set() for name in sets}
    embed = MemoryEncoder.forward

    def forward(self: MemoryEncoder, features: Any, **options: Any) -> Any:
        if torch.is_grad_enabled():
            length = int(features["attention_mask"].sum(1).max())
            passes["long" if length > 30 else "short"].add(len(features["input_ids"]))
        return embed(self, features, **options)

    monkeypatch.setattr(MemoryEncoder, "forward", forward)
    trained = train_contrastive(small_model(), settings, tmp_path / "run")
    chosen = fit(settings, replace(measured, measure=lambda: step)).micro_batch
    assert isinstance(chosen, int)
    assert chosen < 8
    assert passes["long"] == {chosen}, "the queries of this set are short too"
    assert passes["short"] >= {8}
    passes["short"].clear()
    again = train_contrastive(small_model(), replace(settings, micro_batch=chosen), tmp_path / "given")
    assert passes["short"] == {chosen}, "a number that is given holds for all"
    for name, weight in weights_of(trained).items():
        torch.testing.assert_close(weights_of(again)[name], weight, rtol=1e-3, atol=1e-4)


def test_what_is_given_is_not_decided(tmp_path: Path) -> None:
    settings = supervised(tmp_path / "pairs.jsonl", micro_batch=None, gradient_checkpointing=False)

    def never() -> StepMemory:
        raise AssertionError("nothing was left to decide")

    assert fit(settings, memory.BatchMemory(small_model().encoder.backbone, never, 1.0)) is settings


def test_measuring_does_not_change_a_run(tmp_path: Path) -> None:
    """Dropout included: the random states are those of a run in which nothing is measured."""
    from llm2comp.backbone.adapter import AdapterSettings

    pairs = write_pairs(tmp_path / "pairs.jsonl", 20)
    dropout = AdapterSettings(rank=4, alpha=8, dropout=0.2)
    runs = [
        weights_of(
            train_contrastive(small_model(adapter=dropout), supervised(pairs, **fields), tmp_path / str(len(fields)))
        )
        for fields in ({}, {"micro_batch": None, "gradient_checkpointing": False})
    ]
    for name, weight in runs[0].items():
        assert torch.equal(weight, runs[1][name])
