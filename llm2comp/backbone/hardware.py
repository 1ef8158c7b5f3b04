"""Devices, and the precision of weights that suits them."""

from functools import cache
from pathlib import Path

import torch

from llm2comp.errors import SettingsError, one_line

__all__ = ["choose_device", "inference_dtype", "multiplies_bfloat16", "multiplies_tiles", "storage_dtype"]


def multiplies_bfloat16(device: str | None = None) -> bool:
    """Whether a device multiplies bfloat16 in hardware: CUDA from Ampere on, CPUs with avx512_bf16 or amx.

    Args:
        device: Such as `cpu` or `cuda:1`; None: a GPU if there is one.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device != "cpu":
        return False
    return bool(torch.backends.mkldnn.is_available()) and not _cpu_flags().isdisjoint(("avx512_bf16", "amx_bf16"))


@cache
def multiplies_tiles() -> bool:
    """Whether the CPU multiplies bfloat16 in tiles (AMX), for which oneDNN takes longest to compile a new product."""
    return "amx_bf16" in _cpu_flags()


def _cpu_flags() -> set[str]:
    cpu_info = Path("/proc/cpuinfo")
    return set(cpu_info.read_text(encoding="utf-8", errors="replace").split()) if cpu_info.exists() else set()


def inference_dtype(name: str | torch.dtype, device: str) -> torch.dtype:
    """The torch dtype of a precision; `auto` is bfloat16 where the device multiplies it natively, else float32.

    Args:
        name: `auto`, `float32`, `bfloat16`, or one of the two dtypes.
        device: Such as `cpu` or `cuda:1`.

    Raises:
        SettingsError: If there is no such precision.
    """
    if name == "auto":
        return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32
    for dtype in (torch.float32, torch.bfloat16):
        if name in (dtype, str(dtype).removeprefix("torch.")):
            return dtype
    raise SettingsError(f"dtype is {name!r}; give auto, float32 or bfloat16")


def storage_dtype(name: str | torch.dtype) -> torch.dtype:
    """The torch dtype of a precision of weights in files.

    Args:
        name: `float32`, `bfloat16`, `int8`, or a dtype: one of these, or another of floating point.

    Raises:
        SettingsError: If there is no such precision.
    """
    if isinstance(name, torch.dtype) and (name.is_floating_point or name is torch.int8):
        return name
    if name in ("float32", "bfloat16", "int8"):
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    raise SettingsError(f"weights_dtype is {name!r}; give float32, bfloat16 or int8")


def choose_device(name: str | None) -> str:
    """The name of a device that works here; None takes a GPU if there is one, else the CPU.

    Raises:
        SettingsError: If PyTorch knows no such device, or this machine has none.
    """
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # the second where PyTorch was built without CUDA
        reason = one_line(error, limit=120)
        raise SettingsError(
            f"device is {name!r}, which cannot be used here ({reason}); give cpu, or None for a GPU if there is one"
        ) from error
    return name
