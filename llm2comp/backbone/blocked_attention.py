"""Attention of bfloat16 texts on CPUs: matrix products over blocks of scores that stay in a core's cache.

PyTorch's fused attention reaches a third of the rate of bfloat16 products on CPUs, less on short texts. Two batched
products with a softmax between them come closer, as long as a block of scores is not written to memory in between.
Texts of nearly one length are padded to a multiple of 8 or 16 tokens and share products. So there are few products, of
few shapes, for each of which oneDNN compiles code.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from llm2comp.backbone.hardware import multiplies_tiles

__all__ = ["BlockPlan", "attend_in_one_block", "blocked_attention", "fits_one_block", "suits_blocks"]

_BLOCK_BYTES = 2**20
"""Scores of a block: what fits in the second-level cache of a server's core."""

_STEP, _STEP_OF_SHORT = 16, 8
"""Texts are padded to a multiple of this many tokens; the second where that is at most `_SHORT`, and without AMX."""

_SHORT = 64

_LEAST_TOKENS = 128
"""For fewer tokens in all, such as a short query, PyTorch's attention is faster than a plan and its gathers."""


@dataclass(frozen=True, slots=True)
class _Bucket:
    """Neighbouring texts that are padded to one length.

    Attributes:
        groups: Texts times key heads.
        rows: Query rows of a group: the query heads that share its keys, one after another, each with the text's rows.
        length: Keys of a group, padding included.
        mask: Added to the scores, (groups, 1, length), -inf for padding; None without padding.
    """

    groups: int
    rows: int
    length: int
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """Which states of a packed batch meet in which product; the same for all layers of a pass.

    States are numbered as (token, head) pairs: token x heads + head.

    Attributes:
        queries: States of queries, in the order of buckets, groups and rows.
        keys: States of keys, in the order of buckets, groups and tokens.
        attended: Positions among `queries` of all states whose output is asked for, in the order of `states`.
        states: States that have an output; None: all, in order.
        buckets: Shapes of the products.
    """

    queries: Tensor
    keys: Tensor
    attended: Tensor
    states: Tensor | None
    buckets: tuple[_Bucket, ...]

    @classmethod
    def of(cls, lengths: Sequence[int], heads: int, key_heads: int, tail: int = 0) -> "BlockPlan":
        """The plan of texts with these lengths.

        Args:
            lengths: Tokens of each text.
            heads: Query heads; a multiple of `key_heads`.
            key_heads: Key and value heads.
            tail: Tokens at the end of each text that attend; 0: all.
        """
        parts = []
        first_token = first_row = 0
        for padded, group in groupby(lengths, _padded):
            sizes = torch.tensor(list(group))
            parts.append(_plan_bucket(sizes, first_token, first_row, padded, heads, key_heads, tail))
            first_token += int(sizes.sum())
            first_row += len(parts[-1].queries)
        return cls(
            queries=torch.cat([part.queries for part in parts]),
            keys=torch.cat([part.keys for part in parts]),
            attended=torch.cat([part.attended for part in parts]),
            states=torch.cat([part.states for part in parts if part.states is not None]) if tail else None,
            buckets=tuple(bucket for part in parts for bucket in part.buckets),
        )


def _padded(length: int) -> int:
    """Tokens of a text with padding."""
    short = length + -length % _STEP_OF_SHORT
    return short if short <= _SHORT and not multiplies_tiles() else length + -length % _STEP


def _plan_bucket(
    sizes: Tensor, first_token: int, first_row: int, padded: int, heads: int, key_heads: int, tail: int
) -> BlockPlan:
    """The plan of neighbouring texts that are padded to one length; padding repeats a text's last state.

    Args:
        sizes: Tokens of each text, (texts,).
        first_token: Number of the first text's first token.
        first_row: Position of its first query among the queries of all buckets.
        padded: Tokens of each text with padding.
        heads: As for `BlockPlan.of`, and so the last two.
        key_heads: Key heads.
        tail: Tokens that attend.
    """
    starts, last = first_token + sizes.cumsum(0) - sizes, sizes[:, None] - 1
    positions = torch.arange(padded).expand(len(sizes), -1)
    query_positions = last + 1 - tail + torch.arange(tail) if tail else positions
    query_tokens = starts[:, None] + torch.minimum(query_positions, last)
    queries = query_tokens[:, None] * heads + torch.arange(heads)[:, None]  # (texts, heads, rows)
    rows = first_row + torch.arange(queries.numel()).view(queries.shape)
    are_asked = query_positions <= last  # (texts, rows)
    key_tokens = starts[:, None] + torch.minimum(positions, last)
    mask = None
    if int(sizes.min()) < padded:
        mask = torch.zeros(positions.shape, dtype=torch.bfloat16).masked_fill(positions > last, -torch.inf)
        mask = mask[:, None].repeat_interleave(key_heads, dim=0)
    shape = len(sizes) * key_heads, heads // key_heads * queries.shape[2], padded
    return BlockPlan(
        queries=queries.flatten(),
        keys=(key_tokens[:, None] * key_heads + torch.arange(key_heads)[:, None]).flatten(),
        attended=rows.transpose(1, 2)[are_asked].flatten(),
        states=queries.transpose(1, 2)[are_asked].flatten() if tail else None,
        buckets=(_Bucket(*shape, mask),),
    )


def suits_blocks(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether the states are bfloat16 on a CPU, of enough tokens, and no gradient is asked for."""
    if query.shape[2] < _LEAST_TOKENS:
        return False
    trained = torch.is_grad_enabled() and any(states.requires_grad for states in (query, key, value))
    return not trained and all(
        states.device.type == "cpu" and states.dtype == torch.bfloat16 for states in (query, key, value)
    )


def blocked_attention(query: Tensor, key: Tensor, value: Tensor, plan: BlockPlan, scaling: float | None) -> Tensor:
    """Bidirectional attention within each text; scores are bfloat16, the softmax computes in float32.

    Args:
        query: (1, heads, tokens, dim).
        key: (1, key heads, tokens, dim).
        value: (1, key heads, tokens, value dim).
        plan: Of the texts that the tokens begin with; for the tokens after them the output is 0.
        scaling: Factor on the scores; 1 / sqrt(dim) if None.

    Returns:
        (1, tokens, heads, value dim); 0 for tokens that the plan does not ask for.
    """
    heads, tokens, dim = query.shape[1:]
    queries = _by_state(query).index_select(0, plan.queries)
    keys, values = (_by_state(states).index_select(0, plan.keys) for states in (key, value))
    width = values.shape[-1]
    products = queries.new_empty(len(queries), width)
    scale = dim**-0.5 if scaling is None else scaling
    row = token = 0
    for bucket in plan.buckets:
        rows, length = bucket.groups * bucket.rows, bucket.groups * bucket.length
        _attend(
            queries[row : row + rows].view(bucket.groups, bucket.rows, dim),
            keys[token : token + length].view(bucket.groups, bucket.length, dim).transpose(1, 2),
            values[token : token + length].view(bucket.groups, bucket.length, width),
            bucket.mask,
            scale,
            products[row : row + rows].view(bucket.groups, bucket.rows, width),
        )
        row, token = row + rows, token + length
    attended = products.index_select(0, plan.attended)
    if plan.states is not None or len(attended) < tokens * heads:
        states = torch.arange(len(attended)) if plan.states is None else plan.states
        attended = attended.new_zeros(tokens * heads, width).index_copy_(0, states, attended)
    return attended.view(1, tokens, heads, width)


def fits_one_block(query: Tensor, key: Tensor) -> bool:
    """Whether the scores of queries, (rows, heads, dim), and keys, (tokens, key heads, dim), are at most a block."""
    return query.shape[0] * query.shape[1] * key.shape[0] * query.element_size() <= _BLOCK_BYTES


def attend_in_one_block(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Attention within one text whose scores are at most a block, with few operations.

    Args:
        query: (rows, heads, dim).
        key: (tokens, key heads, dim).
        value: (tokens, key heads, dim).
        scaling: Factor on the scores.

    Returns:
        (rows, heads x dim).
    """
    rows, heads, dim = query.shape
    shared = heads // key.shape[1]
    by_key_head: Tensor = query.unflatten(1, (-1, shared)).permute(1, 2, 0, 3)
    grouped = by_key_head.reshape(-1, shared * rows, dim)
    nothing = query.new_empty(1, 1, 1)  # what baddbmm would add
    scores = torch.baddbmm(nothing, grouped, key.permute(1, 2, 0), beta=0, alpha=scaling)
    attended = torch.bmm(scores.softmax(-1), value.transpose(0, 1))
    by_row: Tensor = attended.unflatten(1, (shared, rows)).permute(2, 0, 1, 3)
    return by_row.reshape(rows, -1)


def _by_state(states: Tensor) -> Tensor:
    """(1, heads, tokens, dim) -> (tokens x heads, dim); a view, if heads follow one another in memory."""
    return states[0].transpose(0, 1).reshape(-1, states.shape[-1])


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, output: Tensor) -> None:
    """Writes the attention of (groups, rows, dim) over (groups, dim, length) and (groups, length, value dim)."""
    groups, rows, _ = query.shape
    block = max(1, _BLOCK_BYTES // (key.shape[2] * key.element_size()))  # rows of scores
    nothing = query.new_empty(1, 1, 1)  # what baddbmm would add
    for first, last in _slices(groups, max(1, block // rows)):
        for start in range(0, rows, block):
            part = slice(start, start + block)
            scores = torch.baddbmm(nothing, query[first:last, part], key[first:last], beta=0, alpha=scale)
            if mask is not None:
                scores += mask[first:last]
            torch.bmm(scores.softmax(-1), value[first:last], out=output[first:last, part])


def _slices(count: int, step: int) -> Iterator[tuple[int, int]]:
    """Beginnings and ends of slices of `step`, and of powers of two for the rest, so that few sizes occur."""
    first = 0
    while first < count:
        size = step if count - first >= step else 2 ** ((count - first).bit_length() - 1)
        yield first, first + size
        first += size
