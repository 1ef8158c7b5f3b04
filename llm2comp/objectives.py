"""The training objectives of compression, as functions of hidden states: distillation, continuation, reconstruction.

All three read logits only through a `head` (hidden states to vocabulary logits) and only a chunk of rows at a time, so
the memory they need does not grow with rows x vocabulary: each chunk's gradient is taken as soon as its logits exist.
Source: Zhang et al., "Learning to Compress", AAAI 2026, section 3; the row bookkeeping is in `training.compression`.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Head", "cross_entropy", "distillation"]

Head = Callable[[Tensor], Tensor]
"""Hidden states (rows, hidden) to logits (rows, vocabulary)."""


def distillation(student: Tensor, teacher: Tensor, weights: Tensor, head: Head, *, parameters: Iterable[Tensor] = (), chunk_rows: int = 256) -> Tensor:
    """KL(teacher || student) at temperature 1, summed over rows with the given weights (CTKD).

    Computed from float32 `log_softmax`: `softmax().log()` overflows from logit gaps of about 100.

    Args:
        student: Final hidden states of the reader given memory tokens, (rows, hidden).
        teacher: Final hidden states of the same backbone given the whole text, (rows, hidden); constant.
        weights: (rows,); 1 / (rows of the sample x samples) gives the paper's mean over rows, then over samples.
        head: Hidden states to logits.
        parameters: Parameters of the head that are being trained, if any.
        chunk_rows: Rows whose logits exist at one time.

    Returns:
        A scalar in nats.
    """

    def loss_of_chunk(rows: slice, states: Tensor) -> Tensor:
        with torch.no_grad():
            expected = functional.log_softmax(head(teacher[rows]).float(), dim=-1)
        found = functional.log_softmax(head(states).float(), dim=-1)
        divergence = functional.kl_div(found, expected, reduction="none", log_target=True).sum(-1)
        return (divergence * weights[rows]).sum()

    return _chunked(loss_of_chunk, student, parameters, chunk_rows)


def cross_entropy(states: Tensor, targets: Tensor, weights: Tensor, head: Head, *, parameters: Iterable[Tensor] = (), chunk_rows: int = 256) -> Tensor:
    """Cross-entropy of the next token, summed over rows with the given weights (continuation, reconstruction).

    Args:
        states: Final hidden states, (rows, hidden).
        targets: Token ids, (rows,).
        weights: (rows,); 1 / rows gives the token mean over the batch.
        head: Hidden states to logits.
        parameters: Parameters of the head that are being trained, if any.
        chunk_rows: Rows whose logits exist at one time.

    Returns:
        A scalar in nats.
    """

    def loss_of_chunk(rows: slice, chunk: Tensor) -> Tensor:
        losses = functional.cross_entropy(head(chunk).float(), targets[rows], reduction="none")
        return (losses * weights[rows]).sum()

    return _chunked(loss_of_chunk, states, parameters, chunk_rows)


_LossOfChunk = Callable[[slice, Tensor], Tensor]


def _chunked(loss_of_chunk: _LossOfChunk, states: Tensor, parameters: Iterable[Tensor], chunk_rows: int) -> Tensor:
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if torch.is_grad_enabled() and (states.requires_grad or trained):
        loss: Tensor = _ChunkedLoss.apply(loss_of_chunk, chunk_rows, states, *trained)  # type: ignore[no-untyped-call]
        return loss
    return torch.stack([loss_of_chunk(rows, states[rows]) for rows in _chunks(len(states), chunk_rows)]).sum()


def _chunks(rows: int, chunk_rows: int) -> Iterator[slice]:
    return (slice(start, min(start + chunk_rows, rows)) for start in range(0, max(rows, 1), chunk_rows))


class _ChunkedLoss(torch.autograd.Function):
    """Sum of a loss over chunks of rows whose gradients are taken during the forward pass, one chunk at a time."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, loss_of_chunk: _LossOfChunk, chunk_rows: int, states: Tensor, *parameters: Tensor) -> Tensor:
        total = torch.zeros((), device=states.device)
        gradients = [torch.zeros_like(parameter) for parameter in parameters]
        state_gradient = torch.empty_like(states)
        for rows in _chunks(len(states), chunk_rows):
            chunk = states[rows].detach().requires_grad_()
            with torch.enable_grad():
                loss = loss_of_chunk(rows, chunk)
            of_chunk, *of_parameters = torch.autograd.grad(loss, [chunk, *parameters])
            state_gradient[rows] = of_chunk
            for gradient, part in zip(gradients, of_parameters, strict=True):
                gradient += part
            total += loss.detach()
        ctx.save_for_backward(state_gradient, *gradients)
        return total

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *(gradient * outputs[0] for gradient in ctx.saved_tensors))  # type: ignore[attr-defined]
