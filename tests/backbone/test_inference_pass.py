"""Passes without gradients on a CPU: the states of transformers' layers, whatever the model has been through."""

import copy
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llm2comp.backbone import inference_pass, packed_linear
from llm2comp.backbone.attention import Packing
from llm2comp.backbone.backbone import Backbone
from llm2comp.backbone.forward import run_packed
from tests.families import build, some_texts, states_by_hand, stirred
from tests.weight_changes import in_place, loaded, norm_changed, other_tensor, replaced, through_data, trained

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
LENGTHS = (5, 17, 17, 9, 40, 1)
TAIL = 3
IN_GROUPS = {"hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8}


def transformers_states(backbone: Backbone, embedded: Tensor, lengths: tuple[int, ...]) -> Tensor:
    packing = Packing.of(lengths, causal=False, device=embedded.device)
    return run_packed(backbone.language_model, embedded, packing)


def prepared(backbone: Backbone) -> bool:
    """Whether the last pass was one of this module's."""
    return backbone._inference._prepared is not None


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 16 tokens, so that short texts take several."""
    monkeypatch.setattr(inference_pass, "_LEAST_BLOCK", 16)
    monkeypatch.setattr(inference_pass, "_LARGEST_BLOCK", 16)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_states_are_those_of_transformers_with_an_open_mask(family: str) -> None:
    (text,) = some_texts(12)
    expected = states_by_hand(build(family, sliding_window=None), text)
    assert expected is not None
    backbone = Backbone(build(family))
    states = backbone.encode(backbone.embed(text), [12])
    assert prepared(backbone)
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("changes", [{}, IN_GROUPS, {"attention_bias": True}], ids=["plain", "grouped", "biases"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("small_blocks")
@torch.no_grad()
def test_texts_over_several_blocks(family: str, changes: dict[str, Any]) -> None:
    backbone = Backbone(build(family, **changes))
    tokens = torch.cat(some_texts(*LENGTHS))
    embedded = backbone.embed(tokens)
    expected = transformers_states(backbone, embedded, LENGTHS)
    torch.testing.assert_close(backbone.encode(embedded, LENGTHS), expected, atol=1e-5, rtol=1e-5)
    assert prepared(backbone)


@pytest.mark.parametrize("lengths", [(3,), (30,), (5, 17, 17, 9, 40)])
@pytest.mark.usefixtures("small_blocks")
@torch.no_grad()
def test_the_last_layer_for_the_tails_only(lengths: tuple[int, ...]) -> None:
    backbone = Backbone(build("qwen3"))
    embedded = backbone.embed(torch.cat(some_texts(*lengths)))
    rows = Packing.of(lengths, causal=False, device=embedded.device, tail=TAIL).tail_rows()
    tails = backbone.encode(embedded, lengths, tail=TAIL)[rows]
    torch.testing.assert_close(tails, transformers_states(backbone, embedded, lengths)[rows], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lengths", [(20,), (300,), (150, 150, 40)])
@torch.no_grad()
def test_bfloat16_is_as_close_to_float32_as_transformers(lengths: tuple[int, ...]) -> None:
    exact = Backbone(build("llama", max_position_embeddings=512))
    embedded = exact.embed(torch.cat(some_texts(*lengths)))
    expected = transformers_states(exact, embedded, lengths)
    half = Backbone(build("llama", max_position_embeddings=512).bfloat16())
    theirs = transformers_states(half, embedded.bfloat16(), lengths)
    ours = half.encode(embedded.bfloat16(), lengths)
    assert prepared(half)
    assert ours.dtype == torch.bfloat16
    assert (ours - expected).norm() < 1.2 * (theirs - expected).norm()


@pytest.mark.parametrize(
    "change", [in_place, through_data, replaced, other_tensor, loaded, norm_changed, trained], ids=lambda c: c.__name__
)
@torch.no_grad()
def test_changed_weights_are_seen(change: Callable[[nn.Module], None]) -> None:
    backbone = Backbone(build("llama"))
    embedded = backbone.embed(torch.cat(some_texts(*LENGTHS)))
    before = backbone.encode(embedded, LENGTHS)
    change(backbone.language_model)
    states = backbone.encode(embedded, LENGTHS)
    assert not torch.allclose(states, before, atol=1e-3)
    torch.testing.assert_close(states, transformers_states(backbone, embedded, LENGTHS), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_an_adapter_is_used_and_can_be_merged() -> None:
    backbone = Backbone(build("llama"))
    embedded = backbone.embed(torch.cat(some_texts(*LENGTHS)))
    backbone.encode(embedded, LENGTHS)
    stirred(backbone)
    expected = transformers_states(backbone, embedded, LENGTHS)
    torch.testing.assert_close(backbone.encode(embedded, LENGTHS), expected, atol=1e-4, rtol=1e-4)
    backbone.merge_adapter()
    torch.testing.assert_close(backbone.encode(embedded, LENGTHS), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_hooks_of_others_are_called() -> None:
    backbone = Backbone(build("llama"))
    embedded = backbone.embed(torch.cat(some_texts(*LENGTHS)))
    expected = backbone.encode(embedded, LENGTHS)
    calls: list[str] = []
    layer = backbone.language_model.model.layers[0]
    handles = [
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
        for name, module in (("layer", layer), ("mlp", layer.mlp), ("projection", layer.mlp.up_proj))
    ]
    torch.testing.assert_close(backbone.encode(embedded, LENGTHS), expected, atol=1e-5, rtol=1e-5)
    assert calls == ["projection", "mlp", "layer"]
    for handle in handles:
        handle.remove()
    forward = layer.mlp.forward
    layer.mlp.forward = lambda states: 0 * forward(states)
    assert not torch.allclose(backbone.encode(embedded, LENGTHS), expected, atol=1e-3)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@torch.no_grad()
def test_copies_prepare_their_own_passes(duplicate: Callable[[Backbone], Backbone]) -> None:
    backbone = Backbone(build("llama"))
    embedded = backbone.embed(torch.cat(some_texts(*LENGTHS)))
    expected = backbone.encode(embedded, LENGTHS)
    twin = duplicate(backbone)
    assert not prepared(twin)
    in_place(backbone.language_model)
    torch.testing.assert_close(twin.encode(embedded, LENGTHS), expected)


@torch.no_grad()
def test_converted_to_another_precision() -> None:
    backbone = Backbone(build("llama"))
    embedded = backbone.embed(torch.cat(some_texts(*LENGTHS)))
    expected = backbone.encode(embedded, LENGTHS)
    backbone.to(torch.bfloat16)
    assert backbone.encode(embedded.bfloat16(), LENGTHS).dtype == torch.bfloat16
    states = backbone.to(torch.float64).encode(embedded.double(), LENGTHS).float()
    assert torch.cosine_similarity(states, expected).min() > 0.99


@pytest.mark.parametrize("reason", ["large", "operations"])
@torch.no_grad()
def test_weights_that_are_not_packed(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason == "large":
        monkeypatch.setattr(inference_pass, "_MOST_PACKED_BYTES", 10_000)
    else:
        monkeypatch.setattr(packed_linear, "_has_operations", lambda: False)
    backbone = Backbone(build("qwen3"))
    embedded = backbone.embed(torch.cat(some_texts(*LENGTHS)))
    expected = transformers_states(backbone, embedded, LENGTHS)
    torch.testing.assert_close(backbone.encode(embedded, LENGTHS), expected, atol=1e-5, rtol=1e-5)
    assert not any(
        isinstance(layer._gate, packed_linear._PackedLinear) for layer in backbone._inference._prepared._layers
    )


def test_this_pytorch_can_pack_weights() -> None:
    """Else passes are slower and nothing says so."""
    assert packed_linear.packed_bytes([nn.Linear(8, 4)]) == 128


@torch.no_grad()
def test_other_architectures_and_activations_take_their_own_layers() -> None:
    for model in (build("granite"), build("llama", hidden_act="gelu")):
        backbone = Backbone(model)
        embedded = backbone.embed(torch.cat(some_texts(*LENGTHS)))
        expected = transformers_states(backbone, embedded, LENGTHS)
        torch.testing.assert_close(backbone.encode(embedded, LENGTHS), expected, atol=1e-5, rtol=1e-5)
        assert not prepared(backbone)


@torch.no_grad()
def test_first_passes_of_several_threads() -> None:
    backbone = Backbone(build("llama"))
    embedded = backbone.embed(torch.cat(some_texts(*LENGTHS)))
    expected = transformers_states(backbone, embedded, LENGTHS)

    def run(_: int) -> Tensor:
        with torch.no_grad():  # a setting of the thread
            return backbone.encode(embedded, LENGTHS)

    with ThreadPoolExecutor(4) as pool:
        for states in pool.map(run, range(16)):
            torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-5)


def test_threads_are_inside_a_pass_at_once() -> None:
    """They meet at a barrier there; a lock held through a pass would deadlock."""
    meeting = threading.Barrier(3)

    class Meeting(nn.Linear):
        def forward(self, states: Tensor) -> Tensor:
            meeting.wait(60)
            return super().forward(states)

    backbone = Backbone(build("llama"))
    mlp = backbone.language_model.model.layers[0].mlp
    weight = mlp.up_proj.weight
    mlp.up_proj = Meeting(32, 48, bias=False)
    mlp.up_proj.weight = weight
    embedded = backbone.embed(torch.cat(some_texts(*LENGTHS))).detach()

    def run(_: int) -> Tensor:
        with torch.no_grad():
            return backbone.encode(embedded, LENGTHS)

    with ThreadPoolExecutor(3) as pool:
        states = list(pool.map(run, range(3)))
    assert prepared(backbone)
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])
