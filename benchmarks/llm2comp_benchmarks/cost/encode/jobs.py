"""The systems of an encoding benchmark, each in a process of its own that does one job at a time for `run`."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from llm2comp_benchmarks.cost.devices import finish, start_memory
from llm2comp_benchmarks.cost.encode.matmul import matrix_products, measure_products
from llm2comp_benchmarks.cost.encode.stages import measure_operations, measure_stages, one_thread
from llm2comp_benchmarks.cost.encode.system import WARM_UP, Encode, Setup, encoding_jobs, peak
from llm2comp_benchmarks.cost.processes import Job
from llm2comp_benchmarks.cost.worker import serve

__all__ = ["SYSTEMS", "open_system"]

_BARE_TEXTS = 32  # of a forward pass without a library around it: sentence-transformers' default batch


def _open_ours(setup: Setup) -> Mapping[str, Job]:
    """Our encoder in a process that keeps freed memory, as the commands do."""
    import llm2comp

    llm2comp.keep_freed_memory()
    return _open_default_malloc(setup)


def _open_ours_openvino(setup: Setup) -> Mapping[str, Job]:
    """Our encoder with OpenVINO as the engine."""
    import llm2comp

    llm2comp.keep_freed_memory()
    return _open_default_malloc(setup, "openvino")


def _open_default_malloc(setup: Setup, engine: Literal["torch", "openvino"] = "torch") -> Mapping[str, Job]:
    """Our encoder in a process that has not called `keep_freed_memory`."""
    import llm2comp

    model = llm2comp.load(str(setup.part("ours")), device=setup.device, dtype=setup.precision, engine=engine)
    options = {} if setup.batch_size is None else {"batch_size": setup.batch_size}

    def encode(several: list[str]) -> Any:
        return model.encode(several, show_progress_bar=False, **options)

    def stages(file: str, kind: str = "document") -> dict[str, Any]:
        texts = setup.texts(kind)
        with one_thread():
            busy = measure_stages(model, texts, Path(file), encode, lambda: finish(setup.device))
            return {"stages": busy, **measure_operations(lambda: encode(texts[: 4 * WARM_UP]), setup.device)}

    return {**encoding_jobs(setup, encode, _queries(model)), "stages": stages}


def _queries(model: Any) -> Encode:
    """Encodes one query, as users of sentence-transformers do."""
    return lambda texts: model.encode_query(texts[0], show_progress_bar=False)


def _open_sentence_transformers(setup: Setup) -> Mapping[str, Job]:
    """The plain export with the library's own modules and default batch."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(setup.part("plain")),
        device=setup.device,
        local_files_only=True,
        model_kwargs={"dtype": setup.precision},
    )
    return encoding_jobs(setup, lambda texts: model.encode(texts, show_progress_bar=False), _queries(model))


def _open_engine(setup: Setup, open_: Callable[..., Encode], streams: int) -> Mapping[str, Job]:
    """The plain export in an engine; with several streams, batches run side by side and no queries are timed."""
    encode = open_(setup.part("plain"), setup.precision, setup.threads, streams)
    return encoding_jobs(setup, encode, None if streams > 1 else _prompted(setup, encode))


def _open_openvino(setup: Setup, streams: int = 1) -> Mapping[str, Job]:
    from llm2comp_benchmarks.cost.encode.peer_openvino import open_openvino

    return _open_engine(setup, open_openvino, streams)


def _open_onnxruntime(setup: Setup, streams: int = 1) -> Mapping[str, Job]:
    from llm2comp_benchmarks.cost.encode.peer_onnxruntime import open_onnxruntime

    return _open_engine(setup, open_onnxruntime, streams)


def _prompted(setup: Setup, encode: Encode) -> Encode:
    """Encodes queries of an engine, with the instruction of the plain export before them."""
    from llm2comp_benchmarks.cost.encode.peer_graph import query_prompt

    prompt = query_prompt(setup.part("plain"))
    return lambda texts: encode([prompt + text for text in texts])


def _open_transformers(setup: Setup) -> Mapping[str, Job]:
    """Forward passes over token ids alone: no texts, no padding, no pooling.

    Every row has the mean length of the texts; a batch has 32 rows.
    """
    from transformers import AutoModel, AutoTokenizer

    plain, device = setup.part("plain"), setup.device
    model = AutoModel.from_pretrained(plain, dtype=getattr(torch, setup.precision), local_files_only=True)
    model.eval().to(device)
    tokenizer = AutoTokenizer.from_pretrained(plain, local_files_only=True)

    def forward(rows: torch.Tensor) -> None:
        with torch.inference_mode():
            for batch in rows.split(_BARE_TEXTS):
                model(input_ids=batch.to(device), use_cache=False)
        finish(device)

    def warm_up(kind: str = "document") -> dict[str, Any]:
        forward(_equal_rows(tokenizer, setup.texts(kind))[:WARM_UP])
        return {"loaded_bytes": start_memory(device)}

    def encode_all(kind: str = "document") -> dict[str, Any]:
        rows = _equal_rows(tokenizer, setup.texts(kind))
        start = time.perf_counter()
        forward(rows)
        return {"seconds": time.perf_counter() - start, "texts": len(rows), "tokens": rows.numel()}

    return {"warm_up": warm_up, "round": encode_all, "peak": lambda: peak(device)}


def _equal_rows(tokenizer: Any, texts: list[str]) -> torch.Tensor:
    """The tokens of all texts one after another, cut into rows of the mean length of a text."""
    tokens = [token for ids in tokenizer(texts, truncation=True)["input_ids"] for token in ids]
    length = max(1, round(len(tokens) / len(texts)))
    return torch.tensor(tokens[: len(tokens) // length * length]).reshape(-1, length)


def _open_matmul(setup: Setup) -> Mapping[str, Job]:
    """Products of square matrices and of the model's shapes: what is left if only the linear layers are computed."""
    backbone = setup.part("plain") if setup.part("plain").is_dir() else setup.part("ours") / "backbone"
    products = matrix_products(backbone, setup.precision, setup.device)

    def measure(kind: str = "document") -> dict[str, Any]:
        return measure_products(products, setup.device)

    def warm_up(kind: str = "document") -> dict[str, Any]:
        measure()
        return {"loaded_bytes": start_memory(setup.device)}

    return {"warm_up": warm_up, "round": measure, "peak": lambda: peak(setup.device)}


SYSTEMS: dict[str, Callable[[Setup], Mapping[str, Job]]] = {
    "llm2comp": _open_ours,
    "llm2comp-default-malloc": _open_default_malloc,
    "llm2comp-openvino": _open_ours_openvino,
    "sentence-transformers": _open_sentence_transformers,
    "transformers": _open_transformers,
    "openvino": _open_openvino,
    "openvino-streams": lambda setup: _open_openvino(setup, setup.threads),
    "onnxruntime": _open_onnxruntime,
    "onnxruntime-streams": lambda setup: _open_onnxruntime(setup, setup.threads),
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
    threads: int = 1,
) -> Mapping[str, Job]:
    """The jobs of a system on a folder of `models.prepare`: `warm_up`, `round`, `peak`, and `save` of encoders.

    `warm_up` and `round` take a kind of texts; the default is `document`. A round of `short` texts times the first of
    them as queries too, one at a time, as `query_seconds`, of systems that answer queries.

    Args:
        system: A name in `SYSTEMS`.
        folder: The prepared folder.
        texts: How many of the texts; None: all.
        precision: float32 or bfloat16; int8 of engines.
        batch_size: Batch size of our encoder; None: its default. Other systems always use their default.
        device: `cpu`, or a GPU's name: then memory is the GPU's, and a time ends when the GPU is done.
        threads: Threads of engines, which do not read the environment's limit.
    """
    return SYSTEMS[system](Setup(Path(folder), texts, precision, batch_size, device, threads))


if __name__ == "__main__":
    serve(lambda: ({}, open_system(**json.loads(sys.argv[1]))))
