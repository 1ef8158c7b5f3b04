"""Arguments of a model's functions, checked before anything is loaded or encoded."""

from collections.abc import Iterable, Sequence
from typing import Any

from llm2comp.encoder_options import ENGINES
from llm2comp.errors import SettingsError

__all__ = ["check_engine", "check_texts", "check_truncation", "check_vector_arguments"]


def check_engine(engine: str, device: str) -> None:
    """Refuses an engine that is not known, and one that does not run on the device.

    Raises:
        SettingsError: If it is either.
    """
    if engine not in ENGINES:
        raise SettingsError(f"engine is {engine!r}; give {', '.join(ENGINES[:-1])} or {ENGINES[-1]}")
    if engine == "openvino" and device != "cpu":
        raise SettingsError(f"engine openvino runs on the CPU, and device is {device}: give device cpu")


def check_truncation(truncate_dim: int | None, dimension: int) -> None:
    """Raises SettingsError unless a vector of that dimension has so many components."""
    if truncate_dim is not None and not 1 <= truncate_dim <= dimension:
        raise SettingsError(f"truncate_dim is {truncate_dim}, and vectors of this model have {dimension} components")


def check_texts(inputs: Any) -> str | list[str]:
    """The text or texts to encode.

    Raises:
        TypeError: If it is neither a string nor strings, naming the position of the first that is none.
    """
    if isinstance(inputs, str):
        return inputs
    if isinstance(inputs, (bytes, dict)) or not isinstance(inputs, Iterable):
        raise TypeError(f"encode takes a string or a list of strings, not {type(inputs).__name__}")
    texts = list(inputs)
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {position} is {type(text).__name__} {str(text)[:40]!r}; every text must be a string")
    return texts


def check_vector_arguments(texts: Sequence[str], task: str) -> list[str]:
    """The texts of `encode_vectors`, as a list.

    Raises:
        SettingsError: If `texts` is a single string, or there is no such task.
    """
    if isinstance(texts, str):
        raise SettingsError(f"texts is a string, expected a list: encode_vectors([{texts[:40]!r}])")
    if task not in ("query", "document"):
        raise SettingsError(f"task is {task!r}, expected query or document")
    return list(texts)
