"""What a model folder has beside its encoder: settings, stages, fingerprint, card, prompts."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from llm2comp.atomic import staged_folder
from llm2comp.backbone.hardware import storage_dtype
from llm2comp.backbone.int8 import holds_int8
from llm2comp.encoder import MemoryEncoder
from llm2comp.errors import ModelFolderError, SettingsError
from llm2comp.fingerprint import content_digest, fingerprint
from llm2comp.model_card import write_card
from llm2comp.model_folder import CONFIG_FILE, MEMORY_FILE, cast_weights, check_name, write_config

__all__ = ["check_replaceable", "save_model", "saved_precision", "saved_prompts"]


def save_model(
    target: Path,
    encoder: MemoryEncoder,
    settings: dict[str, Any],
    stages: Sequence[str],
    write_modules: Callable[[str], None],
    *,
    weights_dtype: torch.dtype | str | None = None,
    name_wheel: bool = False,
) -> None:
    """Writes a model folder, whole or not at all.

    Args:
        target: A new or empty folder, or one that holds a model, which is then replaced; its README.md is kept.
        encoder: The first module.
        settings: Those that determine the vectors together with the encoder's content.
        stages: Training stages, in order.
        write_modules: Writes all modules into a folder.
        weights_dtype: As in `LLM2Comp.save`.
        name_wheel: As in `LLM2Comp.save`.

    Raises:
        ModelFolderError, SettingsError: As `LLM2Comp.save`.
    """
    stored_dtype = storage_dtype(weights_dtype) if weights_dtype is not None else None
    if name_wheel and stored_dtype not in (None, torch.float32, torch.bfloat16):
        raise SettingsError(
            f"weights_dtype {weights_dtype} and name_wheel: a folder without the language model's weights has none "
            "in that precision; give one of the two"
        )
    check_name(target)
    check_replaceable(target, CONFIG_FILE, "llm2comp model")
    with staged_folder(target) as unfinished:
        encoder.name_wheel = name_wheel
        try:
            write_modules(str(unfinished))
        finally:
            encoder.name_wheel = False
        if stored_dtype is not None:
            cast_weights(unfinished, stored_dtype)
        content = content_digest(encoder, stored_dtype)
        entries = {
            **{name: value for name, value in settings.items() if name != "max_length"},  # written by the encoder
            "stages": list(stages),
            "fingerprint": fingerprint(content, settings),
            "content_sha256": content,
        }
        reference = encoder.backbone.reference
        write_card(
            unfinished,
            target,
            backbone=reference.name if reference else None,
            memory_tokens=encoder.memory_tokens,
            stages=[*stages, *(["whitening"] if "whitening" in settings else [])],
            max_length=encoder.max_seq_length,
        )
        write_config(unfinished, entries)


def check_replaceable(target: Path, marker: str, kind: str) -> None:
    """Checks that a model may be written to a path: it is free, an empty folder, or holds a model of the kind.

    Args:
        target: The path.
        marker: Name of the file that a folder with such a model has.
        kind: What the error calls such a model.

    Raises:
        ModelFolderError: If it holds something else.
    """
    if target.exists() and not (target / marker).is_file() and (target.is_file() or any(target.iterdir())):
        raise ModelFolderError(f"{target} exists and holds no {kind}; give a new or empty folder")


def saved_precision(folder: Path) -> str:
    """Precision of the weights in a model folder: `float32`, `bfloat16` or `int8`, as `save_model` takes it."""
    if holds_int8(folder / "backbone"):
        return "int8"
    with safe_open(folder / MEMORY_FILE, framework="pt") as file:
        kept = file.get_tensor("memory_tokens").dtype
    return "bfloat16" if kept is torch.bfloat16 else "float32"


def saved_prompts(folder: Path) -> dict[str, Any]:
    """Prompts by name, such as those of mteb's tasks; the query instruction is in `llm2comp.json` instead."""
    path = folder / "config_sentence_transformers.json"
    prompts = json.loads(path.read_text(encoding="utf-8")).get("prompts") if path.is_file() else None
    return prompts if isinstance(prompts, dict) else {}
