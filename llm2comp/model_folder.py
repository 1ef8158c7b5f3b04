"""The files of a model folder: what is written, in which order, and what is checked before any of it is loaded.

`llm2comp.json` names every weight file with its size and SHA-256; it is written last, and nothing is read before it and
the files it names have been checked. Weights are safetensors only; nothing is unpickled.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from llm2comp.backbone import Backbone, BackboneReference
from llm2comp.errors import BackboneError, ModelFolderError

__all__ = ["CONFIG_FILE", "EncoderParts", "cast_weights", "check_folder", "read_config", "read_encoder", "write_config", "write_encoder"]

CONFIG_FILE = "llm2comp.json"
_FORMAT_VERSION = 1
_MEMORY_FILE = "memory_tokens.safetensors"


class EncoderParts(NamedTuple):
    """What a folder holds of an encoder."""

    backbone: Backbone
    tokenizer: PreTrainedTokenizerBase
    memory: Tensor
    max_length: int


def write_encoder(folder: Path, backbone: Backbone, tokenizer: PreTrainedTokenizerBase, memory: Tensor, max_length: int) -> None:
    """Writes memory tokens, adapter, tokenizer, the backbone unless it is a Hub reference, and the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"memory_tokens": memory.detach().cpu().contiguous()}, folder / _MEMORY_FILE)
    if isinstance(backbone.model, PeftModel):
        backbone.model.save_pretrained(str(folder / "adapter"), save_embedding_layers=False)
        (folder / "adapter" / "README.md").unlink(missing_ok=True)
    if backbone.reference is None:
        backbone.language_model.save_pretrained(folder / "backbone", state_dict=backbone.weights())
    tokenizer.save_pretrained(str(folder))
    reference = backbone.reference
    write_config(
        folder,
        {
            "backbone": {"name": reference.name, "revision": reference.revision} if reference else "backbone/",
            "memory_tokens": len(memory),
            "max_length": max_length,
        },
    )


def cast_weights(folder: Path, dtype: torch.dtype) -> None:
    """Rewrites the floating weights of a folder in another precision, file by file, and notes it in the backbone's configuration."""
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping, though it has keys
        save_file({name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}, path, metadata=metadata)
    path = folder / "backbone" / "config.json"
    if path.is_file():
        config = json.loads(path.read_text(encoding="utf-8"))
        config["dtype"] = str(dtype).removeprefix("torch.")
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_config(folder: Path, entries: dict[str, Any]) -> None:
    """Writes `llm2comp.json`: the entries (over those already there), the format version, and the weight files' checksums."""
    for file in folder.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors writes files that only their owner may read
    path = folder / CONFIG_FILE
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    weights = sorted(file for file in folder.rglob("*.safetensors"))
    files = {file.relative_to(folder).as_posix(): {"size": file.stat().st_size, "sha256": _sha256(file)} for file in weights}
    config = {**before, **entries, "format_version": _FORMAT_VERSION, "files": files}
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a model folder.

    Raises:
        ModelFolderError: If there is none, or a newer version wrote it.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        what = "has no llm2comp.json" if folder.is_dir() else "is not a folder"
        raise ModelFolderError(f"{folder} {what}: give a folder written by `model.save(...)` or `llm2comp train`")
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = config["format_version"]
        missing = {"backbone", "memory_tokens", "max_length", "files"} - set(config)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFolderError(f"{path} is not a model configuration ({error}): copy the folder again") from error
    if version != _FORMAT_VERSION:
        raise ModelFolderError(f"{path} has format version {version}, this installation reads {_FORMAT_VERSION}: pip install --upgrade llm2comp")
    if missing:
        raise ModelFolderError(f"{path} lacks {', '.join(sorted(missing))}: copy the folder again")
    return config


def check_folder(folder: Path) -> dict[str, Any]:
    """Compares every weight file with the configuration, which is returned.

    Raises:
        ModelFolderError: Naming the first file that is missing, cut short, altered, or not listed.
    """
    config = read_config(folder)
    for name, expected in config["files"].items():
        path = folder / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise ModelFolderError(f"{folder / CONFIG_FILE} names a file outside the folder: {name!r}")
        if not path.is_file():
            raise ModelFolderError(f"{path} is missing: copy the model folder again")
        if path.stat().st_size != expected["size"]:
            raise ModelFolderError(f"{path} has {path.stat().st_size} bytes, {expected['size']} were written: copy the model folder again")
        if _sha256(path) != expected["sha256"]:
            raise ModelFolderError(f"{path} is not the file that was written (its SHA-256 differs): copy the model folder again")
    unlisted = {path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")} - set(config["files"])
    if unlisted:
        raise ModelFolderError(f"{folder} holds weights that its llm2comp.json does not name: {', '.join(sorted(unlisted))}")
    return config


def read_encoder(folder: Path, *, dtype: torch.dtype = torch.float32, trust_remote_code: bool = False) -> EncoderParts:
    """The encoder saved in a folder, checked first.

    Raises:
        ModelFolderError: If files are missing or altered.
        BackboneError: If the backbone cannot be loaded or does not match the adapter.
    """
    config = check_folder(folder)
    try:
        memory = load_file(folder / _MEMORY_FILE)["memory_tokens"]
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise ModelFolderError(f"{folder}: {' '.join(str(error).split())[:300]}") from error
    source = config["backbone"]
    if source == "backbone/":
        backbone = Backbone.load(folder / "backbone", dtype=dtype, trust_remote_code=trust_remote_code)
    else:
        backbone = Backbone.load(source["name"], revision=source["revision"], dtype=dtype, trust_remote_code=trust_remote_code)
        backbone.reference = BackboneReference(source["name"], source["revision"])
    if memory.shape != (config["memory_tokens"], backbone.hidden_size):
        expected = (config["memory_tokens"], backbone.hidden_size)
        raise BackboneError(f"{folder / _MEMORY_FILE} has shape {tuple(memory.shape)}, the backbone {source} needs {expected}: they do not belong together")
    if (folder / "adapter").is_dir():
        backbone.load_adapter(folder / "adapter")
    return EncoderParts(backbone, tokenizer, memory.float(), config["max_length"])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
