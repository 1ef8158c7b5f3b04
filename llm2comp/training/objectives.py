"""The training objectives of compression, as functions of hidden states: distillation, continuation, reconstruction.

All three read logits only through a `head` (hidden states to vocabulary logits) and only a chunk of rows at a time, so
the memory they need does not grow with rows x vocabulary: each chunk's gradient is taken as soon as its logits exist.
The gradient of the logits is written down, softmax(student) - softmax(teacher), and only the head is left to autograd.
Source: Zhang et al., "Learning to Compress", AAAI 2026, section 3; the row bookkeeping is in `training.compression`.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Head", "cross_entropy", "distillation"]

Head = Callable[[Tensor], Tensor]
"""Hidden states (rows, hidden) to logits (rows, vocabulary), in a tensor of their own: it is written over."""

_CHUNK_LOGITS = {"cpu": 2**23, "gpu": 2**26}
"""Logits of a chunk, whatever the vocabulary. Few rows make its products slow, for each reads the whole output layer; many take memory."""

_BLOCK_LOGITS = 2**17
"""On CPUs what is done number by number is done in float32 on blocks of half a MiB, which stay in the cache."""


def distillation(
    student: Tensor,
    teacher: Tensor,
    weights: Tensor,
    head: Head,
    *,
    parameters: Iterable[Tensor] = (),
    chunk_rows: int | None = None,
) -> Tensor:
    """KL(teacher || student) at temperature 1, summed over rows with the given weights (CTKD).

    Computed in float32 as sum of p (t - s) - log Z_t + log Z_s, with p the teacher's probabilities, t and s the logits,
    Z the sums of their exponentials: two exponentials a logit, and finite whatever the gaps between logits, where
    `softmax().log()` overflows from about 100.

    Args:
        student: Final hidden states of the reader given memory tokens, (rows, hidden).
        teacher: Final hidden states of the same backbone given the whole text, (rows, hidden); constant.
        weights: (rows,); 1 / (rows of the sample x samples) gives the paper's mean over rows, then over samples.
        head: Hidden states to logits.
        parameters: Parameters of the head that are being trained, if any.
        chunk_rows: Rows whose logits exist at one time; None takes as many as the same memory holds at any vocabulary.

    Returns:
        A scalar in nats.
    """

    def score(rows: slice, logits: Tensor) -> _Scored:
        with torch.no_grad():
            taught = head(teacher[rows])

        def of_block(block: slice, found: Tensor) -> _Scored:
            expected = _exact(taught[block])
            shares, norms = _softmax(found)
            wanted, wanted_norms = _softmax(expected)
            of_logits = shares.sub_(wanted)
            return wanted.mul_(expected.sub_(found)).sum(-1) - wanted_norms + norms, of_logits

        return _by_block(of_block, logits, weights[rows])

    return _chunked(score, head, student, parameters, chunk_rows)


def cross_entropy(
    states: Tensor,
    targets: Tensor,
    weights: Tensor,
    head: Head,
    *,
    parameters: Iterable[Tensor] = (),
    chunk_rows: int | None = None,
) -> Tensor:
    """Cross-entropy of the next token, summed over rows with the given weights (continuation, reconstruction).

    Args:
        states: Final hidden states, (rows, hidden).
        targets: Token ids, (rows,).
        weights: (rows,); 1 / rows gives the token mean over the batch.
        head: Hidden states to logits.
        parameters: Parameters of the head that are being trained, if any.
        chunk_rows: Rows whose logits exist at one time; None takes as many as the same memory holds at any vocabulary.

    Returns:
        A scalar in nats.
    """

    def score(rows: slice, logits: Tensor) -> _Scored:
        chosen = targets[rows, None]

        def of_block(block: slice, found: Tensor) -> _Scored:
            shares, norms = _softmax(found)
            losses = norms - found.gather(1, chosen[block])[:, 0]
            return losses, shares.scatter_add_(1, chosen[block], -torch.ones_like(losses)[:, None])

        return _by_block(of_block, logits, weights[rows])

    return _chunked(score, head, states, parameters, chunk_rows)


_Scored = tuple[Tensor, Tensor]
"""Losses, and their gradient with respect to the logits (rows, vocabulary)."""

_Score = Callable[[slice, Tensor], _Scored]
"""Of these rows, given their logits, a block's in float32 or more; logits may be written over."""


def _exact(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _softmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities, and the logarithm of what they were divided by, (rows,): the largest is at least 1 / vocabulary, so that its logarithm is exact."""
    shares = functional.softmax(logits, dim=-1)
    return shares, logits.amax(-1) - shares.amax(-1).log()


def _by_block(of_block: _Score, logits: Tensor, weights: Tensor) -> _Scored:
    """The weighted sum of a chunk's losses, and its gradient, which takes the place of the logits."""
    rows = max(1, _BLOCK_LOGITS // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    totals = []
    for block in _chunks(len(logits), rows):
        losses, of_logits = of_block(block, _exact(logits[block]))
        totals.append((losses * weights[block]).sum())
        logits[block] = of_logits.mul_(weights[block, None])
    return torch.stack(totals).sum(), logits


def _chunked(score: _Score, head: Head, states: Tensor, parameters: Iterable[Tensor], chunk_rows: int | None) -> Tensor:
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if chunk_rows is None:
        with torch.no_grad():
            vocabulary = head(states[:0]).shape[-1]
        chunk_rows = max(1, _CHUNK_LOGITS["cpu" if states.device.type == "cpu" else "gpu"] // vocabulary)
    if torch.is_grad_enabled() and (states.requires_grad or trained):
        loss: Tensor = _ChunkedLoss.apply(score, head, chunk_rows, states, *trained)  # type: ignore[no-untyped-call]
        return loss
    with torch.no_grad():
        return torch.stack([score(rows, head(states[rows]))[0] for rows in _chunks(len(states), chunk_rows)]).sum()


def _chunks(rows: int, chunk_rows: int) -> Iterator[slice]:
    return (slice(start, min(start + chunk_rows, rows)) for start in range(0, max(rows, 1), chunk_rows))


def _loss_and_gradients(
    score: _Score, head: Head, rows: slice, states: Tensor, parameters: Iterable[Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Of one chunk; a function of its own, so that a chunk's logits are gone before the next one's are made."""
    with torch.enable_grad():
        logits = head(states)
    loss, of_logits = score(rows, logits.detach())
    return loss, torch.autograd.grad(logits, [states, *parameters], of_logits)


class _ChunkedLoss(torch.autograd.Function):
    """Sum of a loss over chunks of rows whose gradients are taken during the forward pass, one chunk at a time."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        score: _Score,
        head: Head,
        chunk_rows: int,
        states: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        losses = []
        gradients = [torch.zeros_like(parameter) for parameter in parameters]
        state_gradient = torch.empty_like(states)
        for rows in _chunks(len(states), chunk_rows):
            loss, (of_chunk, *of_parameters) = _loss_and_gradients(
                score, head, rows, states[rows].detach().requires_grad_(), parameters
            )
            state_gradient[rows] = of_chunk
            for gradient, part in zip(gradients, of_parameters, strict=True):
                gradient += part
            losses.append(loss)
        ctx.save_for_backward(state_gradient, *gradients)
        return torch.stack(losses).sum()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, None, *(gradient * outputs[0] for gradient in ctx.saved_tensors))  # type: ignore[attr-defined]
