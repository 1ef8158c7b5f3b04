"""Longest input of a model, its layers and memory tokens, read from its configuration before anything is loaded."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from llm2comp.bundled_models import resolve_name

__all__ = ["BackboneLimits", "TrainedLimits", "backbone_limits", "trained_limits"]

_TRAINED, _TEXT_MEAN = "llm2comp.json", "text_mean.json"
_HUB_TIMEOUT = 10.0
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers")


class BackboneLimits(NamedTuple):
    """Of a language model; None where its configuration cannot be read here, or does not say.

    Attributes:
        longest: Longest input in tokens; of a trained model's folder, memory tokens included.
        layers: Number of layers.
    """

    longest: int | None = None
    layers: int | None = None


def backbone_limits(name_or_path: str | Path, revision: str | None = None) -> BackboneLimits:
    """What the configuration of a language model allows; whoever loads the model says what is wrong with it.

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
        return BackboneLimits()


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


def _of_folder(folder: Path) -> BackboneLimits:
    if limits := trained_limits(folder):
        return BackboneLimits(limits.max_length)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return BackboneLimits(_first(config, _POSITIONS), _first(config, _LAYERS))


def _of_hub(name: str, revision: str | None) -> BackboneLimits:
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
    return BackboneLimits()


def _of_gguf(name: str) -> BackboneLimits:
    from llm2comp.backbone.gguf_header import read_header
    from llm2comp.backbone.wheel_file import WHEEL_PREFIX, find_in_wheel

    settings = read_header(find_in_wheel(name).path if name.startswith(WHEEL_PREFIX) else Path(name)).settings
    family = settings.get("general.architecture")
    fields = (f"{family}.context_length",), (f"{family}.block_count",)
    return BackboneLimits(*(_first(settings, names) for names in fields))


def _first(config: dict[str, Any], fields: tuple[str, ...]) -> int | None:
    """The first of these fields that holds a positive number, in the configuration of the text model if it has one."""
    for entries in (config.get("text_config"), config):
        for field in fields:
            if isinstance(entries, dict) and isinstance(number := entries.get(field), int) and number > 0:
                return number
    return None
