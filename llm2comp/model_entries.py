"""The entries of `llm2comp.json`: what each has to be."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, though not re-exported by name

from llm2comp.backbone.wheel_file import is_pinned
from llm2comp.checked_json import FieldCheck, take, take_count, take_digest, take_optional
from llm2comp.errors import one_line

__all__ = ["ENCODER_ENTRIES", "MODEL_ENTRIES"]

_MOST_TOKENS = 1 << 30


def _check_backbone(config: Mapping[str, Any], field: str) -> None:
    entry = config.get(field)
    if entry == "backbone/":
        return
    if isinstance(entry, dict) and "sha256" in entry:
        _check_wheel(entry, field)
        return
    try:
        source = take(config, field, dict)
        validate_repo_id(take(source, "name", str))  # which a path is not
        take_optional(source, "revision", str)
    except (ValueError, HFValidationError) as error:
        raise ValueError(
            f'"{field}" is not "backbone/" or a Hub id as name, and revision ({one_line(error)})'
        ) from error


def _check_wheel(entry: Mapping[str, Any], field: str) -> None:
    try:
        name, dtype = take(entry, "name", str), take(entry, "dtype", str)
        take_digest(entry, "sha256")
        if not is_pinned(name):  # such as a path
            raise ValueError(f"name is {name!r}, expected wheel:NAME==VERSION/FILE.gguf")
        if dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype is {dtype!r}, expected float32 or bfloat16")
    except ValueError as error:
        raise ValueError(f'"{field}" is not a file of a wheel with its SHA-256 and dtype ({error})') from error


def _check_backbone_file(config: Mapping[str, Any], field: str) -> None:
    if field in config:  # of encoders whose language model came from a GGUF file
        file = take(config, field, dict)
        take(file, "name", str)
        take_digest(file, "sha256")


def _check_layers(config: Mapping[str, Any], field: str) -> None:
    if field in config:  # of encoders that have fewer layers than their language model
        take_count(config, field, least=1, most=_MOST_TOKENS)


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


def _check_whitening(config: Mapping[str, Any], field: str) -> None:
    if field in config:  # of models whose embeddings are mapped after the pooling
        take_digest(config, field)


def _check_names(config: Mapping[str, Any], field: str) -> None:
    if not all(isinstance(name, str) for name in take(config, field, list)):
        raise ValueError(f'"{field}" is not a list of names')


ENCODER_ENTRIES: dict[str, FieldCheck] = {
    "backbone": _check_backbone,
    "backbone_file": _check_backbone_file,
    "layers": _check_layers,
    "memory_tokens": partial(take_count, least=1, most=_MOST_TOKENS),
    "max_length": partial(take_count, least=1, most=_MOST_TOKENS),
    "files": _check_files,
}
"""What an encoder needs, by the name of the entry."""

MODEL_ENTRIES: dict[str, FieldCheck] = {
    "pooling": _check_pooling,
    "whitening": _check_whitening,
    "query_instruction": partial(take, kind=str),
    "stages": _check_names,
    "fingerprint": partial(take, kind=str),
}
"""What a whole model needs beside."""
