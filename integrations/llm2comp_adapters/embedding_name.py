"""What a store records of the embedding that its vectors are made by, and compares when it is opened again."""

from typing import Any, NamedTuple

from llm2comp.bundled_models import find_bundled
from llm2comp_adapters.text_encoder import LOADED, TextEncoder

__all__ = ["EmbeddingName", "loaded_model", "name_embedding"]


class EmbeddingName(NamedTuple):
    """Identity of an embedding.

    Attributes:
        fingerprint: What the vectors depend on: that of a model of this package, or a name; empty: unknown.
        model: Name by which `llm2comp.load` finds the model that encodes queries in the same way; None: it has none.
        dimension: Length of a vector; 0: known from the first one.
    """

    fingerprint: str = ""
    model: str | None = None
    dimension: int = 0


def name_embedding(embedding: Any, name: str | None = None) -> EmbeddingName:
    """Identity of an embedding class of a framework; None has none.

    Args:
        embedding: The embedding.
        name: The user's name for it. Without one, a model of this package has its fingerprint, and any other embedding
            the name of its class and of its model (`model_name` or `model`).
    """
    if name is not None:
        return EmbeddingName(name)
    if embedding is None:
        return EmbeddingName()
    if isinstance(embedding, TextEncoder):
        plain = embedding.fingerprint == embedding.plain_fingerprint
        model = embedding.model_name if plain and embedding.model_name != LOADED else None
        if embedding.base_url is not None:  # the name is the server's: another model may have it here
            model = find_bundled(embedding.plain_fingerprint) if plain else None
        return EmbeddingName(embedding.document_fingerprint, model, embedding.dimension)
    names = (getattr(embedding, field, None) for field in ("model_name", "model"))
    model_name = next((text for text in names if isinstance(text, str) and text != "unknown"), "")
    return EmbeddingName(" ".join(filter(None, (type(embedding).__name__, model_name))))


def loaded_model(embedding: Any) -> Any:
    """The model that an embedding class of this package has loaded in this process; None if it has none."""
    return embedding.model if isinstance(embedding, TextEncoder) else None
