"""Small random language models of many families, and the states that transformers computes with them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.backbone.backbone import Backbone

VOCABULARY = 99
WINDOW = 6
_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_OLD: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_HEAD = {"head_dim": 8}
_LOCAL_AND_GLOBAL = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}

PACKED: dict[str, dict[str, Any]] = {
    "llama": _COMMON,
    "qwen2": _COMMON,
    "qwen3": {**_COMMON, **_HEAD},
    "mistral": {**_COMMON, "sliding_window": WINDOW},
    "ministral3": {**_COMMON, **_HEAD},
    "gemma": {**_COMMON, **_HEAD},
    "gemma2": {
        **_COMMON,
        **_HEAD,
        "query_pre_attn_scalar": 8,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 3.0,
        "sliding_window": WINDOW,
    },
    "gemma3_text": {**_COMMON, **_HEAD, **_LOCAL_AND_GLOBAL, "query_pre_attn_scalar": 8},
    "phi": _COMMON,
    "phi3": {**_COMMON, "sliding_window": WINDOW},
    "gpt2": _OLD,
    "gpt_neox": _COMMON,
    "opt": {**_COMMON, "ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.5},
    "olmo2": _COMMON,
    "olmo3": {**_COMMON, **_LOCAL_AND_GLOBAL},
    "granite": {
        **_COMMON,
        "attention_multiplier": 0.3,
        "embedding_multiplier": 3.0,
        "logits_scaling": 5.0,
        "residual_multiplier": 0.5,
    },
    "cohere": {**_COMMON, "logit_scale": 0.3},
    "cohere2": {**_COMMON, **_LOCAL_AND_GLOBAL, "logit_scale": 0.3},
    "starcoder2": {**_COMMON, "sliding_window": WINDOW, "residual_dropout": 0.5},
    "smollm3": _COMMON,
    "exaone4": {**_COMMON, **_LOCAL_AND_GLOBAL},
    "glm4": {**_COMMON, **_HEAD},
    "helium": {**_COMMON, **_HEAD},
    "gpt_oss": {**_COMMON, **_HEAD, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": WINDOW},
    "mixtral": {**_COMMON, "num_local_experts": 4, "num_experts_per_tok": 2, "router_jitter_noise": 0.5},
    # its windows are stored in its masks only, so attention without a mask has to look them up
    "qwen2_moe": {
        **_COMMON,
        **_EXPERTS,
        "shared_expert_intermediate_size": 24,
        "use_sliding_window": True,
        "sliding_window": WINDOW,
        "max_window_layers": 1,
    },
}
"""Configurations of families that run packed."""

PADDED: dict[str, dict[str, Any]] = {
    "stablelm": _COMMON,
    "nemotron": _COMMON,
    "falcon": {**_COMMON, "new_decoder_architecture": True, "num_kv_heads": 2, "hidden_dropout": 0.5},
    "bloom": {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4, "hidden_dropout": 0.5},
    "gptj": {**_OLD, "rotary_dim": 8},
}
"""Configurations of families that pass no arguments to attention, or have an attention function in the model."""

REFUSED: dict[str, dict[str, Any]] = {
    "gpt_neo": {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": WINDOW,
        "max_position_embeddings": 64,
    },
    "mamba": {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    "mpt": {"vocab_size": VOCABULARY, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64},
}
"""Configurations of families that stay causal with every setting."""

_NO_4D_MASK = {"opt", "bloom"}


def build(family: str, **changes: Any) -> PreTrainedModel:
    """Small model of the family, the same in each call, with weights large enough for attention to matter."""
    settings = {**PACKED, **PADDED, **REFUSED}[family]
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**settings, **changes})
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
    assert isinstance(model, PreTrainedModel)
    return model


def some_texts(*lengths: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(3, VOCABULARY, (length,), generator=generator) for length in lengths]


def padded_states(model: PreTrainedModel, texts: Sequence[Tensor], *, causal: bool) -> Tensor:
    """States that transformers computes from texts padded on the right, concatenated: (tokens, hidden).

    A bidirectional pass changes the model for good: it is set to non-causal, and its windows are opened.
    """
    tokens = torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(text) for text in texts], batch_first=True)
    if not causal:
        model.config.is_causal = False
        for module in model.modules():
            if hasattr(module, "is_causal"):
                setattr(module, "is_causal", False)  # noqa: B010  mypy knows modules to hold tensors only
        if getattr(model.config, "sliding_window", None):
            model.config.sliding_window = 1_000_000
    states: Tensor = model.base_model(input_ids=tokens, attention_mask=mask).last_hidden_state
    return states[mask.bool()]


def states_by_hand(model: PreTrainedModel, text: Tensor) -> Tensor | None:
    """Bidirectional states of one text, (tokens, hidden), computed with a mask that hides nothing.

    None if the family does not accept such a mask.
    """
    if model.config.model_type in _NO_4D_MASK:
        return None
    nothing_hidden = torch.zeros(1, 1, len(text), len(text))
    states: Tensor = model.base_model(input_ids=text[None], attention_mask=nothing_hidden).last_hidden_state[0]
    return states


def stirred(backbone: Backbone, dropout: float = 0.0) -> Backbone:
    """The backbone with an adapter that is not zero."""
    backbone.language_model.requires_grad_(False)
    backbone.add_adapter(AdapterSettings(rank=4, dropout=dropout))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return backbone
