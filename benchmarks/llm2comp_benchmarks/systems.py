"""The evaluated systems by the names a user gives."""

from pathlib import Path
from typing import Any

from llm2comp_benchmarks.encoding import Encoder

__all__ = ["describe_model", "load_model"]


def load_model(name: str | None = None) -> Encoder:
    """The bundled model; or an LLM2Comp model by folder or Hub id; or the sentence-transformers model in a folder."""
    if name is not None and (Path(name) / "modules.json").is_file() and not (Path(name) / "llm2comp.json").exists():
        from sentence_transformers import SentenceTransformer

        other: Encoder = SentenceTransformer(name)
        return other
    import llm2comp

    ours: Encoder = llm2comp.load(name)
    return ours


def describe_model(model: Encoder, name: str | None) -> dict[str, Any]:
    """What a result file says of the model: name, fingerprint, dimension, memory tokens and longest text; null where it has none."""
    attributes = {"fingerprint": "fingerprint", "memory_tokens": "memory_tokens", "max_tokens": "max_seq_length"}
    described = {key: getattr(model, attribute, None) for key, attribute in attributes.items()}
    dimension = getattr(model, "get_embedding_dimension", None)
    return {"model": name or "llm2comp-tiny (bundled)", "dimension": dimension() if dimension else None, **described}
