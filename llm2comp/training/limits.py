"""Longest input of a model and its memory tokens, read from its configuration before anything is loaded."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from llm2comp.bundled_models import resolve_name

__all__ = ["TrainedLimits", "longest_input", "trained_limits"]

_TRAINED, _TEXT_MEAN = "llm2comp.json", "text_mean.json"
_HUB_TIMEOUT = 10.0
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")


def longest_input(name_or_path: str | Path, revision: str | None = None) -> int | None:
    """Longest input in tokens of a language model, or of a trained model (memory tokens included).

    None if its configuration cannot be read here, or names no limit; whoever loads the model says what is wrong.

    Args:
        name_or_path: Bundled model, folder, Hub id or GGUF file.
        revision: Commit, tag or branch of a Hub id.
    """
    name = resolve_name(name_or_path)
    try:
        if name.lower().endswith(".gguf"):
            return _of_gguf(name)
        if Path(name).is_dir():
            return _of_folder(Path(name))
        return _of_hub(name, revision)
    except Exception:  # a damaged file, no network, no such model
        return None


class TrainedLimits(NamedTuple):
    """Of a trained model's folder."""

    max_length: int
    """Longest input in tokens, memory tokens included."""
    memory_tokens: int
    """Number of memory tokens; 0 if the model averages the tokens of its texts instead."""


def trained_limits(name_or_path: str | Path) -> TrainedLimits | None:
    """Limits of a bundled model or of one in a folder; None if it is a language model, or damaged."""
    folder = Path(resolve_name(name_or_path))
    for file, memory in ((_TRAINED, None), (_TEXT_MEAN, 0)):
        try:
            config = json.loads((folder / file).read_text(encoding="utf-8"))
            return TrainedLimits(int(config["max_length"]), int(config["memory_tokens"] if memory is None else memory))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _of_folder(folder: Path) -> int | None:
    if limits := trained_limits(folder):
        return limits.max_length
    return _positions(json.loads((folder / "config.json").read_text(encoding="utf-8")))


def _of_hub(name: str, revision: str | None) -> int | None:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    try:  # once, without the retries that the client spends on each file
        commit = HfApi().model_info(name, revision=revision, timeout=_HUB_TIMEOUT).sha
    except Exception:
        return _of_folder(Path(snapshot_download(name, revision=revision, local_files_only=True)))
    for file in (_TRAINED, "config.json"):
        try:
            return _of_folder(Path(hf_hub_download(name, file, revision=commit)).parent)
        except EntryNotFoundError:
            continue
    return None


def _of_gguf(name: str) -> int | None:
    from llm2comp.backbone.gguf_header import read_header
    from llm2comp.backbone.wheel_file import WHEEL_PREFIX, find_in_wheel

    settings = read_header(find_in_wheel(name) if name.startswith(WHEEL_PREFIX) else Path(name)).settings
    length = settings.get(f"{settings.get('general.architecture')}.context_length")
    return int(length) if length else None


def _positions(config: dict[str, Any]) -> int | None:
    for entries in (config.get("text_config"), config):
        for field in _POSITIONS:
            if isinstance(entries, dict) and isinstance(length := entries.get(field), int) and length > 0:
                return length
    return None
