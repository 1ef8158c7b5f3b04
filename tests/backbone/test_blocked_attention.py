"""Attention in blocks of scores: the values of PyTorch's attention, for any lengths, heads and size of a block."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional

import llm2comp
from llm2comp.backbone import blocked_attention as module
from llm2comp.backbone.blocked_attention import BlockPlan, blocked_attention, suits_blocks

DIM, VALUE_DIM = 16, 24


def states(heads: int, tokens: int, dim: int, seed: int) -> torch.Tensor:
    return torch.randn(1, heads, tokens, dim, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)


def text_by_text(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int], scaling: float | None = None
) -> torch.Tensor:
    """PyTorch's attention in float32, (1, tokens, heads, dim); 0 after the last text."""
    output = torch.zeros(1, query.shape[2], query.shape[1], value.shape[-1])
    ends = torch.tensor([0, *lengths]).cumsum(0).tolist()
    for first, last in pairwise(ends):
        parts = (part[:, :, first:last].float() for part in (query, key, value))
        attended = functional.scaled_dot_product_attention(*parts, scale=scaling, enable_gqa=True)
        output[:, first:last] = attended.transpose(1, 2)
    return output


@pytest.mark.parametrize("block_bytes", [1, 300, 5_000, 2**20])
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (9, 3), (6, 1)])
@pytest.mark.parametrize("lengths", [[1], [17, 17, 16, 3], [100], [5, 40, 33, 33, 48, 7, 7, 7, 7, 7]])
def test_values_are_those_of_attention_in_float32(
    lengths: list[int], heads: int, key_heads: int, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK_BYTES", block_bytes)
    tokens = sum(lengths) + 5  # padding of the pass, whose output is 0
    query = states(heads, tokens, DIM, 0)
    key, value = states(key_heads, tokens, DIM, 1), states(key_heads, tokens, VALUE_DIM, 2)
    expected = text_by_text(query, key, value, lengths)
    plan = BlockPlan.of(lengths, heads, key_heads)
    torch.testing.assert_close(blocked_attention(query, key, value, plan, None).float(), expected, rtol=0.02, atol=0.03)
    for tail in (1, min(lengths)):
        asked = torch.zeros(tokens, dtype=torch.bool)
        for end in torch.tensor(lengths).cumsum(0).tolist():
            asked[end - tail : end] = True
        plan = BlockPlan.of(lengths, heads, key_heads, tail)
        of_tails = blocked_attention(query, key, value, plan, None).float()
        torch.testing.assert_close(of_tails, expected * asked[:, None, None], rtol=0.02, atol=0.03)


def test_the_factor_on_the_scores() -> None:
    query, key, value = (states(4, 9, DIM, seed) for seed in range(3))
    attended = blocked_attention(query, key, value, BlockPlan.of([9], 4, 4), 0.5)
    torch.testing.assert_close(attended.float(), text_by_text(query, key, value, [9], 0.5), rtol=0.02, atol=0.03)


def test_nothing_of_a_text_reaches_another() -> None:
    """Even infinite states stay where they are, though texts of nearly one length share a product."""
    lengths = [20, 18, 25]
    query, key, value = (states(2, 63, DIM, seed) for seed in range(3))
    plan = BlockPlan.of(lengths, 2, 2)
    before = blocked_attention(query, key, value, plan, None)
    for broken in (query, key, value):
        broken[:, :, 20:38] = torch.nan
    after = blocked_attention(query, key, value, plan, None)
    torch.testing.assert_close(after[:, :20], before[:, :20], rtol=0, atol=0)
    torch.testing.assert_close(after[:, 38:], before[:, 38:], rtol=0, atol=0)


@pytest.mark.parametrize("tiles", [False, True])
def test_products_have_few_shapes(tiles: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "multiplies_tiles", lambda: tiles)
    lengths = sorted(range(1, 400), reverse=True)
    buckets = BlockPlan.of(lengths, 4, 4).buckets
    short = range(16, 65, 16) if tiles else range(8, 65, 8)
    assert [bucket.length for bucket in buckets] == sorted([*short, *range(80, 401, 16)], reverse=True)


def test_slices_cover_everything_once() -> None:
    for count, step in ((111, 60), (5, 60), (60, 60), (1, 1)):
        slices = list(module._slices(count, step))
        assert [last for _, last in slices][-1] == count
        assert all(one[1] == other[0] for one, other in pairwise(slices))
        assert {last - first for first, last in slices} <= {step, 1, 2, 4, 8, 16, 32}


def test_only_bfloat16_without_gradients_suits() -> None:
    plain = states(2, 128, DIM, 0)
    trained = plain.clone().requires_grad_()
    assert suits_blocks(plain, plain, plain)
    assert not suits_blocks(plain.float(), plain, plain)
    assert not suits_blocks(plain[:, :, :127], plain[:, :, :127], plain[:, :, :127])
    assert not suits_blocks(trained, plain, plain)
    with torch.no_grad():
        assert suits_blocks(trained, plain, plain)


def test_vectors_in_bfloat16_stay_close_to_those_in_float32() -> None:
    texts = ["A.", "Return the square root of x.", "Words of a long text. " * 60, "Remove a file or directory. " * 9]
    half, full = (llm2comp.load(device="cpu", dtype=dtype).encode(texts) for dtype in ("bfloat16", "float32"))
    assert (half * full).sum(1).min() > 0.9995
