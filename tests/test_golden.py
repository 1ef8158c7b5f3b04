"""Every number of the published code in `golden/cases.json`, recomputed from the same ids and weights."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor

from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.model import LLM2Comp
from llm2comp.training.arguments import learning_rate
from llm2comp.training.compression import compression_loss
from llm2comp.training.contrastive import contrastive_loss
from llm2comp.training.settings import Objective

GOLDEN = Path(os.environ.get("LLM2COMP_GOLDEN") or Path(__file__).parent / "golden")
CASES: dict[str, Any] = json.loads((GOLDEN / "cases.json").read_text(encoding="utf-8"))
LOSS = {"abs": 1e-5, "rel": 1e-5}
GRADIENT = {"rel": 1e-4}


def find(*names: str) -> Any:
    """The case of this name; skips the test where there is none."""
    case: Any = CASES
    for name in names:
        if name not in case:
            pytest.skip(f"{GOLDEN / 'cases.json'} has no case {' / '.join(names)}")
        case = case[name]
    return case


@pytest.fixture
def model() -> LLM2Comp:
    lora = CASES["lora"]
    adapter = AdapterSettings(rank=lora["r"], alpha=lora["alpha"], dropout=0.0, targets=tuple(lora["target_modules"]))
    built = LLM2Comp.from_backbone(
        GOLDEN / "backbone", CASES["memory_tokens"], adapter=adapter, normalize=False, device="cpu"
    )
    loaded = set_peft_model_state_dict(built.encoder.backbone.model, load_file(GOLDEN / "adapter.safetensors"))
    assert not loaded.unexpected_keys
    with torch.no_grad():
        built.encoder.memory.copy_(load_file(GOLDEN / "memory_tokens.safetensors")["memory_tokens"])
    return built.eval()


def embeddings(model: LLM2Comp, ids: list[list[int]]) -> Tensor:
    width = max(map(len, ids))
    features = {
        "input_ids": torch.tensor([row + [0] * (width - len(row)) for row in ids]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids]),
    }
    return model(features)["sentence_embedding"]


def close(actual: Tensor, expected: Any) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected), atol=2e-5, rtol=1e-5)


def test_memory_states_and_embeddings(model: LLM2Comp) -> None:
    case = find("compression")
    lengths = [len(row) for row in case["context_ids"]]
    with torch.no_grad():
        states = model.encoder.memory_states(
            torch.tensor([token for row in case["context_ids"] for token in row]), lengths
        )
        close(states, case["memory_hidden"])
        close(embeddings(model, case["context_ids"]), case["embedding"])


@pytest.mark.parametrize("objective", ["distillation", "continuation", "reconstruction"])
@pytest.mark.parametrize("chunk_rows", [7, 256])
def test_compression_losses_and_gradients(model: LLM2Comp, objective: Objective, chunk_rows: int) -> None:
    case = find("compression")
    expected = find("compression", objective)
    contexts = expected.get("context_ids", case["context_ids"])
    loss = compression_loss(model.encoder, contexts, case["continuation_ids"], objective, chunk_rows=chunk_rows)
    assert loss.item() == pytest.approx(expected["loss"], **LOSS)
    loss.backward()
    memory = model.encoder.memory.grad
    assert memory is not None
    lora = [parameter.grad for name, parameter in model.named_parameters() if "lora_" in name]
    assert all(gradient is not None for gradient in lora)
    assert float(memory.norm()) == pytest.approx(expected["grad_norm"]["memory_tokens"], **GRADIENT)
    total = math.sqrt(sum(float(gradient.norm()) ** 2 for gradient in lora if gradient is not None))
    assert total == pytest.approx(expected["grad_norm"]["lora"], **GRADIENT)


def test_unsupervised_on_texts(model: LLM2Comp) -> None:
    case = find("unsupervised")
    with torch.no_grad():
        vectors = embeddings(model, case["ids"])
    close(vectors, case["embedding"])
    assert float(contrastive_loss([vectors, vectors], temperature=case["temperature"])) == pytest.approx(
        case["loss"], **LOSS
    )


def test_supervised_on_texts(model: LLM2Comp) -> None:
    case = find("supervised")
    with torch.no_grad():
        vectors = [embeddings(model, case[f"{part}_ids"]) for part in ("query", "positive", "negative")]
    for part, actual in zip(("query", "positive", "negative"), vectors, strict=True):
        close(actual, case[f"{part}_embedding"])
    assert float(contrastive_loss(vectors, temperature=case["temperature"])) == pytest.approx(
        case["loss_cosine"], **LOSS
    )
    assert float(contrastive_loss(vectors, temperature=case["temperature"], similarity="dot")) == pytest.approx(
        case["loss_dot"], **LOSS
    )


def test_contrastive_losses_on_given_vectors() -> None:
    unsupervised, supervised = find("loss_vectors", "unsupervised"), find("loss_vectors", "supervised")
    views = [torch.tensor(unsupervised[view]) for view in ("first", "second")]
    assert float(contrastive_loss(views, temperature=unsupervised["temperature"])) == pytest.approx(
        unsupervised["loss"], **LOSS
    )
    triple = [torch.tensor(supervised[part]) for part in ("query", "positive", "negative")]
    temperature = supervised["temperature"]
    assert float(contrastive_loss(triple, temperature=temperature)) == pytest.approx(supervised["loss_cosine"], **LOSS)
    assert float(contrastive_loss(triple, temperature=temperature, similarity="dot")) == pytest.approx(
        supervised["loss_dot"], **LOSS
    )


@pytest.mark.parametrize(
    ("stage", "warmup", "peak", "floor", "decay"),
    [("stage1", 3200, 1e-4, 1e-5, 1), ("stage2", 100, 3e-5, 1e-5, 1), ("stage3", 200, 1e-4, 1e-5, 2)],
)
def test_learning_rates_of_the_published_schedule(
    stage: str, warmup: int, peak: float, floor: float, decay: int
) -> None:
    """Stage 3 was set to decay over twice its updates and stopped half-way."""
    case = find("learning_rate", stage)
    for update, expected in case["lr_at_update"].items():
        actual = learning_rate(int(update), total=decay * case["updates"], warmup=warmup, peak=peak, floor=floor)
        assert actual == pytest.approx(expected, rel=1e-9), f"update {update}"
