"""Evaluated systems by name: models, baselines, and poolings of a language model."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from llm2comp.bundled_models import DEFAULT_MODEL, bundled_name, bundled_names
from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import BackboneError, LLM2CompError, SettingsError, one_line
from llm2comp.protocols import Encoder
from llm2comp_benchmarks.systems.bm25 import Bm25
from llm2comp_benchmarks.systems.poolings import POOLINGS
from llm2comp_benchmarks.systems.random_vectors import RandomVectors

__all__ = ["describe_model", "load_model", "system_names"]


def _pooled(pooling: str, backbone: str) -> Encoder:
    from llm2comp_benchmarks.systems.pooled_backbone import PooledBackbone

    encoder: Encoder = PooledBackbone(pooling, backbone)
    return encoder


def _text_mean(folder: str) -> Encoder:
    from llm2comp_benchmarks.systems.mntp.encoder import load_text_mean

    encoder: Encoder = load_text_mean(folder)
    return encoder


def _int8(name: str) -> Encoder:
    from llm2comp_benchmarks.systems.int8 import load_int8

    encoder: Encoder = load_int8(name)
    return encoder


def _hybrid(name: str) -> Encoder:
    from llm2comp_benchmarks.systems.hybrid import Hybrid

    return Hybrid(load_model(name))


_ALONE: dict[str, Callable[[], Encoder]] = {"bm25": Bm25, "random": RandomVectors}
"""Systems without an argument, by name."""

_OF_A_BACKBONE: dict[str, Callable[[str], Encoder]] = {pooling: partial(_pooled, pooling) for pooling in POOLINGS}
"""Systems called PREFIX:BACKBONE, by prefix; BACKBONE is the folder or Hub id of a language model."""

_OF_A_FOLDER: dict[str, Callable[[str], Encoder]] = {"text-mean": _text_mean, "int8": _int8, "hybrid": _hybrid}
"""Systems called PREFIX:FOLDER, by prefix; FOLDER is a model saved by the MNTP baseline, or any encoder here."""

_PREFIXED = {**_OF_A_BACKBONE, **_OF_A_FOLDER}

_HUB_ID = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


def system_names() -> list[str]:
    """Names that `load_model` takes beside folders and Hub ids."""
    return [
        *_ALONE,
        *(f"{prefix}:BACKBONE" for prefix in _OF_A_BACKBONE),
        *(f"{prefix}:FOLDER" for prefix in _OF_A_FOLDER),
    ]


def load_model(name: str | None = None, options: EncoderOptions | None = None) -> Encoder:
    """The system with this name.

    Args:
        name: The name of a bundled model, None for the default one; the folder or Hub id of a model of this
            package or of sentence-transformers; or one of `system_names`, where BACKBONE is the folder or Hub id of a
            causal language model. Write `./NAME` for a folder with such a name.
        options: How the model runs; its batch size is not used here. None: as it was saved.

    Raises:
        SettingsError: There is no such system, and the message lists them; or it takes none of these options.
        LLM2CompError: It cannot be loaded.
    """
    options = replace(options, batch_size=None) if options else EncoderOptions()
    prefix, colon, backbone = (name or "").partition(":")
    prefixed = name is not None and bool(colon) and not Path(name).exists()
    if (name in _ALONE or prefixed) and options != EncoderOptions():
        given = options.describe() or f"device {options.device or 'cpu'}"
        raise SettingsError(f"{given} is given with {name}, which has no such options; leave it out")
    if name in _ALONE:
        return _ALONE[name]()
    return _load_prefixed(prefix, backbone) if prefixed else _load_encoder(name, options)


def _load_prefixed(prefix: str, backbone: str) -> Encoder:
    if prefix not in _PREFIXED:
        raise SettingsError(
            f"no system is called {prefix!r}: before a colon stands one of {', '.join(_PREFIXED)}{_OTHERS}"
        )
    if not backbone and prefix in _OF_A_FOLDER:
        raise SettingsError(f"{prefix}: the folder is missing; give {prefix}:FOLDER")
    if not backbone:
        raise SettingsError(f"{prefix}: the language model is missing; give {prefix}:FOLDER or {prefix}:HUB-ID")
    return _PREFIXED[prefix](backbone)


def _load_encoder(name: str | None, options: EncoderOptions) -> Encoder:
    from llm2comp.backbone.loading import find_source
    from llm2comp_indexes.encoder import load_encoder

    if bundled_name(name) is not None:
        return load_encoder(name, options)[0]
    assert name is not None
    if not Path(name).is_dir() and not _HUB_ID.fullmatch(name):
        raise SettingsError(f"no model at {name!r}: there is no such folder, and it is no Hub id; {_CHOICES}")
    try:
        source = find_source(name)
    except BackboneError as error:
        raise SettingsError(f"{error}; {_CHOICES}") from error
    if _has(source.place, "llm2comp.json", source.revision):
        return load_encoder(name, options)[0]
    if not _has(source.place, "modules.json", source.revision):
        raise SettingsError(
            f"{name!r} is no encoder (neither llm2comp.json nor modules.json is there); if it is a language model, "
            f"pool it: mean:{name}"
        )
    return _load_sentence_transformer(source.place, source.revision, options)


def _has(place: str, file: str, revision: str | None) -> bool:
    """Whether a folder, or a model on the Hub, has the file."""
    if Path(place).is_dir():
        return (Path(place) / file).is_file()
    from huggingface_hub import file_exists

    try:
        return file_exists(place, file, revision=revision)
    except Exception as error:  # a dozen kinds, from the hub's client and from the HTTP library below it
        raise LLM2CompError(
            f"cannot look into the model {place!r}: the Hub stopped answering ({one_line(error, limit=200)}); try again"
        ) from error


def _load_sentence_transformer(place: str, revision: str | None, options: EncoderOptions) -> Encoder:
    from sentence_transformers import SentenceTransformer

    if options.engine not in (None, "auto", "torch"):
        raise SettingsError(f"engine {options.engine} runs models of llm2comp, and {place!r} is another one")
    dtype = {} if options.dtype in (None, "auto") else {"model_kwargs": {"dtype": options.dtype}}
    settings: dict[str, Any] = {"device": options.device, "truncate_dim": options.truncate_dim, **dtype}

    from llm2comp.backbone.loading import quiet
    from llm2comp.errors import one_line

    try:
        with quiet():
            encoder = SentenceTransformer(place, revision=None if Path(place).is_dir() else revision, **settings)
    except (
        Exception
    ) as error:  # sentence-transformers, transformers, safetensors and the hub each raise kinds of their own
        raise LLM2CompError(f"cannot load the sentence-transformers model {place!r}: {one_line(error)}") from error
    if options.max_length is not None:
        encoder.max_seq_length = options.max_length
    return cast("Encoder", encoder)


_OTHERS = f"; systems without one are {', '.join(_ALONE)}, folders and Hub ids"
_BUNDLED = f"a bundled model ({', '.join(bundled_names())}; the default is {DEFAULT_MODEL})"
_CHOICES = f"give the folder or Hub id of a model, {', '.join(system_names())}, or {_BUNDLED}"


def describe_model(model: Encoder, name: str | None, options: EncoderOptions | None = None) -> dict[str, Any]:
    """Settings of the model in a result file; None where the model has none.

    `model` is the name it was loaded by, `system` its kind (llm2comp, sentence-transformers, or a baseline's name),
    `parameters` the settings of that system, `backbone` name and revision of the language model, `encoder` the options
    that change its vectors, where they are not the defaults. The others are `dimension`, `fingerprint`,
    `memory_tokens` and `max_tokens`.
    """
    attributes = {"fingerprint": "fingerprint", "memory_tokens": "memory_tokens", "max_tokens": "max_seq_length"}
    described = {key: getattr(model, attribute, None) for key, attribute in attributes.items()}
    dimension = getattr(model, "get_embedding_dimension", None)
    return {
        "model": f"{bundled_name(name)} (bundled)" if bundled_name(name) else name,
        "system": _kind(model),
        "parameters": None,
        "backbone": None,
        "dimension": dimension() if dimension else None,
        **described,
        "encoder": options.to_json() if options else {},
        **getattr(model, "settings", {}),
    }


def _kind(model: Encoder) -> str:
    if hasattr(model, "memory_tokens"):
        return "llm2comp"
    classes = [kind.__name__ for kind in type(model).__mro__]
    return "sentence-transformers" if "SentenceTransformer" in classes else classes[0]
