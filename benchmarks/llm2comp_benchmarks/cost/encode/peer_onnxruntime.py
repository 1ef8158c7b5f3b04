"""ONNX Runtime, driven directly, on the graph of our plain export."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llm2comp_benchmarks.cost.encode.peer_graph import Batch, Batches, PlainEncoder

__all__ = ["onnxruntime_settings", "open_onnxruntime"]

_INPUTS, _OUTPUT = ["input_ids", "attention_mask"], "vectors"
_OPSET = 18


def onnxruntime_settings(precision: str, threads: int, streams: int) -> dict[str, Any]:
    """Options of a session, and how weights are quantised.

    Args:
        precision: `float32`, or `int8` for weights, one scale a channel, and activations quantised while it runs.
        threads: Threads of all streams together.
        streams: Batches at a time, each in threads of its own.
    """
    options = {
        "intra_op_num_threads": threads // streams,
        "graph_optimization_level": "all",
        "calls at a time": streams,
    }
    return options | (
        {"quantize_dynamic": {"per_channel": True, "weight_type": "QInt8"}} if precision == "int8" else {}
    )


def open_onnxruntime(folder: Path, precision: str, threads: int, streams: int) -> Callable[[list[str]], NDArray[Any]]:
    """A function that returns the vectors of texts, (texts, dim).

    Args:
        folder: A plain export.
        precision: As for `onnxruntime_settings`.
        threads: Threads of all streams together.
        streams: Batches at a time. A session serves them all: without threads of its own, it runs in the caller's.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads // streams
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    with TemporaryDirectory() as temporary:
        file = _write_graph(folder, Path(temporary), precision)
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    batches = Batches(folder, threads // streams)
    pool = ThreadPoolExecutor(streams)

    def run(batch: Batch) -> tuple[list[int], NDArray[Any]]:
        inputs = dict(zip(_INPUTS, batch[1:], strict=True))
        return batch.rows, session.run([_OUTPUT], inputs)[0]

    def encode(texts: list[str]) -> NDArray[Any]:
        rows, parts = zip(*pool.map(run, batches(texts)), strict=True)
        vectors = np.empty((len(texts), parts[0].shape[1]), np.float32)
        vectors[np.concatenate(rows)] = np.concatenate(parts)
        return vectors

    return encode


def _write_graph(folder: Path, target: Path, precision: str) -> Path:
    """The export as ONNX, with attention as products and a softmax: measured no slower than its one operation."""
    encoder = PlainEncoder(folder, attention="eager")
    file = target / "encoder.onnx"
    sizes = {0: "texts", 1: "tokens"}
    torch.onnx.export(
        encoder,
        encoder.example(),
        file,
        dynamo=False,
        opset_version=_OPSET,
        input_names=_INPUTS,
        output_names=[_OUTPUT],
        dynamic_axes={**dict.fromkeys(_INPUTS, sizes), _OUTPUT: {0: "texts"}},
    )
    if precision == "float32":
        return file
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantized = target / "int8.onnx"
    quantize_dynamic(file, quantized, per_channel=True, weight_type=QuantType.QInt8)
    return quantized
