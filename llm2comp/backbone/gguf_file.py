"""GGUF files, checked before transformers dequantises them, and downloaded from the Hub."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from llm2comp.backbone.gguf_header import read_header
from llm2comp.errors import BackboneError, one_line
from llm2comp.optional import optional_import

__all__ = ["GgufFile", "check_gguf", "download_gguf", "is_gguf", "open_gguf"]

_SUFFIX = ".gguf"
_ENCODERS = ("bert", "t5", "clip")
"""Parts of the names of architectures that are no decoders, some of which transformers dequantises."""


class GgufFile(NamedTuple):
    """A quantised file, by the name it was asked by and the SHA-256 of its content."""

    name: str
    sha256: str


def is_gguf(name: str) -> bool:
    """Whether a name is that of a GGUF file."""
    return name.lower().endswith(_SUFFIX)


def open_gguf(name: str, path: Path, sha256: str | None) -> GgufFile:
    """The file with its SHA-256, after it has been checked.

    Args:
        name: Its name in errors and in the configuration of a saved model.
        path: Its path on this machine.
        sha256: SHA-256 that it must have, in hex; None: any.

    Raises:
        BackboneError: If it has another SHA-256, or as `check_gguf`.
        LLM2CompError: If the package gguf is not installed.
    """
    try:
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BackboneError(f"cannot read {name!r}: {error.strerror}") from error
    if sha256 is not None and actual != sha256.lower():
        raise BackboneError(f"{name!r} has the SHA-256 {actual}, expected {sha256.lower()}: get the file again")
    check_gguf(name, path)
    return GgufFile(name, actual)


def check_gguf(name: str, path: Path) -> None:
    """Checks that a file is whole, and of a decoder that transformers dequantises.

    Raises:
        BackboneError: If it is not.
        LLM2CompError: If the package gguf is not installed.
    """
    optional_import("gguf", extra="gguf", needed_by=f"the language model {name!r}", error_type=BackboneError)
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    try:
        settings, size = read_header(path)
        family = str(settings["general.architecture"])
    except Exception as error:  # whatever a damaged header makes of numbers and texts
        raise BackboneError(
            f"{name!r} is cut short, or no GGUF file ({one_line(error, limit=120)}): get the file again"
        ) from error
    if path.stat().st_size < size:
        raise BackboneError(f"{name!r} is cut short: {path.stat().st_size} of {size} bytes; get the file again")
    is_causal = settings.get(f"{family}.attention.causal", True)
    if not is_causal or any(part in family for part in _ENCODERS):
        raise BackboneError(f"{name!r} holds an encoder (family {family}); give a decoder, such as a Llama or a Qwen")
    if family not in GGUF_SUPPORTED_ARCHITECTURES:
        raise BackboneError(
            f"{name!r} is of family {family}, which transformers does not dequantise; it does "
            f"{', '.join(sorted(GGUF_SUPPORTED_ARCHITECTURES))}"
        )


def download_gguf(name: str, repository: str, revision: str | None, file: str) -> Path:
    """Path of a file of a Hub repository at a commit, downloaded unless the Hub's cache has it.

    Raises:
        BackboneError: If the repository has no such file, or it cannot be downloaded.
    """
    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except Exception as error:  # the Hub's client raises its own errors and those of its HTTP library
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            raise BackboneError(f"no model {name!r}: the repository {repository} has no file {file}") from error
        raise BackboneError(f"cannot download {name!r}: {one_line(error)}") from error
