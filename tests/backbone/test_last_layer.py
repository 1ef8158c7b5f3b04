"""The last layer's MLP is computed for the memory tokens only, with the same states as for all tokens."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.backbone.attention import Packing
from llm2comp.backbone.backbone import Backbone
from llm2comp.backbone.last_layer import last_attention
from llm2comp.model import LLM2Comp
from tests.families import PACKED, PADDED, build, some_texts

LENGTHS = (5, 17, 17, 9, 4, 24)
TAIL = 4
TAIL_ROWS = Packing.of(LENGTHS, causal=False, device=torch.device("cpu"), tail=TAIL).tail_rows()


def rows_seen(module: torch.nn.Module) -> list[int]:
    """List that collects the number of rows of each input of the module."""
    seen: list[int] = []
    original = module.forward

    def forward(states: Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(states.shape[-2])
        return original(states, *args, **kwargs)

    module.forward = forward  # type: ignore[method-assign]
    return seen


def test_tails_are_the_last_tokens_of_each_text() -> None:
    by_text = [[1, 2, 3, 4], [18, 19, 20, 21], [35, 36, 37, 38], [44, 45, 46, 47], [48, 49, 50, 51], [72, 73, 74, 75]]
    assert TAIL_ROWS.tolist() == [row for rows in by_text for row in rows]


@pytest.mark.parametrize("family", [*PACKED, *PADDED])
@torch.no_grad()
def test_states_of_the_tails_are_those_of_whole_layers(family: str) -> None:
    backbone = Backbone(build(family))
    embedded = backbone.embed(torch.cat(some_texts(*LENGTHS)))
    whole, tails = backbone.encode(embedded, LENGTHS), backbone.encode(embedded, LENGTHS, tail=TAIL)
    torch.testing.assert_close(tails[TAIL_ROWS], whole[TAIL_ROWS], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(backbone.encode(embedded, LENGTHS), whole, atol=0, rtol=0)  # as before


@pytest.mark.parametrize("adapter", [False, True])
@torch.no_grad()
def test_the_last_mlp_is_given_nothing_but_the_tails(adapter: bool) -> None:
    backbone = Backbone(build("llama"))
    if adapter:
        backbone.add_adapter(AdapterSettings())
        for name, parameter in backbone.model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)
    embedded = backbone.embed(torch.cat(some_texts(*LENGTHS)))
    whole = backbone.encode(embedded, LENGTHS)
    first, last = backbone.language_model.model.layers[0].mlp, backbone.language_model.model.layers[-1].mlp
    seen = rows_seen(first), rows_seen(last)
    tails = backbone.encode(embedded, LENGTHS, tail=TAIL)
    assert seen == ([sum(LENGTHS)], [TAIL * len(LENGTHS)])
    torch.testing.assert_close(tails[TAIL_ROWS], whole[TAIL_ROWS], atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_whole_layers() -> None:
    backbone = Backbone(build("qwen2").double())
    tokens = torch.cat(some_texts(*LENGTHS))
    gradients = []
    for tail in (0, TAIL):
        backbone.zero_grad()
        backbone.encode(backbone.embed(tokens), LENGTHS, tail=tail)[TAIL_ROWS].pow(2).sum().backward()
        gradients.append(
            {
                name: parameter.grad.clone()
                for name, parameter in backbone.model.named_parameters()
                if parameter.grad is not None
            }
        )
    assert len(gradients[0]) > 20
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-9, rtol=1e-9)


def test_checkpoints_recompute_what_was_computed() -> None:
    backbone = Backbone(build("llama"))
    tokens = torch.cat(some_texts(*LENGTHS))
    plain = backbone.encode(backbone.embed(tokens), LENGTHS, tail=TAIL)[TAIL_ROWS].detach()
    backbone.enable_checkpointing()
    backbone.train()
    seen = rows_seen(backbone.language_model.model.layers[-1].mlp)
    states = backbone.encode(backbone.embed(tokens), LENGTHS, tail=TAIL)[TAIL_ROWS]
    states.sum().backward()
    assert seen == [TAIL * len(LENGTHS)] * 2
    torch.testing.assert_close(states.detach(), plain, atol=1e-5, rtol=1e-5)


def test_an_encoder_asks_for_its_memory_tokens_only(make_model: Callable[..., LLM2Comp]) -> None:
    encoder = make_model().encoder
    assert last_attention(encoder.backbone.language_model) is not None
    seen = rows_seen(encoder.backbone.language_model.model.layers[-1].mlp)
    with torch.no_grad():
        encoder.memory_states(torch.tensor([1, 5, 6, 7, 1, 8]), [4, 2])
    assert seen == [2 * encoder.memory_tokens]
