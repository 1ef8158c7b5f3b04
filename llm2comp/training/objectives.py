"""The objectives of stage 1 as functions of hidden states: distillation, continuation, reconstruction.

All three compute logits through a `head` (hidden states to vocabulary logits), one chunk of rows at a time, and take
each chunk's gradient as soon as its logits exist, so memory does not grow with rows x vocabulary. The gradient of the
logits has a closed form, softmax(student) - softmax(teacher); autograd differentiates the head only.
Source: Zhang et al., "Learning to Compress", AAAI 2026, section 3; `training.compression` says which rows are compared.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Head", "cross_entropy", "distillation"]

Head = Callable[[Tensor], Tensor]
"""Hidden states (rows, hidden) to logits (rows, vocabulary) in a new tensor, which is overwritten."""

_CHUNK_LOGITS = {"cpu": 2**23, "gpu": 2**26}
"""Number of logits per chunk, for every vocabulary. Small chunks are slow, because each reads the whole output layer;
large ones take memory."""

_BLOCK_LOGITS = 2**17
"""Logits per block of elementwise float32 operations on CPUs: half a MiB, which stays in the cache."""


def distillation(
    student: Tensor,
    teacher: Tensor,
    weights: Tensor,
    head: Head,
    *,
    parameters: Iterable[Tensor] = (),
    chunk_rows: int | None = None,
) -> Tensor:
    """Weighted sum over rows of KL(teacher || student) at temperature 1 (the paper's CTKD).

    Computed in float32 as sum of p (t - s) - log Z_t + log Z_s, with p the teacher's probabilities, t and s the logits,
    Z the sums of their exponentials. This takes two exponentials per logit and is finite for any gap between logits,
    where `softmax().log()` overflows from about 100.

    Args:
        student: Final hidden states of the reader given memory tokens, (rows, hidden).
        teacher: Final hidden states of the same backbone given the whole text, (rows, hidden); not differentiated.
        weights: (rows,); 1 / (rows of the sample x samples) gives the paper's mean over rows, then over samples.
        head: Hidden states to logits.
        parameters: Trained parameters of the head, if any.
        chunk_rows: Number of rows whose logits are in memory at a time; None fits it to the vocabulary, so that the
            logits take the same memory at any vocabulary.

    Returns:
        A scalar in nats.
    """

    def score(rows: slice, logits: Tensor) -> _Scored:
        with torch.no_grad():
            teacher_logits = head(teacher[rows])

        def score_block(block: slice, student_block: Tensor) -> _Scored:
            teacher_block = _at_least_float32(teacher_logits[block])
            q, student_norms = _softmax(student_block)
            p, teacher_norms = _softmax(teacher_block)
            gradient = q.sub_(p)
            return p.mul_(teacher_block.sub_(student_block)).sum(-1) - teacher_norms + student_norms, gradient

        return _by_block(score_block, logits, weights[rows])

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
    """Weighted sum over rows of the cross-entropy of the next token (continuation, reconstruction).

    Args:
        states: Final hidden states, (rows, hidden).
        targets: Token ids, (rows,).
        weights: (rows,); 1 / rows gives the mean over the tokens of the batch.
        head: Hidden states to logits.
        parameters: Trained parameters of the head, if any.
        chunk_rows: Number of rows whose logits are in memory at a time; None fits it to the vocabulary, so that the
            logits take the same memory at any vocabulary.

    Returns:
        A scalar in nats.
    """

    def score(rows: slice, logits: Tensor) -> _Scored:
        columns = targets[rows, None]

        def score_block(block: slice, block_logits: Tensor) -> _Scored:
            probabilities, norms = _softmax(block_logits)
            losses = norms - block_logits.gather(1, columns[block])[:, 0]
            return losses, probabilities.scatter_add_(1, columns[block], -torch.ones_like(losses)[:, None])

        return _by_block(score_block, logits, weights[rows])

    return _chunked(score, head, states, parameters, chunk_rows)


_Scored = tuple[Tensor, Tensor]
"""Losses (rows,) and their gradient with respect to the logits (rows, vocabulary)."""

_Score = Callable[[slice, Tensor], _Scored]
"""Scores rows, given their logits in float32 or float64; may overwrite the logits."""


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _softmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities (rows, vocabulary) and log Z (rows,), Z the sum of the exponentials of a row's logits.

    log Z is computed from the largest probability, which is at least 1 / vocabulary, so its logarithm is accurate.
    """
    probabilities = functional.softmax(logits, dim=-1)
    return probabilities, logits.amax(-1) - probabilities.amax(-1).log()


def _by_block(score_block: _Score, logits: Tensor, weights: Tensor) -> _Scored:
    """Weighted sum of a chunk's losses and its gradient, which overwrites the logits."""
    rows = max(1, _BLOCK_LOGITS // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    totals = []
    for block in _chunks(len(logits), rows):
        losses, gradient = score_block(block, _at_least_float32(logits[block]))
        totals.append((losses * weights[block]).sum())
        logits[block] = gradient.mul_(weights[block, None])
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
    """Loss and gradients of one chunk; when it returns, the chunk's logits are freed before the next one's are made."""
    with torch.enable_grad():
        logits = head(states)
    loss, gradient = score(rows, logits.detach())
    return loss, torch.autograd.grad(logits, [states, *parameters], gradient)


class _ChunkedLoss(torch.autograd.Function):
    """Sum of a loss over chunks of rows; the forward pass computes the gradients too, one chunk at a time."""

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
            chunk = states[rows].detach().requires_grad_()
            loss, (chunk_gradient, *parts) = _loss_and_gradients(score, head, rows, chunk, parameters)
            state_gradient[rows] = chunk_gradient
            for gradient, part in zip(gradients, parts, strict=True):
                gradient += part
            losses.append(loss)
        ctx.save_for_backward(state_gradient, *gradients)
        return torch.stack(losses).sum()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, None, *(gradient * outputs[0] for gradient in ctx.saved_tensors))  # type: ignore[attr-defined]
