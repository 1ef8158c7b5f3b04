"""The systems of an encoding benchmark, each in a process of its own that does one thing at a time for `encode_benchmark`."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from llm2comp_benchmarks.encode_setup import PARTS
from llm2comp_benchmarks.encode_stages import measure_operations, measure_stages
from llm2comp_benchmarks.workers import Job, peak_bytes, reset_peak, serve

__all__ = ["SYSTEMS", "open_system"]

_WARM_UP = 64  # texts
_SIZES = (1024, 2048)  # of square matrices; the rate of the faster counts
_MATMUL_SECONDS = 0.5  # for each product
_BARE_TEXTS = 32  # of a forward pass without a library around it: sentence-transformers' default batch

Encode = Callable[[list[str]], Any]


def _open_ours(folder: Path, texts: list[str], precision: str, batch_size: int | None) -> Mapping[str, Job]:
    import llm2comp

    model = llm2comp.load(str(folder / PARTS["ours"]), device="cpu", dtype=precision)
    options = {} if batch_size is None else {"batch_size": batch_size}

    def encode(several: list[str]) -> Any:
        return model.encode(several, show_progress_bar=False, **options)

    def stages(file: str) -> dict[str, Any]:
        return {"stages": measure_stages(model, texts, Path(file), encode), "operations": measure_operations(lambda: encode(texts[: 4 * _WARM_UP]))}

    return {**_encoding(encode, texts), "stages": stages}


def _open_sentence_transformers(folder: Path, texts: list[str], precision: str, batch_size: int | None) -> Mapping[str, Job]:
    """The plain export with the library's own modules and the batch that it takes by itself."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder / PARTS["plain"]), device="cpu", local_files_only=True, model_kwargs={"dtype": precision})
    return _encoding(lambda several: model.encode(several, show_progress_bar=False), texts)


def _open_transformers(folder: Path, texts: list[str], precision: str, batch_size: int | None) -> Mapping[str, Job]:
    """Nothing but forward passes over token ids of one length, the texts' mean, in batches of 32: no text, no padding, no pooling."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder / PARTS["plain"], dtype=getattr(torch, precision), local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / PARTS["plain"], local_files_only=True)
    tokens = [token for ids in tokenizer(texts, truncation=True)["input_ids"] for token in ids]
    length = max(1, round(len(tokens) / len(texts)))
    rows = torch.tensor(tokens[: len(tokens) // length * length]).reshape(-1, length)

    def forward(several: torch.Tensor) -> None:
        with torch.inference_mode():
            for batch in several.split(_BARE_TEXTS):
                model(input_ids=batch, use_cache=False)

    def encode_all() -> dict[str, Any]:
        start = time.perf_counter()
        forward(rows)
        return {"seconds": time.perf_counter() - start, "texts": len(rows), "tokens": rows.numel()}

    def warm_up() -> dict[str, Any]:
        forward(rows[:_WARM_UP])
        return {"loaded_bytes": reset_peak()}

    return {"warm_up": warm_up, "round": encode_all, "peak": _peak}


def _open_matmul(folder: Path, texts: list[str], precision: str, batch_size: int | None) -> Mapping[str, Job]:
    """Products of square matrices, and of the model's own shapes: what is left when nothing but the linear layers is computed."""
    config = json.loads((folder / PARTS["plain"] / "config.json").read_text(encoding="utf-8"))
    hidden, intermediate = config["hidden_size"], config.get("intermediate_size") or 4 * config["hidden_size"]
    dtype = getattr(torch, precision)
    square = [(torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)) for size in _SIZES]
    shapes = [(hidden, hidden)] * 4 + [(hidden, intermediate)] * 2 + [(intermediate, hidden)]
    layer = [(torch.randn(4096, width, dtype=dtype), torch.randn(out, width, dtype=dtype)) for width, out in shapes]

    def measure() -> dict[str, Any]:
        return {"flops": max(_rate([pair]) for pair in square), "model_shapes_flops": _rate(layer)}

    def warm_up() -> dict[str, Any]:
        measure()
        return {"loaded_bytes": reset_peak()}

    return {"warm_up": warm_up, "round": measure, "peak": _peak}


def _rate(products: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Floating-point operations a second of the products one after another, (rows, width) x (out, width): the median of half a second."""
    work = sum(2 * len(states) * weight.numel() for states, weight in products)
    seconds: list[float] = []
    with torch.inference_mode():
        while sum(seconds) < _MATMUL_SECONDS or len(seconds) < 3:
            start = time.perf_counter()
            for states, weight in products:
                functional.linear(states, weight)
            seconds.append(time.perf_counter() - start)
    return work / median(seconds)


def _encoding(encode: Encode, texts: list[str]) -> Mapping[str, Job]:
    """The jobs of a system that turns texts into vectors."""
    vectors: list[Any] = []

    def warm_up() -> dict[str, Any]:
        encode(texts[:_WARM_UP])
        return {"loaded_bytes": reset_peak()}

    def encode_all() -> dict[str, Any]:
        vectors.clear()
        start = time.perf_counter()
        vectors.append(encode(texts))
        return {"seconds": time.perf_counter() - start, "texts": len(texts)}

    def save(file: str) -> dict[str, Any]:
        np.save(file, np.asarray(vectors[-1], dtype=np.float32))
        return {}

    return {"warm_up": warm_up, "round": encode_all, "save": save, "peak": _peak}


def _peak() -> dict[str, Any]:
    return {"peak_bytes": peak_bytes()}


SYSTEMS: dict[str, Callable[[Path, list[str], str, int | None], Mapping[str, Job]]] = {
    "llm2comp": _open_ours,
    "sentence-transformers": _open_sentence_transformers,
    "transformers": _open_transformers,
    "matmul": _open_matmul,
}
"""What can be measured, by name."""


def open_system(system: str, folder: str, texts: int | None = None, precision: str = "float32", batch_size: int | None = None) -> Mapping[str, Job]:
    """The jobs of a system on what `encode_setup.prepare` left in a folder: `warm_up`, `round`, `peak`, and, of encoders, `save`.

    Args:
        system: One of `SYSTEMS`.
        folder: As prepared.
        texts: How many of the texts; None: all.
        precision: float32 or bfloat16.
        batch_size: Of ours; None, and for all others: their own default.
    """
    given = json.loads((Path(folder) / PARTS["texts"]).read_text(encoding="utf-8"))
    return SYSTEMS[system](Path(folder), given[:texts], precision, batch_size)


if __name__ == "__main__":
    serve(lambda: ({}, open_system(**json.loads(sys.argv[1]))))
