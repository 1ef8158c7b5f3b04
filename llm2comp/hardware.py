"""What the machine multiplies natively, and the precision that follows from it."""

from pathlib import Path

import torch

from llm2comp.errors import SettingsError

__all__ = ["inference_dtype", "multiplies_bfloat16"]


def multiplies_bfloat16(device: str | None = None) -> bool:
    """Whether a device (None: a GPU if there is one) multiplies bfloat16 in hardware: CUDA from Ampere on, CPUs with avx512_bf16 or amx."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu":
        return False
    information = Path("/proc/cpuinfo")
    flags = information.read_text(encoding="utf-8", errors="replace") if information.exists() else ""
    return torch.backends.mkldnn.is_available() and ("avx512_bf16" in flags or "amx_bf16" in flags)


def inference_dtype(name: str, device: str) -> torch.dtype:
    """The precision of weights asked for by name; `auto` is bfloat16 where it is native, else float32.

    Raises:
        SettingsError: If the name is none of auto, float32, bfloat16.
    """
    if name == "auto":
        return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32
    if name not in ("float32", "bfloat16"):
        raise SettingsError(f"dtype is {name!r}; give auto, float32 or bfloat16")
    return torch.float32 if name == "float32" else torch.bfloat16
