"""Attention in blocks of scores: the values of PyTorch's attention, for any shape and any size of a block."""

import pytest
import torch
from torch.nn import functional

import llm2comp
from llm2comp.backbone import blocked_attention as module
from llm2comp.backbone.blocked_attention import blocked_attention, suits_blocks


def states(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)


@pytest.mark.parametrize("block_bytes", [1, 300, 5_000, 2**20])
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (9, 3), (6, 1)])
@pytest.mark.parametrize(("texts", "rows", "length"), [(1, 1, 1), (3, 17, 17), (2, 8, 100), (5, 33, 40)])
def test_values_are_those_of_attention_in_float32(
    texts: int,
    rows: int,
    length: int,
    heads: int,
    key_heads: int,
    block_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_BLOCK_BYTES", block_bytes)
    query = states(texts, heads, rows, 16, seed=0)
    key, value = states(texts, key_heads, length, 16, seed=1), states(texts, key_heads, length, 24, seed=2)
    expected = functional.scaled_dot_product_attention(query.float(), key.float(), value.float(), enable_gqa=True)
    torch.testing.assert_close(blocked_attention(query, key, value).float(), expected, rtol=0.02, atol=0.03)


def test_the_factor_on_the_scores() -> None:
    query, key, value = (states(2, 4, 9, 16, seed=seed) for seed in range(3))
    expected = functional.scaled_dot_product_attention(query.float(), key.float(), value.float(), scale=0.5)
    torch.testing.assert_close(blocked_attention(query, key, value, 0.5).float(), expected, rtol=0.02, atol=0.03)


def test_only_long_texts_in_bfloat16_without_gradients_suit() -> None:
    plain = states(1, 2, 64, 16, seed=0)
    trained = plain.clone().requires_grad_()
    assert suits_blocks(plain, plain, plain)
    assert not suits_blocks(plain.float(), plain, plain)
    assert not suits_blocks(plain[:, :, :63], plain[:, :, :63], plain[:, :, :63])
    assert not suits_blocks(trained, plain, plain)
    with torch.no_grad():
        assert suits_blocks(trained, plain, plain)


def test_vectors_in_bfloat16_stay_close_to_those_in_float32() -> None:
    texts = ["A.", "Return the square root of x.", "Words of a long text. " * 60, "Remove a file or directory. " * 9]
    half, full = (llm2comp.load(device="cpu", dtype=dtype).encode(texts) for dtype in ("bfloat16", "float32"))
    assert (half * full).sum(1).min() > 0.9995
