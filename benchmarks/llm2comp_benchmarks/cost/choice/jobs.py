"""A model in a process of its own, which encodes texts and single queries; its memory is that of this process alone."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import llm2comp
from llm2comp_benchmarks.cost.devices import device_memory_peak, start_memory
from llm2comp_benchmarks.cost.processes import Job
from llm2comp_benchmarks.cost.worker import serve

__all__ = ["open_model"]

_WARM_UP = 64
_QUERIES = 200


def open_model(model: str, texts: str, *, precision: str, plain: bool) -> tuple[dict[str, Any], Mapping[str, Job]]:
    """Facts about the loaded model, and its jobs: `encode` the texts of a kind, `queries` one at a time, `peak`.

    Args:
        model: Name or folder.
        texts: A JSON file of texts by kind.
        precision: float32 or bfloat16.
        plain: Whether sentence-transformers runs it as it is.
    """
    kinds: dict[str, list[str]] = json.loads(Path(texts).read_text(encoding="utf-8"))
    start = time.perf_counter()
    encoder = _load(model, precision, plain=plain)
    facts: dict[str, Any] = {"load_seconds": time.perf_counter() - start, "loaded_bytes": start_memory("cpu")}
    for several in kinds.values():
        encoder.encode(several[:_WARM_UP], show_progress_bar=False)

    def encode(kind: str) -> dict[str, Any]:
        start = time.perf_counter()
        encoder.encode(kinds[kind], show_progress_bar=False)
        return {"seconds": time.perf_counter() - start}

    def queries() -> dict[str, Any]:
        seconds = []
        for text in kinds["short"][:_QUERIES]:
            start = time.perf_counter()
            encoder.encode_query(text, show_progress_bar=False)
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds}

    facts |= {"dimension": encoder.get_embedding_dimension(), "max_tokens": encoder.max_seq_length}
    facts["tokens"] = {kind: _count_tokens(encoder, several, plain=plain) for kind, several in kinds.items()}
    return facts, {
        "encode": encode,
        "queries": queries,
        "peak": lambda: {"bytes": device_memory_peak("cpu")},
    }


def _load(model: str, precision: str, *, plain: bool) -> Any:
    if not plain:
        llm2comp.keep_freed_memory()
        return llm2comp.load(model, device="cpu", dtype=precision)
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(model, device="cpu", local_files_only=True, model_kwargs={"dtype": precision})


def _count_tokens(encoder: Any, texts: list[str], *, plain: bool) -> int:
    """Number of tokens that the model reads of the texts: of each at most its longest input."""
    if not plain:
        tokens: int = sum(len(ids) + encoder.memory_tokens for ids in encoder.encoder.token_ids(texts))
        encoder.encoder.pop_truncated()
        return tokens
    return sum(
        len(ids) for ids in encoder.tokenizer(texts, truncation=True, max_length=encoder.max_seq_length)["input_ids"]
    )


if __name__ == "__main__":
    serve(lambda: open_model(**json.loads(sys.argv[1])))
