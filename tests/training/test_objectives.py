"""Objectives and gradients equal the plain formula, in memory that does not grow with rows x vocabulary."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llm2comp.training.objectives import cross_entropy, distillation

ROWS, HIDDEN, VOCABULARY = 13, 8, 50


class Inputs:
    """Hidden states of student and teacher, targets, weights of the rows, and a head."""

    def __init__(self, rows: int = ROWS, vocabulary: int = VOCABULARY) -> None:
        torch.manual_seed(0)
        self.student = torch.randn(rows, HIDDEN, requires_grad=True)
        self.teacher = torch.randn(rows, HIDDEN)
        self.targets = torch.randint(vocabulary, (rows,))
        self.weights = torch.rand(rows)
        self.head: Any = nn.Linear(HIDDEN, vocabulary, bias=False)

    def chunked(self, objective: str, chunk_rows: int | None, **options: Any) -> Tensor:
        if objective == "distillation":
            return distillation(self.student, self.teacher, self.weights, self.head, chunk_rows=chunk_rows, **options)
        return cross_entropy(self.student, self.targets, self.weights, self.head, chunk_rows=chunk_rows, **options)

    def at_once(self, objective: str) -> Tensor:
        logits: Tensor = self.head(self.student)
        if objective == "distillation":
            taught = self.head(self.teacher).softmax(-1).detach()
            divergence: Tensor = (taught * (taught.log() - logits.softmax(-1).log())).sum(-1)
            return (self.weights * divergence).sum()
        losses: Tensor = functional.cross_entropy(logits, self.targets, reduction="none")
        return (self.weights * losses).sum()


@pytest.mark.parametrize("objective", ["distillation", "cross_entropy"])
@pytest.mark.parametrize("chunk_rows", [1, 4, 13, 100])
def test_value_and_gradient_equal_the_formula(objective: str, chunk_rows: int) -> None:
    inputs = Inputs()
    expected = inputs.at_once(objective)
    (gradient,) = torch.autograd.grad(expected, inputs.student)
    loss = inputs.chunked(objective, chunk_rows)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(3 * loss, inputs.student)[0], 3 * gradient)
    with torch.no_grad():
        torch.testing.assert_close(inputs.chunked(objective, chunk_rows), expected)


@pytest.mark.parametrize("chunk_rows", [4, 100])
def test_a_trained_head_gets_its_gradient(chunk_rows: int) -> None:
    inputs = Inputs()
    expected = torch.autograd.grad(inputs.at_once("cross_entropy"), [inputs.student, inputs.head.weight])
    loss = inputs.chunked("cross_entropy", chunk_rows, parameters=[inputs.head.weight])
    for gradient, reference in zip(
        torch.autograd.grad(loss, [inputs.student, inputs.head.weight]), expected, strict=True
    ):
        torch.testing.assert_close(gradient, reference)


@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("objective", ["distillation", "cross_entropy"])
def test_gradients_in_double_precision(objective: str, cap: float | None) -> None:
    """Those of the formula by autograd, through a head that is linear or caps its logits."""
    inputs = Inputs()
    inputs.student, inputs.teacher, inputs.weights = (
        values.detach().double() for values in (inputs.student, inputs.teacher, inputs.weights)
    )
    inputs.student.requires_grad_()
    weight = inputs.head.weight.detach().double().requires_grad_()
    inputs.head = lambda states: states @ weight.T if cap is None else torch.tanh(states @ weight.T / cap) * cap
    trained = (
        [inputs.student] if objective == "distillation" else [inputs.student, weight]
    )  # the teacher's share of the weight is a constant
    expected = inputs.at_once(objective)
    loss = inputs.chunked(objective, 4, parameters=trained[1:])
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-14)
    for gradient, reference in zip(
        torch.autograd.grad(loss, trained), torch.autograd.grad(expected, trained), strict=True
    ):
        torch.testing.assert_close(gradient, reference, rtol=1e-10, atol=1e-14)


def test_a_frozen_head_gets_none() -> None:
    inputs = Inputs()
    inputs.head.requires_grad_(False)
    inputs.chunked("distillation", 4, parameters=[inputs.head.weight]).backward()
    assert inputs.head.weight.grad is None
    assert inputs.student.grad is not None


def test_autocast_gives_the_gradients_of_half_precision_products() -> None:
    """Under autocast the head's weight is cast once for all chunks, each of which computes its gradient separately."""
    inputs = Inputs()
    expected = torch.autograd.grad(inputs.at_once("cross_entropy"), [inputs.student, inputs.head.weight])
    with torch.autocast("cpu", torch.bfloat16):
        loss = inputs.chunked("cross_entropy", 4, parameters=[inputs.head.weight])
    assert loss.dtype == torch.float32
    for gradient, reference in zip(
        torch.autograd.grad(loss, [inputs.student, inputs.head.weight]), expected, strict=True
    ):
        assert gradient.dtype == torch.float32
        assert float((gradient - reference).norm()) < 0.02 * float(reference.norm())


def test_logits_far_apart_stay_finite() -> None:
    """The published softmax().log() gives infinity from gaps of about 100."""
    head: Callable[[Tensor], Tensor] = lambda states: states  # noqa: E731
    student = torch.tensor([[0.0, 400.0, -400.0]], requires_grad=True)
    loss = distillation(student, torch.tensor([[300.0, 0.0, 0.0]]), torch.ones(1), head)
    assert loss.item() == pytest.approx(400.0)
    loss.backward()
    assert student.grad is not None
    assert bool(torch.isfinite(student.grad).all())


class Largest(TorchDispatchMode):
    """Size of the largest tensor that any operation returns, in numbers."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        sizes = [
            leaf.untyped_storage().nbytes() // leaf.element_size()
            for leaf in tree_leaves(result)
            if isinstance(leaf, Tensor)
        ]
        self.numbers = max(self.numbers, *sizes, 0)
        return result


@pytest.mark.parametrize("objective", ["distillation", "cross_entropy"])
def test_memory_does_not_grow_with_rows_times_vocabulary(objective: str) -> None:
    vocabulary, chunk = 500, 8
    largest = {}
    for rows in (64, 256):
        inputs = Inputs(rows, vocabulary)
        inputs.head.requires_grad_(False)
        with Largest() as met:
            inputs.chunked(objective, chunk).backward()
        with Largest() as met_at_once:
            inputs.at_once(objective).backward()
        largest[rows] = met.numbers
        assert met_at_once.numbers >= rows * vocabulary, "the formula at once is what must be avoided"
    assert largest[64] == largest[256] == chunk * vocabulary


@pytest.mark.parametrize("objective", ["distillation", "cross_entropy"])
def test_memory_does_not_grow_with_the_vocabulary(objective: str) -> None:
    for vocabulary in (200_000, 400_000):
        inputs = Inputs(64, vocabulary)
        inputs.head.requires_grad_(False)
        with Largest() as met:
            inputs.chunked(objective, None).backward()
        assert 2**22 < met.numbers <= 2**23 < 64 * vocabulary
