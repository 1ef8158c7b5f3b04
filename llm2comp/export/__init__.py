"""Export of a model as a plain sentence-transformers folder, which gives the same vectors without this package.

The exported folder is loaded again and compared with the original before it appears. Receives the model as an argument
and imports what lies below `llm2comp.model`; only `LLM2Comp.export` imports this package. `push` uploads a folder.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from sentence_transformers.sentence_transformer.modules import Pooling

from llm2comp.atomic import staged_folder
from llm2comp.backbone.hardware import inference_dtype
from llm2comp.errors import BackboneError, ModelFolderError, SettingsError
from llm2comp.export.card import write_card
from llm2comp.export.comparison import Comparison, Expected
from llm2comp.export.files import (
    Attention,
    Vocabulary,
    check_exportable,
    round_weights,
    write_backbone,
    write_modules,
    write_tokenizer,
)
from llm2comp.model_folder import check_name

if TYPE_CHECKING:
    from llm2comp.model import LLM2Comp

__all__ = ["ExportReport", "check_target", "export_model"]

_TOLERANCE = 1e-5
_LEAST_COSINE = 0.99
_ATTENTIONS: tuple[Attention, ...] = ("sdpa", "eager")
_logger = logging.getLogger(__name__)


class ExportReport(NamedTuple):
    """Result of an export, and its comparison with the original.

    Attributes:
        folder: The plain model's folder.
        size: Its size in bytes.
        texts: Number of texts that both models encoded, each as a query and as a document.
        difference: Largest difference of a component between both models' vectors, with float32 weights.
        cosine: Smallest cosine between both models' vectors, with the weights as written.
        attention: `sdpa`; or `eager`, if transformers' faster attention stays causal for this model.
    """

    folder: Path
    size: int
    texts: int
    difference: float
    cosine: float
    attention: str


def export_model(model: "LLM2Comp", folder: str | Path, *, dtype: str | torch.dtype = "float32") -> ExportReport:
    """Writes a plain sentence-transformers model, loads it again, and compares its vectors with the original's.

    `SentenceTransformer(folder)` loads it without this package and without `trust_remote_code`. It takes
    sentence-transformers 6.0.1 and transformers 5.17 or newer; older ones may ignore that attention is bidirectional.

    Special-token strings inside a text (`</s>`, `<|memory_0|>`) stay text, by the tokenizer's option
    `split_special_tokens`. A program that reads `tokenizer.json` without transformers does not know the option and
    takes such strings for tokens. Half a surrogate pair, which this package replaces, is an error there.

    Args:
        model: The model, loaded in float32; it does not change.
        folder: A new or empty folder. It appears once everything has been checked, or not at all.
        dtype: Precision of the weights written: `float32`, or `bfloat16` for half the size and the loss of precision
            in `ExportReport.cosine`. Vectors are compared to 1e-5 before the weights are rounded.

    Raises:
        SettingsError: If the model is not in float32, or sentence-transformers has no module for its pooling.
        BackboneError: If the language model gives other vectors with transformers' own classes.
        ModelFolderError: If the folder is not empty, or cannot be written.
    """
    precision = inference_dtype(dtype, "cpu")
    target = Path(folder)
    check_target(target)
    _check_model(model)
    with staged_folder(target) as unfinished:
        vocabulary = write_tokenizer(unfinished, model.encoder)
        _logger.info("merging and writing the weights")
        write_backbone(unfinished, model.encoder, vocabulary)
        expected = Expected(model, vocabulary)
        _logger.info("loading the plain model and comparing %d texts", len(expected.texts))
        attention, comparison = _write_checked_modules(unfinished, model, vocabulary, expected)
        difference, cosine = comparison.difference, comparison.cosine
        if precision != torch.float32:
            round_weights(unfinished, precision)
            rounded = expected.compare(unfinished, model.device)
            cosine = rounded.cosine
            if cosine < _LEAST_COSINE:
                problem = rounded.problem or f"the vectors are too far from the original's (cosine {cosine:.3f})"
                raise BackboneError(f"with weights rounded to {dtype} {problem}; export in float32")
        write_card(unfinished / "README.md", model, target.resolve().name, precision, cosine)
        for file in unfinished.rglob("*"):
            file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors writes files that only their owner may read
        size = sum(file.stat().st_size for file in unfinished.rglob("*") if file.is_file())
    return ExportReport(target, size, len(expected.texts), difference, cosine, attention)


def check_target(folder: Path) -> None:
    """Refuses a folder that is not empty, before a large model is loaded.

    Raises:
        ModelFolderError: If it is a file, or not empty, or its name is not UTF-8.
    """
    check_name(folder)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ModelFolderError(f"{folder} is there already and not empty; give a new folder")


def _check_model(model: "LLM2Comp") -> None:
    if type(model[1]) is not Pooling:
        raise SettingsError(
            f"the pooling is {model.pooling}, and sentence-transformers has no module that does it: a model can be "
            "exported that pools by the mean, such as this one with pooling={'mode': 'mean'} in its llm2comp.json"
        )
    if model.encoder.backbone.dtype != torch.float32:
        raise SettingsError(
            f"the model is in {str(model.encoder.backbone.dtype).removeprefix('torch.')}, which hides whether the "
            "export equals it: load it with dtype='float32', and give the precision of the export as its own dtype"
        )
    check_exportable(model.encoder)


def _write_checked_modules(
    folder: Path, model: "LLM2Comp", vocabulary: Vocabulary, expected: Expected
) -> tuple[Attention, Comparison]:
    """Writes the modules with the first attention implementation that gives the original's vectors.

    Raises:
        BackboneError: If none does, naming the model and the result of each.
    """
    failures = []
    for attention in _ATTENTIONS:
        write_modules(folder, vocabulary, model, attention)
        comparison = expected.compare(folder, model.device)
        _logger.debug("%s: %s", attention, comparison)
        if comparison.difference <= _TOLERANCE:
            if attention != "eager" and comparison.attention == "eager":
                attention = "eager"  # chosen by this version of transformers; an older one might choose otherwise
                write_modules(folder, vocabulary, model, attention)
            return attention, comparison
        problem = comparison.problem or f"the vectors differ by up to {comparison.difference:.1e}"
        failures.append(f"with {attention} attention {problem}")
    raise BackboneError(
        f"{type(model.encoder.backbone.language_model).__name__} cannot be exported: a plain model of transformers' "
        f"own classes does not do what this package does with it ({'; '.join(failures)}); nothing was written"
    )
