"""Passes by OpenVINO: the states of the model's own layers, whatever the model has been through."""

import copy
import ctypes
import logging
import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llm2comp.backbone import openvino_pass
from llm2comp.backbone.attention import Packing
from llm2comp.backbone.backbone import Backbone
from llm2comp.backbone.forward import run_packed
from llm2comp.backbone.openvino_pass import OpenVinoPass
from llm2comp.errors import BackboneError
from tests.families import build, some_texts, stirred
from tests.weight_changes import in_place, replaced, through_data, trained

pytest.importorskip("openvino", reason='OpenVINO is not installed: pip install "llm2comp[openvino]"')

LENGTHS = (40, 17, 17, 9, 5, 1)
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def with_openvino(family: str = "llama", **changes: Any) -> Backbone:
    backbone = Backbone(build(family, **changes))
    backbone.use_openvino()
    return backbone


def expected_states(backbone: Backbone, embedded: Tensor, lengths: tuple[int, ...]) -> Tensor:
    packing = Packing.of(lengths, causal=False, device=embedded.device)
    return run_packed(backbone.language_model, embedded, packing)


def runs_openvino(backbone: Backbone) -> bool:
    """Whether the last pass was OpenVINO's."""
    return isinstance(backbone._inference._prepared, OpenVinoPass)


@pytest.fixture
def backbone() -> Backbone:
    return with_openvino()


@pytest.fixture
def embedded(backbone: Backbone) -> Tensor:
    return backbone.embed(torch.cat(some_texts(*LENGTHS))).detach()


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"attention_bias": True}),
        ("mistral", {}),
        ("qwen2", {"num_attention_heads": 8}),
        ("qwen3", {"num_hidden_layers": 1}),
        ("granite", {}),  # its last layer is computed for all tokens
    ],
)
@torch.no_grad()
def test_states_are_those_of_transformers(family: str, changes: dict[str, Any]) -> None:
    backbone = with_openvino(family, **changes)
    embedded = backbone.embed(torch.cat(some_texts(*LENGTHS)))
    expected = expected_states(backbone, embedded, LENGTHS)
    torch.testing.assert_close(backbone.encode(embedded, LENGTHS), expected, **CLOSE)
    rows = Packing.of(LENGTHS, causal=False, device=embedded.device, tail=1).tail_rows()
    torch.testing.assert_close(backbone.encode(embedded, LENGTHS, tail=1)[rows], expected[rows], **CLOSE)
    assert runs_openvino(backbone)


@pytest.mark.parametrize("lengths", [(1,), (30,), (5, 40, 17, 3, 40), (7,) * 20])
@torch.no_grad()
def test_texts_in_any_order_and_their_tails(backbone: Backbone, lengths: tuple[int, ...]) -> None:
    embedded = backbone.embed(torch.cat(some_texts(*lengths)))
    expected = expected_states(backbone, embedded, lengths)
    for tail in range(min(lengths) + 1):
        states = backbone.encode(embedded, lengths, tail=tail)
        rows = Packing.of(lengths, causal=False, device=embedded.device, tail=tail).tail_rows() if tail else slice(None)
        torch.testing.assert_close(states[rows], expected[rows], **CLOSE)


@torch.no_grad()
def test_bfloat16_in_and_out() -> None:
    exact = Backbone(build("llama"))
    embedded = exact.embed(torch.cat(some_texts(*LENGTHS)))
    half = Backbone(build("llama").bfloat16())
    half.use_openvino()
    states = half.encode(embedded.bfloat16(), LENGTHS)
    assert states.dtype == torch.bfloat16
    cosines = torch.cosine_similarity(states.float(), expected_states(exact, embedded, LENGTHS))
    assert cosines.min() > 0.999


@pytest.mark.parametrize("change", [in_place, through_data, replaced, trained], ids=lambda c: c.__name__)
@torch.no_grad()
def test_changed_weights_are_seen(backbone: Backbone, embedded: Tensor, change: Callable[[nn.Module], None]) -> None:
    before = backbone.encode(embedded, LENGTHS)
    change(backbone.language_model)
    states = backbone.encode(embedded, LENGTHS)
    assert runs_openvino(backbone)
    assert not torch.allclose(states, before, atol=1e-3)
    torch.testing.assert_close(states, expected_states(backbone, embedded, LENGTHS), **CLOSE)


@torch.no_grad()
def test_an_adapter_is_used_and_can_be_merged(backbone: Backbone, embedded: Tensor) -> None:
    without = backbone.encode(embedded, LENGTHS)
    stirred(backbone)
    expected = expected_states(backbone, embedded, LENGTHS)
    states = backbone.encode(embedded, LENGTHS)
    assert runs_openvino(backbone)
    assert not torch.allclose(states, without, atol=1e-2)
    torch.testing.assert_close(states, expected, **CLOSE)
    backbone.merge_adapter()
    torch.testing.assert_close(backbone.encode(embedded, LENGTHS), expected, **CLOSE)
    assert runs_openvino(backbone)


@torch.no_grad()
def test_the_first_layers_of_a_model() -> None:
    backbone = Backbone(build("llama", num_hidden_layers=3), layers=2)
    backbone.use_openvino()
    embedded = backbone.embed(torch.cat(some_texts(*LENGTHS)))
    torch.testing.assert_close(
        backbone.encode(embedded, LENGTHS), expected_states(backbone, embedded, LENGTHS), **CLOSE
    )


def test_gradients_training_and_reading_take_other_passes(backbone: Backbone, embedded: Tensor) -> None:
    leaf = embedded.clone().requires_grad_()
    backbone.encode(leaf, LENGTHS).sum().backward()
    assert leaf.grad is not None
    assert not runs_openvino(backbone)
    backbone.train()
    with torch.no_grad():
        backbone.encode(embedded, LENGTHS)
        backbone.read(embedded, LENGTHS)
    assert not runs_openvino(backbone)


@torch.no_grad()
def test_hooks_of_others_are_called(backbone: Backbone, embedded: Tensor) -> None:
    calls: list[str] = []
    layer = backbone.language_model.model.layers[0]
    layer.register_forward_hook(lambda *_: calls.append("hook"))
    in_place(backbone.language_model)  # it is traced anew, which calls no hooks
    backbone.encode(embedded, LENGTHS)
    assert calls == ["hook"]


@torch.no_grad()
def test_copies_use_it_too(backbone: Backbone, embedded: Tensor) -> None:
    expected = backbone.encode(embedded, LENGTHS)
    for twin in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        torch.testing.assert_close(twin.encode(embedded, LENGTHS), expected, **CLOSE)
        assert runs_openvino(twin)


@torch.no_grad()
def test_first_passes_of_several_threads(backbone: Backbone, embedded: Tensor) -> None:
    expected = expected_states(backbone, embedded, LENGTHS)

    def run(_: int) -> Tensor:
        with torch.inference_mode():  # a setting of the thread
            return backbone.encode(embedded, LENGTHS)

    in_place(backbone.language_model)
    in_place(backbone.language_model)
    backbone.language_model.get_parameter("model.layers.1.mlp.up_proj.weight").div_(4)
    with ThreadPoolExecutor(4) as pool:
        for states in pool.map(run, range(16)):
            torch.testing.assert_close(states, expected, **CLOSE)


@torch.no_grad()
def test_the_models_attention_stays_as_it_was(backbone: Backbone, embedded: Tensor) -> None:
    plain = Backbone(build("llama"))
    assert backbone.language_model.config._attn_implementation == plain.language_model.config._attn_implementation
    torch.testing.assert_close(backbone.read(embedded, LENGTHS), plain.read(embedded, LENGTHS))


class SignalStack(ctypes.Structure):
    """C's stack_t."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("bytes", ctypes.c_size_t))


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's list of mapped memory")
def test_signals_are_not_handled_on_a_stack_that_was_freed() -> None:
    """OpenVINO gives the thread that starts it a stack for signals, which another thread frees but cannot take away."""
    backbones = [with_openvino()]
    with ThreadPoolExecutor(1) as other:
        other.submit(backbones.clear).result()
    stack = SignalStack()
    assert not ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    lines = Path("/proc/self/maps").read_text().splitlines()
    mapped = [[int(end, 16) for end in line.split()[0].split("-")] for line in lines]
    assert stack.address is None or any(begin <= stack.address < end for begin, end in mapped)


def test_a_padded_model_is_refused() -> None:
    with pytest.raises(BackboneError, match="engine openvino cannot run LlamaForCausalLM"):
        Backbone(build("llama"), "padded").use_openvino()


def test_a_graph_with_other_states_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_pass, "_LEAST_COSINE", 1.1)
    with pytest.raises(BackboneError, match=r"engine openvino cannot run LlamaForCausalLM \(a cosine of 1.0000"):
        with_openvino()


@torch.no_grad()
def test_a_model_that_it_can_no_longer_run_takes_torch(
    backbone: Backbone, embedded: Tensor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    in_place(backbone.language_model)
    monkeypatch.setattr(openvino_pass, "_LEAST_COSINE", 1.1)
    with caplog.at_level(logging.WARNING):
        states = [backbone.encode(embedded, LENGTHS) for _ in range(2)]
    torch.testing.assert_close(states[1], expected_states(backbone, embedded, LENGTHS), **CLOSE)
    assert [record.getMessage() for record in caplog.records] == [
        "engine openvino cannot run LlamaForCausalLM (a cosine of 1.0000 to the model's own states): give engine "
        "torch; using torch from now on"
    ]
