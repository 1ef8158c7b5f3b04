"""The training pass of a LoRA layer gives PEFT's results; only its dropout is drawn differently."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn

from llm2comp.backbone.lora_layer import AdaptedLinear, speed_up_adapter
from tests.training.tiny import LORA, small_model


def layer(dropout: float, *, ours: bool, bias: bool = True, double: bool = False) -> Any:
    """One adapted layer in training, the same weights each time."""
    torch.manual_seed(0)
    holder = nn.Sequential(nn.Linear(12, 7, bias=bias))
    wrapped: Any = get_peft_model(holder, LoraConfig(r=3, lora_alpha=5, lora_dropout=dropout, target_modules=["0"]))  # type: ignore[arg-type]
    adapted = wrapped.base_model.model[0]
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape))
    if ours:
        speed_up_adapter(wrapped)
    assert type(adapted) is (AdaptedLinear if ours else Linear)
    return (adapted.double() if double else adapted).train()


def inputs(double: bool = False) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 5, 12, dtype=torch.float64 if double else torch.float32, requires_grad=True)


def results(adapted: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, and gradients of its squares with respect to the input and the trained weights."""
    output = adapted(x)
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    assert len(trained) == 2
    return [output.detach(), *torch.autograd.grad((output.float() ** 2).sum(), [x, *trained])]


@pytest.mark.parametrize("bias", [True, False])
def test_without_dropout_it_is_the_layer_of_peft(bias: bool) -> None:
    for actual, expected in zip(
        results(layer(0.0, ours=True, bias=bias), inputs()),
        results(layer(0.0, ours=False, bias=bias), inputs()),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected)


def test_under_autocast_it_is_within_the_rounding_of_bfloat16() -> None:
    expected = results(layer(0.0, ours=False), inputs())
    with torch.autocast("cpu", torch.bfloat16):
        actual = results(layer(0.0, ours=True), inputs())
    assert actual[0].dtype == torch.bfloat16
    assert {gradient.dtype for gradient in actual[1:]} == {torch.float32}
    for here, there in zip(actual, expected, strict=True):
        assert float((here - there).norm()) < 0.02 * float(there.norm())


def test_gradients_with_dropout_are_those_of_the_output() -> None:
    adapted = layer(0.3, ours=True, double=True)
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]

    def seeded(x: Tensor, *_: Tensor) -> Any:
        torch.manual_seed(7)
        return adapted(x)

    assert torch.autograd.gradcheck(seeded, (inputs(double=True), *trained))


def test_dropout_repeats_with_the_random_state_of_pytorch() -> None:
    """As micro-batches, which are computed twice, and a resumed run need it."""
    trained, rows = layer(0.5, ours=True).train(), torch.randn(7, 12)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second = trained(rows), trained(rows)
    torch.set_rng_state(state)
    assert torch.equal(trained(rows), first)
    assert torch.equal(trained(rows), second)
    assert not torch.equal(first, second)


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    """With weights of 1, an output is the number of inputs kept."""
    share, width = 0.2, 4096
    holder = nn.Sequential(nn.Linear(width, 1, bias=False))
    wrapped: Any = get_peft_model(holder, LoraConfig(r=1, lora_alpha=1, lora_dropout=share, target_modules=["0"]))  # type: ignore[arg-type]
    speed_up_adapter(wrapped)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            parameter.fill_(1.0 if "lora" in name else 0.0)
    torch.manual_seed(0)
    kept = wrapped.train()(torch.ones(256, width)).detach() * (1 - share)
    assert float(kept.mean()) == pytest.approx(
        width * (1 - share), rel=0.002
    )  # 5 standard errors: 0.25 / sqrt(256 x 4096) x 5
    assert float(kept.std()) == pytest.approx((width * share * (1 - share)) ** 0.5, rel=0.2), "each is drawn by itself"


def test_the_same_inputs_are_dropped_with_and_without_gradients() -> None:
    """Gradient caching runs a batch twice: the second time with the random numbers of the first."""
    adapted, x = layer(0.5, ours=True), inputs()
    torch.manual_seed(3)
    with torch.no_grad():
        first = adapted(x)
    torch.manual_seed(3)
    assert torch.equal(adapted(x), first)
    assert not torch.equal(adapted(x), first)


def test_outside_training_it_is_the_layer_of_peft() -> None:
    ours, theirs = layer(0.5, ours=True).eval(), layer(0.5, ours=False).eval()
    assert torch.equal(ours(inputs()), theirs(inputs()))
    for adapted in (ours, theirs):
        adapted.train()._disable_adapters = True
    assert torch.equal(ours(inputs()), theirs(inputs()))


def test_every_adapted_layer_of_a_backbone_has_it() -> None:
    model = copy.deepcopy(small_model(adapter=LORA).encoder.backbone.model)
    kinds = {type(module) for module in model.modules() if isinstance(module, Linear)}
    assert kinds == {AdaptedLinear}
