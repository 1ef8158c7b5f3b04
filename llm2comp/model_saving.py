"""What a model folder has beside its encoder: settings, stages, fingerprint, card, prompts."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.sentence_transformer.modules import Dense
from torch import Tensor

from llm2comp.atomic import staged_folder
from llm2comp.backbone.hardware import storage_dtype
from llm2comp.encoder import MemoryEncoder
from llm2comp.errors import ModelFolderError, SettingsError
from llm2comp.fingerprint import content_digest, fingerprint
from llm2comp.model_card import write_card
from llm2comp.model_folder import CONFIG_FILE, cast_weights, check_folder, check_name, read_config, write_config
from llm2comp.whitening import WHITENING_FOLDER, make_module, whitening_digest

__all__ = ["check_replaceable", "save_model", "save_whitened", "saved_prompts"]

_MODULES_FILE = "modules.json"


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


def save_whitened(source: Path, target: Path, matrix: Tensor) -> None:
    """Writes a model folder with the files of another one, to the byte, and a whitening behind its pooling.

    Args:
        source: Folder of a model; a whitening that it has is left out.
        target: As in `save_model`.
        matrix: (dim, dim).

    Raises:
        ModelFolderError: `source` is no model folder, is damaged, or was written by a version that recorded no digest
            of its content; `target` holds something else, or cannot be written.
    """
    config = {**check_folder(source), **read_config(source)}
    if "content_sha256" not in config:
        raise ModelFolderError(f"{source} was written by an older version: load it, and save it into a new folder")
    check_name(target)
    check_replaceable(target, CONFIG_FILE, "llm2comp model")
    entries: list[dict[str, Any]] = json.loads((source / _MODULES_FILE).read_text(encoding="utf-8"))
    behind = [entry for entry in entries[1:] if not entry["type"].endswith(".Dense")]
    folders = {entry["path"] for entry in entries[1:]}
    whitening = make_module(matrix)
    with staged_folder(target) as unfinished:
        for name in [CONFIG_FILE, *(name for name in config["files"] if name.split("/")[0] not in folders)]:
            (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, unfinished / name)
        (unfinished / WHITENING_FOLDER).mkdir()
        whitening.save(str(unfinished / WHITENING_FOLDER))
        behind.insert(1, {"path": WHITENING_FOLDER, "type": f"{Dense.__module__}.{Dense.__name__}"})
        placed = [entries[0]]
        for number, entry in enumerate(behind, start=1):
            path = f"{number}_{entry['type'].rsplit('.', 1)[1]}"
            if path != WHITENING_FOLDER:
                shutil.copytree(source / entry["path"], unfinished / path)
            placed.append({"idx": number, "name": str(number), "path": path, "type": entry["type"]})
        (unfinished / _MODULES_FILE).write_text(json.dumps(placed, indent=2), encoding="utf-8")
        settings = {name: config[name] for name in ("max_length", "pooling", "query_instruction")}
        settings |= {"normalize": config.get("normalize", True), "whitening": whitening_digest(whitening)}
        write_card(
            unfinished,
            target,
            backbone=None if config["backbone"] == "backbone/" else config["backbone"]["name"],
            memory_tokens=config["memory_tokens"],
            stages=[*config["stages"], "whitening"],
            max_length=config["max_length"],
        )
        write_config(
            unfinished,
            {"whitening": settings["whitening"], "fingerprint": fingerprint(config["content_sha256"], settings)},
        )


def saved_prompts(folder: Path) -> dict[str, Any]:
    """Prompts by name, such as those of mteb's tasks; the query instruction is in `llm2comp.json` instead."""
    path = folder / "config_sentence_transformers.json"
    prompts = json.loads(path.read_text(encoding="utf-8")).get("prompts") if path.is_file() else None
    return prompts if isinstance(prompts, dict) else {}
