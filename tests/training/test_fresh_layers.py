"""Layers that begin as averages: their first outputs, which weights stay, which are trained, what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llm2comp.errors import SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.training.compression import train_compression
from llm2comp.training.contrastive import train_contrastive
from llm2comp.training.fresh_layers import restart_layers
from llm2comp.training.metrics import read_metrics
from tests.families import build
from tests.training.tiny import LORA, compression, small_model, supervised, text, weights_of, write_corpus, write_pairs


def attention_of(model: LLM2Comp, layer: int, content: str) -> tuple[Tensor, Tensor]:
    """Inputs and outputs of a layer's attention, (tokens, hidden) each."""
    met: list[tuple[Tensor, Tensor]] = []

    def note(module: Any, arguments: Any, options: dict[str, Any], output: Any) -> None:
        met.append((options["hidden_states"], output[0]))

    attention = model.encoder.backbone.language_model.model.layers[layer].self_attn
    handle = attention.register_forward_hook(note, with_kwargs=True)
    model.encode_document([content])
    handle.remove()
    [(inputs, outputs)] = met
    return inputs.flatten(0, -2), outputs.flatten(0, -2)


@pytest.mark.parametrize("layer", [0, 2])
def test_attention_of_the_first_and_the_last_layer_averages_all_tokens(layer: int) -> None:
    model = small_model(adapter=None)
    restart_layers(model.encoder.backbone.language_model)
    inputs, outputs = attention_of(model, layer, text(1, 30))
    if layer == 2:
        outputs = outputs[-model.memory_tokens :]  # the last layer computes no others
    average = inputs.mean(0).expand_as(outputs)
    torch.testing.assert_close(outputs, average, rtol=0, atol=0.05 * float(inputs.std()))


def test_texts_with_the_same_words_begin_close_together() -> None:
    texts = ["river bridge stone", "stone river bridge", "market bread salt"]
    model = small_model(adapter=None)
    restart_layers(model.encoder.backbone.language_model)
    vectors = model.encode_document(texts)
    assert vectors[0] @ vectors[1] > 0.98
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.1


def test_embeddings_and_output_layer_stay() -> None:
    model, untouched = small_model(adapter=None), small_model(adapter=None)
    restart_layers(model.encoder.backbone.language_model)
    before, after = weights_of(untouched), weights_of(model)
    same = {name for name in after if torch.equal(after[name], before[name])}
    assert {name for name in same if "embed_tokens" in name or "lm_head" in name or "memory" in name} == {
        name for name in after if "embed_tokens" in name or "lm_head" in name or "memory" in name
    }
    assert not any("_proj" in name for name in same)


def test_the_same_seed_draws_the_same_layers() -> None:
    drawn = []
    for seed in (0, 0, 1):
        model = small_model(adapter=None)
        restart_layers(model.encoder.backbone.language_model, seed=seed)
        drawn.append(weights_of(model))
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
    assert not all(torch.equal(drawn[0][name], drawn[2][name]) for name in drawn[0])


def test_the_teacher_is_the_language_model_as_it_was(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", [text(number) for number in range(40)])
    heldout = write_corpus(tmp_path / "heldout.jsonl", [text(900 + number) for number in range(8)])
    gains = []
    for restart in (False, True):
        model = small_model(adapter=None)
        train_compression(
            model, compression(corpus, heldout=str(heldout), restart_layers=restart, steps=2), tmp_path / str(restart)
        )
        gains.append(next(row for row in read_metrics(tmp_path / str(restart)) if "context_gain" in row))
    assert gains[0] == gains[1]


def test_a_family_with_other_layers_is_refused() -> None:
    with pytest.raises(SettingsError, match="type llama, such as stage 0 makes, not gpt2"):
        restart_layers(build("gpt2"))
    with pytest.raises(SettingsError, match="as many key and value heads"):
        restart_layers(build("llama"))


def test_an_adapter_is_refused(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", [text(number) for number in range(40)])
    with pytest.raises(SettingsError, match="restart_layers needs a model without an adapter"):
        train_compression(small_model(adapter=LORA), compression(corpus, restart_layers=True), tmp_path / "run")
    pairs = write_pairs(tmp_path / "pairs.jsonl", 8)
    with pytest.raises(SettingsError, match="embedding_learning_rate needs a model without an adapter"):
        train_contrastive(small_model(adapter=LORA), supervised(pairs, embedding_learning_rate=0.1), tmp_path / "run")


@pytest.mark.parametrize("rate", [None, 0.01])
def test_the_embeddings_take_steps_of_their_own_rate(tmp_path: Path, rate: float | None) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 8)
    model = small_model(adapter=None)
    before = weights_of(model)
    settings = supervised(
        pairs, steps=1, batch_size=8, warmup_steps=0, learning_rate=1e-3, embedding_learning_rate=rate, weight_decay=0.0
    )
    train_contrastive(model, settings, tmp_path / "run")
    moved = {name: float((weight - before[name]).abs().max()) for name, weight in weights_of(model).items()}
    embeddings = max(distance for name, distance in moved.items() if "embed_tokens" in name)
    layers = max(distance for name, distance in moved.items() if "_proj" in name)
    # Adam's first update moves a weight by its rate, whatever its gradient
    assert embeddings == pytest.approx(rate or 1e-3, rel=1e-3)
    assert layers == pytest.approx(1e-3, rel=1e-3)
