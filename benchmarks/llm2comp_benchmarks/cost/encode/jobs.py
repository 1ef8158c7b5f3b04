"""The systems of an encoding benchmark, each in a process of its own that does one job at a time for `run`."""

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

from llm2comp_benchmarks.cost.devices import device_memory_peak, finish, start_memory
from llm2comp_benchmarks.cost.encode.stages import measure_operations, measure_stages
from llm2comp_benchmarks.cost.models import PARTS
from llm2comp_benchmarks.cost.processes import Job
from llm2comp_benchmarks.cost.worker import serve

__all__ = ["SYSTEMS", "open_system"]

_WARM_UP = 64  # texts
_SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}  # of square matrices; the higher rate counts
_ROWS = {"cpu": 4096, "cuda": 16_384}  # of products in the model's own shapes
_MATMUL_SECONDS = 0.5  # of each measurement
_BARE_TEXTS = 32  # of a forward pass without a library around it: sentence-transformers' default batch

Encode = Callable[[list[str]], Any]


def _open_ours(
    folder: Path, texts: list[str], precision: str, batch_size: int | None, device: str
) -> Mapping[str, Job]:
    """Our encoder in a process that keeps freed memory, as the commands do."""
    import llm2comp

    llm2comp.keep_freed_memory()
    return _open_default_malloc(folder, texts, precision, batch_size, device)


def _open_default_malloc(
    folder: Path, texts: list[str], precision: str, batch_size: int | None, device: str
) -> Mapping[str, Job]:
    """Our encoder in a process that has not called `keep_freed_memory`."""
    import llm2comp

    model = llm2comp.load(str(folder / PARTS["ours"]), device=device, dtype=precision)
    options = {} if batch_size is None else {"batch_size": batch_size}

    def encode(several: list[str]) -> Any:
        return model.encode(several, show_progress_bar=False, **options)

    def stages(file: str) -> dict[str, Any]:
        busy = measure_stages(model, texts, Path(file), encode, lambda: finish(device))
        return {"stages": busy, **measure_operations(lambda: encode(texts[: 4 * _WARM_UP]), device)}

    return {**_encoding(encode, texts, device), "stages": stages}


def _open_sentence_transformers(
    folder: Path, texts: list[str], precision: str, batch_size: int | None, device: str
) -> Mapping[str, Job]:
    """The plain export with the library's own modules and default batch."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(folder / PARTS["plain"]), device=device, local_files_only=True, model_kwargs={"dtype": precision}
    )
    return _encoding(lambda several: model.encode(several, show_progress_bar=False), texts, device)


def _open_transformers(
    folder: Path, texts: list[str], precision: str, batch_size: int | None, device: str
) -> Mapping[str, Job]:
    """Forward passes over token ids alone: no texts, no padding, no pooling.

    Every row has the mean length of the texts; a batch has 32 rows.
    """
    from transformers import AutoModel, AutoTokenizer

    model = (
        AutoModel.from_pretrained(folder / PARTS["plain"], dtype=getattr(torch, precision), local_files_only=True)
        .eval()
        .to(device)
    )
    tokenizer = AutoTokenizer.from_pretrained(folder / PARTS["plain"], local_files_only=True)
    tokens = [token for ids in tokenizer(texts, truncation=True)["input_ids"] for token in ids]
    length = max(1, round(len(tokens) / len(texts)))
    rows = torch.tensor(tokens[: len(tokens) // length * length]).reshape(-1, length)

    def forward(several: torch.Tensor) -> None:
        with torch.inference_mode():
            for batch in several.split(_BARE_TEXTS):
                model(input_ids=batch.to(device), use_cache=False)
        finish(device)

    def encode_all() -> dict[str, Any]:
        start = time.perf_counter()
        forward(rows)
        return {"seconds": time.perf_counter() - start, "texts": len(rows), "tokens": rows.numel()}

    def warm_up() -> dict[str, Any]:
        forward(rows[:_WARM_UP])
        return {"loaded_bytes": start_memory(device)}

    return {"warm_up": warm_up, "round": encode_all, "peak": lambda: _peak(device)}


def _open_matmul(
    folder: Path, texts: list[str], precision: str, batch_size: int | None, device: str
) -> Mapping[str, Job]:
    """Products of square matrices and of the model's shapes: what is left if only the linear layers are computed."""
    backbone = folder / PARTS["plain"] if (folder / PARTS["plain"]).is_dir() else folder / PARTS["ours"] / "backbone"
    config = json.loads((backbone / "config.json").read_text(encoding="utf-8"))
    hidden, intermediate = config["hidden_size"], config.get("intermediate_size") or 4 * config["hidden_size"]
    kind = torch.device(device).type
    kwargs = {"dtype": getattr(torch, precision), "device": device}
    square = [(torch.randn(size, size, **kwargs), torch.randn(size, size, **kwargs)) for size in _SIZES[kind]]
    shapes = [(hidden, hidden)] * 4 + [(hidden, intermediate)] * 2 + [(intermediate, hidden)]
    layer = [(torch.randn(_ROWS[kind], width, **kwargs), torch.randn(out, width, **kwargs)) for width, out in shapes]

    def measure() -> dict[str, Any]:
        return {"flops": max(_rate([pair], device) for pair in square), "model_shapes_flops": _rate(layer, device)}

    def warm_up() -> dict[str, Any]:
        measure()
        return {"loaded_bytes": start_memory(device)}

    return {"warm_up": warm_up, "round": measure, "peak": lambda: _peak(device)}


def _rate(products: Sequence[tuple[torch.Tensor, torch.Tensor]], device: str) -> float:
    """Floating-point operations a second of products (rows, width) x (out, width), one after another.

    The median over half a second, and over three measurements or more.
    """
    work = sum(2 * len(states) * weight.numel() for states, weight in products)
    seconds: list[float] = []
    with torch.inference_mode():
        while sum(seconds) < _MATMUL_SECONDS or len(seconds) < 3:
            finish(device)
            start = time.perf_counter()
            for states, weight in products:
                functional.linear(states, weight)
            finish(device)
            seconds.append(time.perf_counter() - start)
    return work / median(seconds)


def _encoding(encode: Encode, texts: list[str], device: str) -> Mapping[str, Job]:
    """The jobs of a system that turns texts into vectors."""
    vectors: list[Any] = []

    def warm_up() -> dict[str, Any]:
        encode(texts[:_WARM_UP])
        return {"loaded_bytes": start_memory(device)}

    def encode_all() -> dict[str, Any]:
        vectors.clear()
        start = time.perf_counter()
        vectors.append(encode(texts))
        return {"seconds": time.perf_counter() - start, "texts": len(texts)}

    def save(file: str) -> dict[str, Any]:
        np.save(file, np.asarray(vectors[-1], dtype=np.float32))
        return {}

    return {"warm_up": warm_up, "round": encode_all, "save": save, "peak": lambda: _peak(device)}


def _peak(device: str) -> dict[str, Any]:
    return {"peak_bytes": device_memory_peak(device)}


SYSTEMS: dict[str, Callable[[Path, list[str], str, int | None, str], Mapping[str, Job]]] = {
    "llm2comp": _open_ours,
    "llm2comp-default-malloc": _open_default_malloc,
    "sentence-transformers": _open_sentence_transformers,
    "transformers": _open_transformers,
    "matmul": _open_matmul,
}
"""Opens a system, by its name in results."""


def open_system(
    system: str,
    folder: str,
    texts: int | None = None,
    precision: str = "float32",
    batch_size: int | None = None,
    device: str = "cpu",
) -> Mapping[str, Job]:
    """The jobs of a system on a folder of `models.prepare`: `warm_up`, `round`, `peak`, and `save` of encoders.

    Args:
        system: A name in `SYSTEMS`.
        folder: The prepared folder.
        texts: How many of the texts; None: all.
        precision: float32 or bfloat16.
        batch_size: Batch size of our encoder; None: its default. Other systems always use their default.
        device: `cpu`, or a GPU's name: then memory is the GPU's, and a time ends when the GPU is done.
    """
    chosen = json.loads((Path(folder) / PARTS["texts"]).read_text(encoding="utf-8"))[:texts]
    return SYSTEMS[system](Path(folder), chosen, precision, batch_size, device)


if __name__ == "__main__":
    serve(lambda: ({}, open_system(**json.loads(sys.argv[1]))))
