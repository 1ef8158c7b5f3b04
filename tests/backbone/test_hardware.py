"""Precisions and devices by name, and the choice of `auto`."""

from pathlib import Path

import pytest
import torch

from llm2comp.backbone import hardware
from llm2comp.backbone.hardware import choose_device, inference_dtype, multiplies_bfloat16
from llm2comp.errors import SettingsError


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_what_the_hardware_multiplies(
    monkeypatch: pytest.MonkeyPatch, native: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(hardware, "multiplies_bfloat16", lambda device: native)
    assert inference_dtype("auto", "cpu") == expected
    assert inference_dtype("float32", "cpu") == inference_dtype(torch.float32, "cpu") == torch.float32
    assert inference_dtype("bfloat16", "cpu") == inference_dtype(torch.bfloat16, "cpu") == torch.bfloat16


@pytest.mark.parametrize("dtype", ["float16", "fp32", "", torch.float64])
def test_other_precisions_are_refused(dtype: str | torch.dtype) -> None:
    with pytest.raises(SettingsError, match="give auto, float32 or bfloat16"):
        inference_dtype(dtype, "cpu")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu sse avx2", False),
        ("fpu avx512f avx512_bf16", True),
        ("fpu amx_bf16 amx_tile", True),
        ("fpu avx512f", False),
    ],
)
def test_processors_are_known_by_their_flags(monkeypatch: pytest.MonkeyPatch, flags: str, expected: bool) -> None:
    monkeypatch.setattr(Path, "exists", lambda self: True)
    monkeypatch.setattr(Path, "read_text", lambda self, **_: f"flags\t\t: {flags}\n")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert multiplies_bfloat16("cpu") is expected
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert multiplies_bfloat16("cpu") is False


def test_devices_without_a_rule_take_float32() -> None:
    assert multiplies_bfloat16("mps") is False


def test_devices() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_device(None) == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", ""])
def test_devices_that_are_not_there(device: str) -> None:
    with pytest.raises(SettingsError, match="which cannot be used here"):
        choose_device(device)
