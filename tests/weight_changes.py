"""Ways to change the weights of a small Llama, some of which PyTorch does not count."""

import torch
from torch import nn

from llm2comp.backbone.backbone import Backbone


def in_place(model: nn.Module) -> None:
    model.get_parameter("model.layers.1.mlp.up_proj.weight").mul_(2)


def through_data(model: nn.Module) -> None:
    model.get_parameter("model.layers.0.self_attn.v_proj.weight").data.mul_(2)


def replaced(model: nn.Module) -> None:
    model.get_submodule("model.layers.0.mlp").down_proj = nn.Linear(48, 32, bias=False)


def other_tensor(model: nn.Module) -> None:
    model.get_submodule("model.layers.0.mlp.down_proj").weight = nn.Parameter(torch.ones(32, 48))


def loaded(model: nn.Module) -> None:
    model.load_state_dict({name: tensor + 0.1 for name, tensor in model.state_dict().items()})


def norm_changed(model: nn.Module) -> None:
    model.get_parameter("model.layers.0.input_layernorm.weight").data.mul_(3)


def trained(model: nn.Module) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    with torch.enable_grad():
        Backbone(model).encode(torch.ones(4, 32), [4]).sum().backward()  # type: ignore[arg-type]
    optimizer.step()
