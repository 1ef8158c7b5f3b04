"""Language models and tokenizers loaded from a folder or the Hub: safetensors or GGUF, and errors of one line."""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from llm2comp.backbone.gguf_file import GgufFile, download_gguf, is_gguf, open_gguf
from llm2comp.backbone.int8 import holds_int8, load_int8
from llm2comp.backbone.wheel_file import WHEEL_PREFIX, find_in_wheel
from llm2comp.bundled_models import resolve_name
from llm2comp.errors import BackboneError, ModelFolderError, SettingsError, one_line
from llm2comp.streams import on_terminal

__all__ = ["Source", "check_language_model", "find_source", "load_language_model", "load_tokenizer", "quiet"]

_HUB_TIMEOUT = 10.0


class Source(NamedTuple):
    """Location of a model's files: a folder, a Hub id at one commit, or a GGUF file in a folder."""

    name: str
    revision: str | None
    place: str
    """The folder, the Hub id, or the Hub's cache folder if the Hub does not answer."""
    gguf: GgufFile | None = None
    """The quantised file; `place` is then its path."""
    wheel: str | None = None
    """The quantised file as `wheel:NAME==VERSION/FILE`, if a Python distribution holds it."""

    @property
    def is_folder(self) -> bool:
        """Whether the source is a folder on this machine."""
        return self.gguf is None and self.revision is None and self.name == self.place

    @property
    def repository(self) -> str:
        """Folder or Hub id of the files, the first argument of transformers' `from_pretrained`."""
        return self.place if self.gguf is None else str(Path(self.place).parent)

    @property
    def options(self) -> dict[str, Any]:
        """Options of `from_pretrained` that choose the files there."""
        return {"revision": self.revision} if self.gguf is None else {"gguf_file": Path(self.place).name}


def find_source(name_or_path: str | Path, revision: str | None = None, *, sha256: str | None = None) -> Source:
    """Location of a model: the folder of a bundled one, any other folder, a commit on the Hub, or a GGUF file.

    A GGUF file is a path on this machine, `OWNER/NAME/FILE.gguf` on the Hub, or in a Python distribution as
    `find_in_wheel` says. The Hub is asked once, without the minutes of retries that its client spends on each file.

    Args:
        name_or_path: Bundled model, folder, Hub id or GGUF file.
        revision: Commit, tag or branch of a Hub repository.
        sha256: SHA-256 that a GGUF file must have, in hex.

    Raises:
        BackboneError: If there is no such folder or file, and no such model on the Hub (or in its cache, if the Hub
            does not answer); or if the GGUF file is damaged, another one, or of a model that cannot be loaded.
        SettingsError: If a SHA-256 is given for something else than a GGUF file.
    """
    name = resolve_name(name_or_path)
    if name.startswith(WHEEL_PREFIX) or (is_gguf(name) and not Path(name).is_dir()):
        return _gguf_source(name, revision, sha256)
    if sha256 is not None:
        raise SettingsError(f"a SHA-256 is given, which only a GGUF file is checked by, and {name!r} is none")
    if Path(name).is_dir():
        return Source(name, None, name)
    try:
        return Source(name, HfApi().model_info(name, revision=revision, timeout=_HUB_TIMEOUT).sha, name)
    except HFValidationError as error:
        raise BackboneError(
            f"no model {name!r}: there is no such folder, and no model on the Hub has such a name"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        place = f"{name!r}" if revision is None else f"{name!r} at revision {revision!r}"
        raise BackboneError(
            f"no model {place}: there is no such folder, and no such model on the Hub ({one_line(error)})"
        ) from error
    except Exception as error:  # no network: a dozen kinds, from the hub's client and from the HTTP library below it
        try:
            cached = snapshot_download(name, revision=revision, local_files_only=True)
        except Exception:
            reason = f"the Hub did not answer ({one_line(error)}), and its cache on this machine has no copy"
            raise BackboneError(f"no model {name!r}: there is no such folder, {reason}") from error
        return Source(name, Path(cached).name, cached)


def _gguf_source(name: str, revision: str | None, sha256: str | None) -> Source:
    """A GGUF file on this machine, in a Python distribution, or on the Hub."""
    pinned = None
    if name.startswith(WHEEL_PREFIX):
        path, pinned = find_in_wheel(name)
        known_as = WHEEL_PREFIX + "/".join(name.removeprefix(WHEEL_PREFIX).split("/")[-2:])
    elif Path(name).is_file():
        path, known_as = Path(name), Path(name).name  # a path on this machine means nothing on another one
    elif name.count("/") >= 2 and name[0] not in "./~":
        repository, file = "/".join(name.split("/")[:2]), name.split("/", 2)[2]
        hub = find_source(repository, revision)
        cached = Path(hub.place, file)
        is_cached = hub.place != repository and cached.is_file()
        path, known_as = cached if is_cached else download_gguf(name, repository, hub.revision, file), name
    else:
        raise BackboneError(
            f"no GGUF file {name!r}: give a path, OWNER/NAME/FILE.gguf on the Hub, or wheel:NAME/FILE.gguf"
        )
    path = path.resolve()
    return Source(name, None, str(path), open_gguf(known_as, path, sha256), pinned)


def check_language_model(name_or_path: str | Path, revision: str | None = None, *, sha256: str | None = None) -> None:
    """Finds a language model and reads its configuration, not its weights: a mistaken name shows before hours of work.

    Arguments and errors as `find_source`.

    Raises:
        BackboneError: If it is not found, or has no configuration.
    """
    source = find_source(name_or_path, revision, sha256=sha256)
    if source.gguf is None:  # the header of a GGUF file has been read
        with _failing_as_backbone(source, "configuration of"), quiet():
            AutoConfig.from_pretrained(source.repository, **source.options)


def load_language_model(
    source: Source, *, dtype: torch.dtype, rounded_to: torch.dtype | None = None, trust_remote_code: bool = False
) -> PreTrainedModel:
    """The causal language model of a source in the given precision, with all its weights from files.

    Args:
        source: From `find_source`.
        dtype: Precision of the weights.
        rounded_to: Precision that they are rounded to first; None: none.
        trust_remote_code: Run Python code that comes with the language model.

    Raises:
        BackboneError: If it cannot be loaded, or its files lack weights.
    """
    if Path(source.place, "llm2comp.json").is_file():
        raise BackboneError(
            f"{source.name!r} is an encoder already, not a language model: llm2comp.load({source.name!r}) loads it"
        )
    first = dtype if rounded_to in (None, torch.float32) else rounded_to
    with _failing_as_backbone(source, "language model"), quiet(), _without_gguf_bar(source):
        if source.gguf is None and holds_int8(source.place):
            loaded: Any = load_int8(source.place, dtype=first, trust_remote_code=trust_remote_code)
        else:
            loaded = AutoModelForCausalLM.from_pretrained(
                source.repository,
                **source.options,
                **({} if source.gguf is None else {"quantization_config": GgufConfig(dequantize=True)}),
                dtype=first,
                trust_remote_code=trust_remote_code,
                attn_implementation="eager",
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below, by name
            )
    model, report = loaded
    assert isinstance(model, PreTrainedModel)
    wrong = sorted(report["missing_keys"]) or sorted(str(key[0]) for key in report["mismatched_keys"])
    if wrong:
        what = "no weights" if report["missing_keys"] else "weights of another shape"
        raise BackboneError(
            f"cannot load the language model {source.name!r}: its files hold {what} for {wrong[0]} and "
            f"{len(wrong) - 1} more; "
            f"give one that was saved whole, as {type(model).__name__}"
        )
    if getattr(model, "_hf_peft_config_loaded", False):
        raise BackboneError(
            f"{source.name!r} is an adapter, not a language model: merge it into its base model and give the result"
        )
    if source.gguf is not None:
        _forget_quantization(model)
    model.eval()
    return model if first is dtype else torch.nn.Module.to(model, dtype)


def _forget_quantization(model: PreTrainedModel) -> None:
    """Removes what is left of a GGUF file in a model whose weights are plain numbers by now."""
    for holder, name in ((model, "hf_quantizer"), (model.config, "quantization_config")):
        vars(holder).pop(name, None)
    vars(model).pop("quantization_method", None)


def load_tokenizer(source: Source, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a source.

    Raises:
        BackboneError: If it has no tokenizer, or one that cannot be loaded.
    """
    with _failing_as_backbone(source, "tokenizer of"), quiet():
        tokenizer = AutoTokenizer.from_pretrained(
            source.repository, **source.options, trust_remote_code=trust_remote_code
        )
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


@contextmanager
def quiet() -> Iterator[None]:
    """Silences transformers' load reports, which this package sums up, and its progress bars.

    Bars of downloads remain on a terminal.
    """
    verbosity = transformers_logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        # an environment variable may forbid switching them
        warnings.filterwarnings("ignore", "Cannot (en|dis)able progress bars", UserWarning)
        transformers_logging.set_verbosity_error()
        try:
            with _without_bars(downloads=on_terminal()):
                yield
        finally:
            transformers_logging.set_verbosity(verbosity)


@contextmanager
def _without_bars(*, downloads: bool) -> Iterator[None]:
    """Switches off the bars that count loaded weights, and those of downloads unless `downloads`."""
    transformers_bars, hub_bars = transformers_logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()  # the Hub's too
    if downloads and hub_bars:
        enable_progress_bars()
    try:
        yield
    finally:
        if transformers_bars:
            transformers_logging.enable_progress_bar()  # the Hub's too
        (enable_progress_bars if hub_bars else disable_progress_bars)()


def _without_gguf_bar(source: Source) -> AbstractContextManager[object]:
    """Drops the progress bar of dequantisation, which no setting of transformers switches off."""
    return nullcontext() if source.gguf is None else redirect_stderr(StringIO())


@contextmanager
def _failing_as_backbone(source: Source, what: str) -> Iterator[None]:
    try:
        yield
    except (BackboneError, ModelFolderError):
        raise
    except Exception as error:  # transformers, tokenizers, safetensors and the hub each raise kinds of their own
        raise BackboneError(f"cannot load the {what} {source.name!r}: {one_line(error)}") from error
