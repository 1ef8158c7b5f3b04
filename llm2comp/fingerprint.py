"""Fingerprint of a model: a SHA-256 over everything that determines its vectors, so that an index knows its model."""

import hashlib
import json
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from llm2comp.backbone.backbone import Backbone
from llm2comp.backbone.int8 import round_to_int8
from llm2comp.encoder import MemoryEncoder

__all__ = ["content_digest", "content_state", "fingerprint"]

_IGNORED = ("_name_or_path", "architectures", "dtype", "transformers_version", "use_cache")
"""Entries of a configuration that do not change vectors."""

_ADAPTER = ("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out")


def fingerprint(content: str, settings: dict[str, Any]) -> str:
    """Fingerprint of a model from its content digest and its settings (pooling, maximum length, instruction …)."""
    return hashlib.sha256(f"{content} {json.dumps(settings, sort_keys=True)}".encode()).hexdigest()


def content_digest(encoder: MemoryEncoder, dtype: torch.dtype | None = None) -> str:
    """SHA-256 over weights, language model, adapter settings and tokenizer.

    The digest is of values, not of precisions: weights loaded in another precision that holds them exactly have the
    same digest.

    Args:
        encoder: The encoder.
        dtype: Precision that the weights are rounded to first, with int8 the backbone's matrices; None takes them as
            they are.
    """
    backbone = encoder.backbone
    facts = {
        "backbone": _backbone_facts(backbone),
        "adapter": _adapter(backbone),
        "tokenizer": _tokenizer(encoder),
        "beginning": encoder.beginning,
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    weights = _backbone_weights(backbone)
    for name, tensor in sorted({"memory": encoder.memory, **backbone.adapter_weights(), **weights}.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        if dtype is torch.int8:
            tensor = round_to_int8(tensor) if name in weights else tensor
            tensor = tensor.float() if tensor.is_floating_point() else tensor
        elif tensor.is_floating_point():
            tensor = tensor.to(dtype or tensor.dtype).float()
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def content_state(encoder: MemoryEncoder) -> tuple[Any, ...]:
    """A cheap value that differs once the content has changed, and stays when the model moves to another device."""
    return encoder.content_state()


def _backbone_weights(backbone: Backbone) -> dict[str, Tensor]:
    """The language model's weights by name; none if a saved model names them by a Hub id."""
    return backbone.weights() if backbone.reference is None else {}


def _backbone_facts(backbone: Backbone) -> dict[str, Any]:
    reference = backbone.reference
    if reference is not None:
        layers = {} if backbone.layers is None else {"layers": backbone.layers}
        return {"name": reference.name, "revision": reference.revision, **layers}
    settings = backbone.language_model.config.to_diff_dict()
    return {name: value for name, value in settings.items() if name not in _IGNORED}


def _adapter(backbone: Backbone) -> dict[str, Any] | None:
    if not isinstance(backbone.model, PeftModel):
        return None
    settings = backbone.model.peft_config[backbone.model.active_adapter].to_dict()
    return {name: settings.get(name) for name in _ADAPTER}


def _tokenizer(encoder: MemoryEncoder) -> str:
    backend = getattr(encoder.tokenizer, "backend_tokenizer", None)
    if backend is None:
        content: Any = sorted(encoder.tokenizer.get_vocab().items())
    else:
        parts = json.loads(backend.to_str())
        content = [parts[name] for name in ("model", "normalizer", "pre_tokenizer", "added_tokens")]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
