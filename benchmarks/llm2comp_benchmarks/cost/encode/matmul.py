"""Rates of matrix products, which encoders are compared with: square ones, and those of the model's shapes."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from llm2comp_benchmarks.cost.devices import finish

__all__ = ["Products", "matrix_products", "measure_products"]

_SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}  # of square matrices; the higher rate counts
_ROWS = {"cpu": 4096, "cuda": 16_384}  # of products in the model's own shapes
_SECONDS = 0.5  # of each measurement


class Products(NamedTuple):
    """Factors of products, (rows, width) and (out, width).

    Attributes:
        square: Square matrices of each size.
        layer: Those of one layer of the model.
    """

    square: list[tuple[Tensor, Tensor]]
    layer: list[tuple[Tensor, Tensor]]


def matrix_products(backbone: Path, precision: str, device: str) -> Products:
    """Random factors of products, some in the shapes of a language model.

    Args:
        backbone: Folder of the language model, whose configuration has its shapes.
        precision: float32 or bfloat16.
        device: Device of the factors.
    """
    config = json.loads((backbone / "config.json").read_text(encoding="utf-8"))
    hidden, intermediate = config["hidden_size"], config.get("intermediate_size") or 4 * config["hidden_size"]
    kind = torch.device(device).type
    kwargs = {"dtype": getattr(torch, precision), "device": device}
    square = [(torch.randn(size, size, **kwargs), torch.randn(size, size, **kwargs)) for size in _SIZES[kind]]
    shapes = [(hidden, hidden)] * 4 + [(hidden, intermediate)] * 2 + [(intermediate, hidden)]
    layer = [(torch.randn(_ROWS[kind], width, **kwargs), torch.randn(out, width, **kwargs)) for width, out in shapes]
    return Products(square, layer)


def measure_products(products: Products, device: str) -> dict[str, float]:
    """Floating-point operations a second: `flops`, the higher rate of square matrices, and `model_shapes_flops`."""
    return {
        "flops": max(_rate([pair], device) for pair in products.square),
        "model_shapes_flops": _rate(products.layer, device),
    }


def _rate(products: Sequence[tuple[Tensor, Tensor]], device: str) -> float:
    """Floating-point operations a second of products (rows, width) x (out, width), one after another.

    The median over half a second, and over three measurements or more.
    """
    work = sum(2 * len(states) * weight.numel() for states, weight in products)
    seconds: list[float] = []
    with torch.inference_mode():
        while sum(seconds) < _SECONDS or len(seconds) < 3:
            finish(device)
            start = time.perf_counter()
            for states, weight in products:
                functional.linear(states, weight)
            finish(device)
            seconds.append(time.perf_counter() - start)
    return work / median(seconds)
