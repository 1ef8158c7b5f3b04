"""What makes two models the same to an index: a SHA-256 over everything that determines their vectors."""

import hashlib
import json
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from llm2comp.backbone.backbone import Backbone
from llm2comp.encoder import MemoryEncoder

__all__ = ["content_digest", "content_state", "fingerprint"]

_LOOKED_AT = 16
_NO_MATTER = ("_name_or_path", "architectures", "dtype", "transformers_version", "use_cache")
_ADAPTER = ("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out")


def fingerprint(content: str, settings: dict[str, Any]) -> str:
    """The fingerprint of a model with this content under these settings (pooling, maximum length, instruction …)."""
    return hashlib.sha256(f"{content} {json.dumps(settings, sort_keys=True)}".encode()).hexdigest()


def content_digest(encoder: MemoryEncoder, dtype: torch.dtype | None = None) -> str:
    """SHA-256 over weights, language model, adapter settings and tokenizer.

    It is one of values, not of precisions: weights read back in another precision that holds them exactly are the same.

    Args:
        encoder: The encoder.
        dtype: Precision that the weights are to be rounded to before; None takes them as they are.
    """
    backbone = encoder.backbone
    about = {
        "backbone": _about(backbone),
        "adapter": _adapter(backbone),
        "tokenizer": _tokenizer(encoder),
        "beginning": encoder.beginning,
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for name, tensor in sorted(_tensors(encoder).items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        if tensor.is_floating_point():
            tensor = tensor.to(dtype or tensor.dtype).float()
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def content_state(encoder: MemoryEncoder) -> tuple[Any, ...]:
    """Something quick to get that differs once the content has been changed, but not by moving to another device.

    PyTorch counts the changes of a tensor, all but those by its fused optimizers: of what is being trained, a few
    numbers are looked at.
    """
    tensors = (encoder.memory, *encoder.backbone.parameters())
    versions = tuple((id(tensor), 0 if tensor.is_inference() else tensor._version) for tensor in tensors)
    few = [
        tensor.detach().flatten()[:: max(1, tensor.numel() // _LOOKED_AT)] for tensor in tensors if tensor.requires_grad
    ]
    seen = tuple(torch.cat([numbers.double() for numbers in few]).tolist()) if few else ()
    return versions, seen, encoder.backbone.reference, id(encoder.tokenizer)


def _tensors(encoder: MemoryEncoder) -> dict[str, Tensor]:
    backbone = encoder.backbone
    own = backbone.weights() if backbone.reference is None else {}
    return {"memory": encoder.memory, **backbone.adapter_weights(), **own}


def _about(backbone: Backbone) -> dict[str, Any]:
    reference = backbone.reference
    if reference is not None:
        return {"name": reference.name, "revision": reference.revision}
    return {
        name: value for name, value in backbone.language_model.config.to_diff_dict().items() if name not in _NO_MATTER
    }


def _adapter(backbone: Backbone) -> dict[str, Any] | None:
    if not isinstance(backbone.model, PeftModel):
        return None
    settings = backbone.model.peft_config[backbone.model.active_adapter].to_dict()
    return {name: settings.get(name) for name in _ADAPTER}


def _tokenizer(encoder: MemoryEncoder) -> str:
    backend = getattr(encoder.tokenizer, "backend_tokenizer", None)
    if backend is None:
        told: Any = sorted(encoder.tokenizer.get_vocab().items())
    else:
        whole = json.loads(backend.to_str())
        told = [whole[part] for part in ("model", "normalizer", "pre_tokenizer", "added_tokens")]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
