"""OpenVINO, driven directly, on the graph of our plain export."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp.backbone.hardware import multiplies_bfloat16
from llm2comp.backbone.openvino_graph import convert_module, openvino_core
from llm2comp_benchmarks.cost.encode.peer_graph import Batch, Batches, PlainEncoder

__all__ = ["open_openvino", "openvino_settings"]

_INT8_GROUP = "64"  # activations quantised together


def openvino_settings(precision: str, threads: int, streams: int) -> dict[str, str]:
    """Properties of the CPU plugin.

    Args:
        precision: `float32`, `bfloat16`, or `int8` for weights, with activations quantised while it runs.
        threads: Threads of all streams together.
        streams: Batches at a time, each in threads of its own.
    """
    properties = {
        "INFERENCE_PRECISION_HINT": "bf16" if _in_bfloat16(precision) else "f32",
        "INFERENCE_NUM_THREADS": str(threads),
        "NUM_STREAMS": str(streams),
        "PERFORMANCE_HINT": "THROUGHPUT" if streams > 1 else "LATENCY",
    }
    return properties | ({"DYNAMIC_QUANTIZATION_GROUP_SIZE": _INT8_GROUP} if precision == "int8" else {})


def _in_bfloat16(precision: str) -> bool:
    """Whether sums and attention are in bfloat16; with int8 weights where the processor multiplies it, as faster."""
    return precision == "bfloat16" or (precision == "int8" and multiplies_bfloat16("cpu"))


def open_openvino(folder: Path, precision: str, threads: int, streams: int) -> Callable[[list[str]], NDArray[Any]]:
    """A function that returns the vectors of texts, (texts, dim).

    Args:
        folder: A plain export.
        precision: As for `openvino_settings`.
        threads: Threads of all streams together.
        streams: Batches at a time.
    """
    import openvino

    model = _converted(folder)
    if precision == "int8":
        import nncf

        model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    compiled = openvino_core().compile_model(model, "CPU", openvino_settings(precision, threads, streams))
    dimension = model.output(0).partial_shape[1].get_length()
    batches = Batches(folder, threads // streams)
    queue = openvino.AsyncInferQueue(compiled, streams)

    def encode(texts: list[str]) -> NDArray[Any]:
        vectors = np.empty((len(texts), dimension), np.float32)

        def collect(request: Any, batch: Batch) -> None:
            vectors[batch.rows] = request.get_output_tensor(0).data

        queue.set_callback(collect)
        for batch in batches(texts):
            queue.start_async([batch.input_ids, batch.attention_mask], batch)
        queue.wait_all()
        return vectors

    return encode


def _converted(folder: Path) -> Any:
    """The export as OpenVINO's model, converted as the engine of this package is."""
    encoder = PlainEncoder(folder)
    return convert_module(encoder, encoder.example(), [[-1, -1], [-1, -1]])
