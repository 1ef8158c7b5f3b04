"""Packed attention against the padded classes of many families, with windows, sinks, caps and dropout."""

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llm2comp.backbone.attention import Packing, packed_attention
from llm2comp.backbone.backbone import Backbone
from llm2comp.backbone.forward import rows_of_padding, run_packed
from llm2comp.errors import BackboneError
from tests.families import PACKED, PADDED, WINDOW, build, padded_states, some_texts, states_by_hand

LENGTHS = (5, 17, 17, 9, 1, 24)
CPU = torch.device("cpu")


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", [*PACKED, *PADDED])
@torch.no_grad()
def test_states_are_those_of_the_padded_classes(family: str) -> None:
    plain = build(family)
    texts = some_texts(*LENGTHS)
    backbone = Backbone(copy.deepcopy(plain))
    assert backbone.attention == ("packed" if family in PACKED else "padded")
    embedded = backbone.embed(torch.cat(texts))

    by_hand = states_by_hand(plain, texts[-1])
    causal = padded_states(plain, texts, causal=True)
    bidirectional = padded_states(plain, texts, causal=False)
    if by_hand is not None:
        close(bidirectional[-len(texts[-1]) :], by_hand)
    assert (bidirectional - causal).abs().max() > 0.1

    close(backbone.encode(embedded, LENGTHS), bidirectional)
    close(backbone.read(embedded, LENGTHS), causal)


@pytest.mark.parametrize("family", PACKED)
@pytest.mark.parametrize("causal", [False, True])
@torch.no_grad()
def test_padding_changes_no_text(family: str, causal: bool) -> None:
    backbone = Backbone(build(family))
    embedded = backbone.embed(torch.cat(some_texts(*LENGTHS)))
    plain, padded = (
        run_packed(backbone.language_model, embedded, Packing.of(LENGTHS, causal=causal, device=CPU, padding=rows))
        for rows in (0, 7)
    )
    assert padded.shape == embedded.shape
    close(padded, plain)


@pytest.mark.parametrize(
    ("dtype", "autocast", "rows"), [("float32", False, 0), ("bfloat16", False, 7), ("float32", True, 7)]
)
def test_passes_in_bfloat16_have_few_numbers_of_rows(dtype: str, autocast: bool, rows: int) -> None:
    backbone = Backbone(build("llama").to(getattr(torch, dtype)))
    seen = []
    backbone.language_model.model.layers[0].mlp.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].shape[1])
    )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        states = backbone.encode(backbone.embed(torch.cat(some_texts(*LENGTHS))), LENGTHS)
    assert seen == [sum(LENGTHS) + rows]  # 73, and 80, the next multiple of 16
    assert len(states) == sum(LENGTHS)


@pytest.mark.parametrize(("tiles", "sizes"), [(False, 32), (True, 8)])
def test_padding_adds_a_small_share_beyond_small_passes(
    tiles: bool, sizes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm2comp.backbone.forward.multiplies_tiles", lambda: tiles)
    rows = [*range(1, 300), *range(1000, 20_000, 7)]
    padded = [count + rows_of_padding(torch.empty(count, 1, dtype=torch.bfloat16)) for count in rows]
    assert all(
        count <= more <= max(count + count // sizes + 1, count + 15) for count, more in zip(rows, padded, strict=True)
    )
    assert len({more for more in padded if 1024 < more <= 16_384}) == 4 * sizes


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3_text", "qwen2", "gpt2"])
@torch.no_grad()
def test_a_model_that_packs_may_run_padded(family: str) -> None:
    plain = build(family)
    texts = some_texts(*LENGTHS)
    packed, padded = Backbone(copy.deepcopy(plain)), Backbone(plain, "padded")
    assert padded.attention == "padded"
    embedded = packed.embed(torch.cat(texts))
    close(padded.encode(embedded, LENGTHS), packed.encode(embedded, LENGTHS))
    close(padded.read(embedded, LENGTHS), packed.read(embedded, LENGTHS))


def test_gradients_are_those_of_the_padded_classes() -> None:
    plain = build("llama")
    texts = some_texts(*LENGTHS)
    backbone = Backbone(copy.deepcopy(plain))
    for causal in (True, False):
        tokens = torch.cat(texts)
        states = (
            backbone.read(backbone.embed(tokens), LENGTHS)
            if causal
            else backbone.encode(backbone.embed(tokens), LENGTHS)
        )
        expected = padded_states(plain, texts, causal=causal)
        weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(3))
        for result in (states, expected):
            (result * weights).sum().backward()
        for (name, actual), parameter in zip(
            backbone.language_model.named_parameters(), plain.parameters(), strict=True
        ):
            if name == "lm_head.weight":
                assert actual.grad is None
                continue
            assert actual.grad is not None
            assert parameter.grad is not None
            scale = float(parameter.grad.abs().max())  # sums over all tokens, in another order
            torch.testing.assert_close(actual.grad, parameter.grad, atol=1e-5 * scale, rtol=2e-4, msg=name)
            actual.grad, parameter.grad = None, None


@pytest.mark.parametrize("autocast", [True, False])
def test_what_is_trained_on_a_cpu_attends_in_float32(autocast: bool) -> None:
    draw = torch.Generator().manual_seed(4)
    packing = Packing.of(LENGTHS, causal=False, device=CPU)
    states = [torch.randn(1, 2, sum(LENGTHS), 16, generator=draw).bfloat16() for _ in range(3)]
    exact = [state.double().requires_grad_() for state in states]
    # rotary embeddings leave float32
    trained = [(state.float() if autocast else state).clone().requires_grad_() for state in states]
    weights = torch.randn(1, sum(LENGTHS), 2, 16, generator=draw)
    expected, _ = packed_attention(nn.Module(), *exact, None, packing=packing)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        actual, _ = packed_attention(nn.Module(), *trained, None, packing=packing)
    assert actual.dtype == states[0].dtype or autocast
    torch.testing.assert_close(actual.double(), expected, atol=1e-6, rtol=0 if autocast else 2**-8)
    (actual.float() * weights).sum().backward()
    (expected * weights).sum().backward()
    for one, other in zip(trained, exact, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(
            one.grad.double(), other.grad, atol=1e-6 if autocast else 2e-2, rtol=0 if autocast else 2**-8
        )


@pytest.mark.parametrize("family", ["mistral", "phi3", "starcoder2", "gemma2"])
@pytest.mark.parametrize("attention", ["packed", "padded"])
@torch.no_grad()
def test_the_last_token_sees_the_beginning_of_a_text_longer_than_the_window(family: str, attention: str) -> None:
    backbone = Backbone(build(family, num_hidden_layers=1), attention)  # type: ignore[arg-type]  # one layer: nothing arrives in two steps
    (text,) = some_texts(3 * WINDOW)
    changed = text.clone()
    changed[0] = 97
    before, after = (backbone.encode(backbone.embed(tokens), [len(text)])[-1] for tokens in (text, changed))
    assert (before - after).abs().max() > 1e-3
    before, after = (backbone.read(backbone.embed(tokens), [len(text)])[-1] for tokens in (text, changed))
    assert torch.equal(before, after)


@torch.no_grad()
def test_texts_do_not_see_each_other() -> None:
    backbone = Backbone(build("qwen3"))
    first, second, third = some_texts(7, 7, 4)
    alone = backbone.encode(backbone.embed(second), [7])
    beside = backbone.encode(backbone.embed(torch.cat([first, second, third])), [7, 7, 4])[7:14]
    close(beside, alone)


@torch.no_grad()
def test_dropout_falls_on_training_of_the_encoder_only() -> None:
    backbone = Backbone(build("llama"))
    (text,) = some_texts(12)
    embedded = backbone.embed(text)
    exact, read = backbone.encode(embedded, [12]), backbone.read(embedded, [12])
    backbone.set_attention_dropout(0.5)
    assert torch.equal(backbone.encode(embedded, [12]), exact)
    backbone.train()
    assert not torch.allclose(backbone.encode(embedded, [12]), exact)
    assert torch.equal(backbone.read(embedded, [12]), read)
    backbone.set_attention_dropout(0.0)
    close(backbone.encode(embedded, [12]), exact)


@pytest.mark.parametrize("family", ["gemma2", "gpt_oss"])
@torch.no_grad()
def test_dropout_of_written_out_attention(family: str) -> None:
    backbone = Backbone(build(family)).train()
    (text,) = some_texts(12)
    exact = backbone.encode(backbone.embed(text), [12])
    backbone.set_attention_dropout(0.5)
    assert not torch.allclose(backbone.encode(backbone.embed(text), [12]), exact)


def test_neighbours_of_one_length_attend_together() -> None:
    packing = Packing.of([3, 5, 5, 5, 2], causal=False, device=CPU)
    assert packing.runs() == [(1, 3), (3, 5), (1, 2)]
    assert packing.boundaries.tolist() == [0, 3, 8, 13, 18, 20]
    assert packing.positions.tolist() == [[0, 1, 2, *range(5), *range(5), *range(5), 0, 1]]


class _Layer(nn.Module):
    """An attention module with the attributes that transformers' have."""

    def __init__(self, kind: str = "full_attention") -> None:
        super().__init__()
        self.layer_idx = 0
        self.config = type("Config", (), {"layer_types": [kind], "sliding_window": 2})()


def test_what_packed_attention_does_not_know_is_refused() -> None:
    query, key, value = (torch.randn(1, 2, 4, 8) for _ in range(3))
    packing = Packing.of([4], causal=True, device=CPU)
    with pytest.raises(BackboneError, match="_Layer does not pass its keyword arguments to attention"):
        packed_attention(_Layer(), query, key, value, None)
    with pytest.raises(BackboneError, match="passes position_bias to attention, which packed attention does not know"):
        packed_attention(_Layer(), query, key, value, None, packing=packing, position_bias=torch.ones(1), dropout=0.1)
    with pytest.raises(BackboneError, match="a mask of its own"):
        packed_attention(_Layer(), query, key, value, torch.ones(4, 4), packing=packing)
    with pytest.raises(BackboneError, match="of kind 'chunked_attention'"):
        packed_attention(_Layer("chunked_attention"), query, key, value, None, packing=packing)


def test_a_window_known_to_the_configuration_only() -> None:
    query, key, value = (torch.randn(1, 2, 4, 8) for _ in range(3))
    packing = Packing.of([4], causal=True, device=CPU)
    windowed, _ = packed_attention(_Layer("sliding_attention"), query, key, value, None, packing=packing)
    explicit, _ = packed_attention(_Layer(), query, key, value, None, packing=packing, sliding_window=2)
    last_two = (query[0, :, 3:] @ key[0, :, 2:].transpose(1, 2) * 8**-0.5).softmax(-1) @ value[0, :, 2:]
    close(windowed[0, 3], last_two[:, 0])
    close(explicit, windowed)


def kernel_by_hand(
    query: Tensor, key: Tensor, value: Tensor, ends_q: Tensor, ends_k: Tensor, max_q: int, max_k: int, **options: Any
) -> Tensor:
    """`torch.nn.attention.varlen.varlen_attn` as documented, (tokens, heads, dim), for machines without it."""
    assert query.shape == key.shape == value.shape
    assert ends_q.dtype == ends_k.dtype == torch.int32
    assert max_q == max_k == ends_q.diff().max()
    (before, after), parts = options["window_size"], []
    for start, end in itertools.pairwise(ends_q.tolist()):
        q, k, v = (states[start:end].transpose(0, 1) for states in (query, key, value))
        distance = torch.arange(end - start)[:, None] - torch.arange(end - start)
        hidden = ((distance > before) & (before >= 0)) | ((distance < -after) & (after >= 0))
        scale = query.shape[-1] ** -0.5 if options["scale"] is None else options["scale"]
        parts.append(((q @ k.transpose(1, 2) * scale).masked_fill(hidden, -torch.inf).softmax(-1) @ v).transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3_text", "granite", "gpt2"])
def test_what_the_cuda_kernel_is_given(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but the kernel itself, in float32: shapes, repeated heads, boundaries, windows, scale, gradients."""
    from llm2comp.backbone import attention

    backbone = Backbone(build(family))
    embedded = backbone.embed(torch.cat(some_texts(*LENGTHS))).detach().requires_grad_()
    expected = [backbone.encode(embedded, LENGTHS), backbone.read(embedded, LENGTHS)]
    gradients = [torch.autograd.grad(states.pow(2).sum(), embedded)[0] for states in expected]
    used = []

    def kernel(*arguments: Any, **options: Any) -> Tensor:
        used.append(options["window_size"])
        return kernel_by_hand(*arguments, **options)

    monkeypatch.setattr(attention, "_has_kernel", lambda device: True)
    monkeypatch.setattr(
        attention,
        "_in_half_precision",
        lambda query, key, value: (query, attention._all_heads(key, query), attention._all_heads(value, query)),
    )
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    actual = [backbone.encode(embedded, LENGTHS), backbone.read(embedded, LENGTHS)]
    assert used[:2] == [(-1, -1)] * 2
    assert set(used[2:]) == {"mistral": {(WINDOW - 1, 0)}, "gemma3_text": {(WINDOW - 1, 0), (-1, 0)}}.get(
        family, {(-1, 0)}
    )
    for states, other, gradient in zip(actual, expected, gradients, strict=True):
        close(states, other)
        torch.testing.assert_close(
            torch.autograd.grad(states.pow(2).sum(), embedded)[0], gradient, atol=1e-3, rtol=1e-3
        )


def test_precision_the_cuda_kernel_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    from llm2comp.backbone.attention import _in_half_precision

    query, key = torch.randn(1, 4, 5, 16), torch.randn(1, 2, 5, 16)
    assert _in_half_precision(query, key, key) is None
    assert _in_half_precision(query[..., :12].bfloat16(), key[..., :12].bfloat16(), key[..., :12].bfloat16()) is None
    assert _in_half_precision(query.bfloat16(), key.bfloat16(), key[..., :8].bfloat16()) is None
    halves = _in_half_precision(query.bfloat16(), key.bfloat16(), key.bfloat16())
    assert halves is not None
    assert [tuple(states.shape) for states in halves] == [(1, 4, 5, 16)] * 3
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: device == "cuda")
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda device: torch.bfloat16)
    # rotary embeddings leave float32 where autocast made bfloat16
    mixed = _in_half_precision(query, key, key.bfloat16())
    assert mixed is not None
    assert {states.dtype for states in mixed} == {torch.bfloat16}


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral", "gemma", "gpt2"])
@torch.no_grad()
def test_variable_length_kernel_against_the_cpu(family: str) -> None:
    """bfloat16 on both sides, so that only the kernel differs; heads of 16, which it supports."""
    plain = build(family, **({} if family == "gpt2" else {"hidden_size": 64, "head_dim": 16}))
    texts = some_texts(*LENGTHS)
    slow, fast = Backbone(copy.deepcopy(plain).bfloat16()), Backbone(plain.bfloat16()).cuda()
    embedded = slow.embed(torch.cat(texts))
    for way in ("encode", "read"):
        expected, actual = (
            getattr(slow, way)(embedded, LENGTHS).float(),
            getattr(fast, way)(embedded.cuda(), LENGTHS).cpu().float(),
        )
        cosine = nn.functional.cosine_similarity(actual, expected, dim=-1)
        assert cosine.min() > 0.99, f"{way}: {cosine.min()}"


@gpu
@pytest.mark.gpu
def test_variable_length_kernel_is_used_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    from llm2comp.backbone import attention

    calls = []
    kernel = attention._varlen

    def watched(*arguments: Any) -> Tensor:
        calls.append(arguments[0].dtype)
        return kernel(*arguments)

    monkeypatch.setattr(attention, "_varlen", watched)
    backbone = Backbone(build("llama", hidden_size=64)).cuda()
    embedded = backbone.embed(torch.cat(some_texts(*LENGTHS)).cuda())
    with torch.autocast("cuda", torch.bfloat16):
        loss = backbone.encode(embedded, LENGTHS).float().pow(2).mean()
    loss.backward()
    assert calls == [torch.bfloat16] * 2
    gradient = next(backbone.parameters()).grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()


@gpu
@pytest.mark.gpu
@torch.no_grad()
def test_float32_on_cuda_against_the_cpu() -> None:
    plain = build("llama")
    slow, fast = Backbone(copy.deepcopy(plain)), Backbone(plain).cuda()
    embedded = slow.embed(torch.cat(some_texts(*LENGTHS)))
    for way in ("encode", "read"):
        torch.testing.assert_close(
            getattr(fast, way)(embedded.cuda(), LENGTHS).cpu(),
            getattr(slow, way)(embedded, LENGTHS),
            atol=1e-4,
            rtol=1e-4,
        )
