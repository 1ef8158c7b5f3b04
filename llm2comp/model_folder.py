"""The files of a model folder: what is written, in which order, and what is checked before any of it is loaded.

`llm2comp.json` names every file with its size and SHA-256; it is written last, and nothing is read before it and the
files it names have been checked. Weights are safetensors only; nothing is unpickled.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, though not re-exported by name
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from llm2comp.backbone.backbone import Backbone, BackboneReference
from llm2comp.backbone.loading import Source, find_source, load_tokenizer, quiet
from llm2comp.checked_json import FieldCheck, JsonFormat, check_fields, take, take_count, take_digest, take_optional
from llm2comp.errors import BackboneError, ModelFolderError, one_line

__all__ = [
    "CONFIG_FILE",
    "EncoderParts",
    "cast_weights",
    "check_folder",
    "find_folder",
    "read_config",
    "read_encoder",
    "write_config",
    "write_encoder",
]

CONFIG_FILE = "llm2comp.json"
_MEMORY_FILE = "memory_tokens.safetensors"
_ADAPTER_FILE = "adapter/adapter_model.safetensors"
_FREE_FILES = (CONFIG_FILE, "README.md")
_WEIGHTS = frozenset(
    [".safetensors", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack", ".npz", ".gguf", ".onnx"]
)
_AGAIN = "copy the model folder again"
_FORMAT = JsonFormat("model configuration", ModelFolderError, _AGAIN, version=1, version_field="format_version")
_MOST_TOKENS = 1 << 30


class EncoderParts(NamedTuple):
    """What a folder holds of an encoder."""

    backbone: Backbone
    tokenizer: PreTrainedTokenizerBase
    memory: Tensor
    max_length: int


def find_folder(name_or_path: str | Path) -> Path:
    """The folder of a model that this package saved: the one named, or one downloaded from the Hub (without pickles).

    Raises:
        ModelFolderError: If there is neither a folder nor a model of that id.
    """
    name = str(name_or_path)
    if Path(name).exists():
        return Path(name)
    if name.count("/") != 1:
        raise ModelFolderError(
            f"no model at {name!r}: give a folder, a Hub id such as owner/name, or nothing for the bundled model"
        )
    try:
        source = find_source(name)
        if source.place != name:
            return Path(source.place)
        with quiet():
            hf_hub_download(name, CONFIG_FILE, revision=source.revision)
            pickles = [f"*{suffix}" for suffix in _WEIGHTS - {".safetensors"}]
            return Path(snapshot_download(name, revision=source.revision, ignore_patterns=pickles))
    except BackboneError as error:
        raise ModelFolderError(str(error)) from error
    except Exception as error:  # the hub raises kinds of its own and of the HTTP library below it
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            raise ModelFolderError(
                f"{name!r} is no llm2comp model: make one of a language model with LLM2Comp.from_backbone({name!r})"
            ) from error
        raise ModelFolderError(f"cannot download the model {name!r}: {one_line(error)}") from error


def write_encoder(
    folder: Path, backbone: Backbone, tokenizer: PreTrainedTokenizerBase, memory: Tensor, max_length: int
) -> None:
    """Writes memory tokens, adapter, tokenizer, the backbone unless it is a Hub reference, and the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"memory_tokens": memory.detach().cpu().contiguous()}, folder / _MEMORY_FILE)
    reference = backbone.reference
    with quiet():
        if isinstance(backbone.model, PeftModel):
            backbone.model.save_pretrained(str(folder / "adapter"), save_embedding_layers=False)
            (folder / "adapter" / "README.md").unlink(missing_ok=True)
            _edit_json(
                folder / "adapter" / "adapter_config.json",
                base_model_name_or_path=reference.name if reference else "backbone/",
            )  # else a local path
        if reference is None:
            backbone.language_model.save_pretrained(folder / "backbone", state_dict=backbone.weights())
        tokenizer.save_pretrained(str(folder))
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
        save_file(
            {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()},
            path,
            metadata=metadata,
        )
    if (folder / "backbone").is_dir():
        _edit_json(folder / "backbone" / "config.json", dtype=str(dtype).removeprefix("torch."))


def write_config(folder: Path, entries: dict[str, Any]) -> None:
    """Writes `llm2comp.json`: the entries (over those already there), the format version, and the checksums of all other files."""
    for file in folder.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors writes files that only their owner may read
    path = folder / CONFIG_FILE
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    files = {name: {"size": file.stat().st_size, "sha256": _sha256(file)} for name, file in _files(folder).items()}
    config = {**before, **entries, "format_version": _FORMAT.version, "files": files}
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_config(folder: Path, *, encoder_only: bool = False) -> dict[str, Any]:
    """The configuration of a model folder, every entry of the kind it should be.

    Args:
        folder: The folder.
        encoder_only: Whether the entries of the whole model may be absent, as they are where SentenceTransformer saved
            it.

    Raises:
        ModelFolderError: If there is none, a newer version wrote it, or something in it is missing or wrong.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        what = "has no llm2comp.json" if folder.is_dir() else "is not a folder"
        other = (
            f"; LLM2Comp.from_backbone({str(folder)!r}) makes an encoder of a language model"
            if (folder / "config.json").is_file()
            else ""
        )
        raise ModelFolderError(
            f"{folder} {what}: give a folder written by `model.save(...)` or `llm2comp train`{other}"
        )
    config = _FORMAT.read(path)
    _FORMAT.check_version(config, path)
    with _FORMAT.parsing(path):
        check_fields(config, _ENCODER_ENTRIES if encoder_only else {**_ENCODER_ENTRIES, **_MODEL_ENTRIES})
    return config


def check_folder(folder: Path) -> dict[str, Any]:
    """Compares every file with the configuration, which is returned.

    Raises:
        ModelFolderError: Naming the first file that is missing, cut short, altered, or a weight file that is not
            listed.
    """
    config = read_config(folder, encoder_only=True)
    for name, expected in config["files"].items():
        if ".." in Path(name).parts or Path(name).is_absolute() or "\\" in name:
            raise ModelFolderError(f"{folder / CONFIG_FILE} names a file outside the folder: {name!r}; {_AGAIN}")
        path = folder / name
        try:
            if not path.is_file():
                raise ModelFolderError(f"{path} is missing: {_AGAIN}")
            if path.stat().st_size != expected["size"]:
                raise ModelFolderError(
                    f"{path} has {path.stat().st_size} bytes, {expected['size']} were written: {_AGAIN}"
                )
            if _sha256(path) != expected["sha256"]:
                raise ModelFolderError(f"{path} is not the file that was written (its SHA-256 differs): {_AGAIN}")
        except OSError as error:
            raise ModelFolderError(f"{path} cannot be read ({error.strerror}): {_AGAIN}") from error
    unlisted = sorted(name for name in _files(folder) if name not in config["files"] and _could_be_loaded(name))
    if unlisted:
        raise ModelFolderError(
            f"{folder} holds weights that its {CONFIG_FILE} does not name, which are not loaded: remove "
            f"{', '.join(unlisted)}"
        )
    needed = [_MEMORY_FILE, *([_ADAPTER_FILE] if (folder / "adapter").is_dir() else [])]
    if absent := [name for name in needed if name not in config["files"]]:
        raise ModelFolderError(f"{folder / CONFIG_FILE} does not name {absent[0]}, which a model needs: {_AGAIN}")
    return config


def read_encoder(folder: Path, *, dtype: torch.dtype = torch.float32, trust_remote_code: bool = False) -> EncoderParts:
    """The encoder saved in a folder, checked first; memory tokens and adapter are float32, the backbone of the dtype given.

    Raises:
        ModelFolderError: If files are missing or altered.
        BackboneError: If the backbone cannot be loaded or does not match the adapter.
    """
    config = check_folder(folder)
    try:
        memory = load_file(folder / _MEMORY_FILE)["memory_tokens"].float()
        tokenizer = load_tokenizer(Source(str(folder), None, str(folder)), trust_remote_code=trust_remote_code)
    except (OSError, KeyError, SafetensorError, BackboneError) as error:
        raise ModelFolderError(f"{folder}: {one_line(error)}: {_AGAIN}") from error
    source = config["backbone"]
    if source == "backbone/":
        if not (folder / "backbone").is_dir():
            raise ModelFolderError(f"{folder / 'backbone'} is missing: {_AGAIN}")
        backbone = Backbone.load(folder / "backbone", dtype=dtype, trust_remote_code=trust_remote_code)
    else:
        backbone = Backbone.load(
            source["name"], revision=source["revision"], dtype=dtype, trust_remote_code=trust_remote_code
        )
        backbone.reference = BackboneReference(source["name"], source["revision"])
    expected = (config["memory_tokens"], backbone.hidden_size)
    if memory.shape != expected:
        raise BackboneError(
            f"{folder / _MEMORY_FILE} has shape {tuple(memory.shape)}, its backbone {source} needs {expected}: they "
            "do not belong together"
        )
    if (folder / "adapter").is_dir():
        backbone.load_adapter(folder / "adapter")
    return EncoderParts(backbone, tokenizer, memory, config["max_length"])


def _could_be_loaded(name: str) -> bool:
    """Whether some loader could take a file for weights of the model; a trainer's optimizer.pt beside the model is none of them."""
    path = PurePosixPath(name)
    if path.suffix.lower() not in _WEIGHTS:
        return False
    return (
        path.suffix.lower() == ".safetensors"
        or len(path.parts) > 1
        or path.stem.startswith(("adapter_model", "memory", "model", "pytorch_model"))
    )


def _edit_json(path: Path, **entries: Any) -> None:
    told = {**json.loads(path.read_text(encoding="utf-8")), **entries}
    path.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _check_backbone(config: Mapping[str, Any], field: str) -> None:
    entry = config.get(field)
    if entry == "backbone/":
        return
    try:
        source = take(config, field, dict)
        validate_repo_id(take(source, "name", str))  # which a path is not
        take_optional(source, "revision", str)
    except (ValueError, HFValidationError) as error:
        raise ValueError(
            f'"{field}" is not "backbone/" or a Hub id as name, and revision ({one_line(error)})'
        ) from error


def _check_files(config: Mapping[str, Any], field: str) -> None:
    files = take(config, field, dict)
    try:
        for name in files:
            record = take(files, name, dict)
            take_count(record, "size")
            take_digest(record, "sha256")
    except ValueError as error:
        raise ValueError(f'"{field}" is not sizes and SHA-256 by file name ({error})') from error


def _check_pooling(config: Mapping[str, Any], field: str) -> None:
    if "mode" not in take(config, field, dict):
        raise ValueError(f'"{field}" has no mode')


def _check_names(config: Mapping[str, Any], field: str) -> None:
    if not all(isinstance(name, str) for name in take(config, field, list)):
        raise ValueError(f'"{field}" is not a list of names')


_ENCODER_ENTRIES: dict[str, FieldCheck] = {
    "backbone": _check_backbone,
    "memory_tokens": partial(take_count, least=1, most=_MOST_TOKENS),
    "max_length": partial(take_count, least=1, most=_MOST_TOKENS),
    "files": _check_files,
}
_MODEL_ENTRIES: dict[str, FieldCheck] = {
    "pooling": _check_pooling,
    "query_instruction": partial(take, kind=str),
    "stages": _check_names,
    "fingerprint": partial(take, kind=str),
}


def _files(folder: Path) -> dict[str, Path]:
    """Every file of a model by its name in the configuration; what the reader may write (the card) and hidden files are not among them."""
    found = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    seen = {
        name.as_posix(): path for name, path in found.items() if not any(part.startswith(".") for part in name.parts)
    }
    return {name: path for name, path in seen.items() if name not in _FREE_FILES}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
