"""The analysis of models on the texts of a corpus: settings, the run itself, and its numbers as JSON."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

import llm2comp
from llm2comp.analysis.description import Description, describe
from llm2comp.analysis.map import FEWEST_POINTS
from llm2comp.analysis.reading import (
    MARGIN,
    Reading,
    Sample,
    read_held_out,
    split_texts,
    write_samples,
)
from llm2comp.backbone.hardware import choose_device, inference_dtype
from llm2comp.bundled_models import DEFAULT_MODEL, resolve_name
from llm2comp.corpus.documents import Document
from llm2comp.corpus.read import read_corpus
from llm2comp.corpus.triples import read_rows
from llm2comp.errors import CorpusError, ModelFolderError, SettingsError, one_line
from llm2comp.model import LLM2Comp
from llm2comp.model_folder import CONFIG_FILE, find_folder, read_config
from llm2comp.reading.frozen_reader import find_own_reader, set_reader

__all__ = ["BUNDLED_NAME", "Analysis", "AnalysisSettings", "ModelAnalysis", "analyze"]

BUNDLED_NAME = DEFAULT_MODEL
_PACKAGES = ("llm2comp", "torch", "transformers", "sentence-transformers", "numpy")
Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class AnalysisSettings:
    """Settings of an analysis."""

    corpus: str
    """Source of the texts, as `llm2comp.corpus.read.read_corpus` takes it; title and text of a document are joined."""
    limit: int = 2000
    """Number of texts, the first of the corpus; empty ones among them are left out."""
    pairs: str | None = None
    """File of query/positive rows for the alignment, as `llm2comp.corpus.triples.read_rows` takes it.

    The first `limit` rows are used."""
    labels: str | None = None
    """Metadata field whose values colour the map of the texts; None: no map."""
    reader: str | None = None
    """Folder or Hub id of the language model that reads memory tokens; None: each model's own, if it has one."""
    reader_texts: int = 128
    """Number of texts, drawn from all, that are cut in two for the held-out losses."""
    reader_tokens: int = 512
    """Length in tokens to which these texts are cut, both parts together."""
    samples: int = 4
    """Number of texts that the reader continues."""
    sample_tokens: int = 32
    """Tokens of a continuation, at most."""
    seed: int = 0
    """Seed of the draw of these texts and of their cuts."""
    device: str | None = None
    """Such as `cpu` or `cuda:1`; None takes a GPU if there is one."""
    dtype: str = "float32"
    """Precision of the weights; bfloat16's rounding noise hides where a spectrum ends."""


@dataclass(frozen=True)
class ModelAnalysis:
    """The analysis of one model.

    Attributes:
        name: The model's name, as in the call.
        fingerprint: Fingerprint of an LLM2Comp model; None for others.
        stages: Training stages of an LLM2Comp model.
        description: Figures of its vectors and memory tokens.
        no_reading: Why there is no reading; empty if there is one.
        reading: Held-out losses of the frozen reader.
        samples: Continuations by the reader.
    """

    name: str
    fingerprint: str | None
    stages: list[str]
    description: Description
    no_reading: str = ""
    reading: Reading | None = None
    samples: Sequence[Sample] = ()

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return {
            "model": self.name,
            "fingerprint": self.fingerprint,
            "stages": self.stages,
            **self.description.numbers(),
            "singular_values": self.description.spectrum.tolist(),
            "singular_values_uncentred": self.description.spectrum_uncentred.tolist(),
            "reading": None if self.reading is None else _plain(asdict(self.reading)),
            "no_reading": self.no_reading or None,
            "samples": [sample._asdict() for sample in self.samples],
        }


@dataclass(frozen=True)
class Analysis:
    """The analyses of several models on the same texts.

    Attributes:
        settings: The settings.
        texts: Number of texts.
        empty: Number of empty texts that were left out.
        models: One analysis per model.
        labels: Label of each text; empty without a field of labels.
    """

    settings: AnalysisSettings
    texts: int
    empty: int
    models: list[ModelAnalysis]
    labels: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Settings, versions and the numbers of all models."""
        versions = {"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}}
        texts = {"texts": self.texts, "empty_texts_left_out": self.empty}
        return {
            **texts,
            "models": [model.to_json() for model in self.models],
            "settings": asdict(self.settings),
            "versions": versions,
        }


def analyze(
    models: Sequence[str], settings: AnalysisSettings, *, tell: Tell = lambda line: None, progress: bool = False
) -> Analysis:
    """The analysis of each model on the same texts; models are loaded one after the other.

    Args:
        models: Folder or Hub id of an LLM2Comp model, `llm2comp-tiny` for the bundled one, or the folder of any
            sentence-transformers model, which has neither memory tokens nor a reader.
        settings: See `AnalysisSettings`.
        tell: Called with a line before each long step.
        progress: Whether sentence-transformers shows its progress bar.

    Raises:
        CorpusError: If the corpus cannot be read or has fewer than two texts that are not empty, or the pairs cannot be
            read.
        ModelFolderError, BackboneError: If a model cannot be loaded, or the reader does not match it.
        SettingsError: If a reader is named and a model has no memory tokens.
    """
    for name in models:
        _check_exists(name)
    texts, labels, empty = _read_texts(settings)
    pairs = _read_pairs(settings.pairs, settings.limit) if settings.pairs else []
    analyses = []
    for name in models:
        model = _load(name, settings)
        tell(f"{name}: encoding {len(texts):,} texts")
        analyses.append(_analyze_model(name, model, texts, pairs, settings, tell, progress))
    return Analysis(settings, len(texts), empty, analyses, labels)


def _analyze_model(
    name: str,
    model: SentenceTransformer,
    texts: list[str],
    pairs: list[tuple[str, str]],
    settings: AnalysisSettings,
    tell: Tell,
    progress: bool,
) -> ModelAnalysis:
    if not isinstance(model, LLM2Comp):
        if settings.reader:
            raise SettingsError(
                f"{name} has no memory tokens that the reader {settings.reader} could read: leave the reader out, or "
                "give models of llm2comp"
            )
        description = describe(model, texts, pairs=pairs, progress=progress, keep_vectors=bool(settings.labels))
        return ModelAnalysis(name, None, [], description, no_reading="it has no memory tokens")
    encoder = model.encoder
    if settings.reader:  # first, so that a reader that does not match fails before hours of encoding
        set_reader(model, settings.reader)
    description = describe(model, texts, pairs=pairs, progress=progress, keep_vectors=bool(settings.labels))
    identity = name, model.fingerprint, list(model.stages), description
    if reason := find_own_reader(model):
        return ModelAnalysis(*identity, no_reading=reason)
    splits = split_texts(
        encoder, texts, limit=settings.reader_texts, max_tokens=settings.reader_tokens, seed=settings.seed
    )
    encoder.pop_truncated()
    if len(splits) < 2:
        return ModelAnalysis(
            *identity, no_reading=f"fewer than two texts have the {2 * MARGIN + 1} tokens that a cut in two takes"
        )
    encoder.backbone.check_head()
    tell(f"{name}: reading {len(splits)} of them from memory")
    return ModelAnalysis(
        *identity,
        reading=read_held_out(encoder, splits),
        samples=write_samples(encoder, splits, count=settings.samples, tokens=settings.sample_tokens),
    )


def _read_texts(settings: AnalysisSettings) -> tuple[list[str], list[str], int]:
    """Texts that are not empty, their labels where a field of labels is named, and the number of empty texts."""
    documents = list(islice(read_corpus(settings.corpus, csv_strings=True), settings.limit))
    used = [document for document in documents if document.content.strip()]
    texts = [document.content for document in used]
    if len(texts) >= 2:
        return texts, _labels(used, settings) if settings.labels else [], len(documents) - len(texts)
    content = f"{len(documents)} text{'s' if len(documents) != 1 else ''}" + (
        ", all of them empty" if not texts else f", {len(texts)} of them not empty"
    )
    if len(documents) == 1 and texts:
        content = "one text (a .txt or .md file is one; a folder of them, or a .jsonl file, is many)"
    raise CorpusError(f"{settings.corpus}: {content}; an analysis compares at least 2")


def _labels(documents: Sequence[Document], settings: AnalysisSettings) -> list[str]:
    """Values of the field of labels.

    Raises:
        CorpusError: If no document has it, naming the fields that they have; or there are too few for a map.
    """
    field = settings.labels
    known = sorted({name for document in documents for name in document.metadata})
    if field not in known:
        raise CorpusError(
            f"{settings.corpus}: no document has the field {field!r} for --labels; they have "
            f"{', '.join(known) or 'no metadata'}"
        )
    if len(documents) < FEWEST_POINTS:
        raise CorpusError(
            f"{settings.corpus}: {len(documents)} texts that are not empty; a map (--labels) takes at least "
            f"{FEWEST_POINTS}"
        )
    values = (document.metadata.get(field) for document in documents)
    return ["(none)" if value in (None, "") else str(value) for value in values]


def _read_pairs(file: str, limit: int) -> list[tuple[str, str]]:
    pairs = [(row.query, row.positives[0]) for _, row in islice(read_rows(file), limit)]
    if not pairs:
        raise CorpusError(f'{file}: no pairs in it; expected lines such as {{"query": "…", "positive": "…"}}')
    return pairs


def _is_plain(name: str) -> bool:
    folder = Path(resolve_name(name))
    return (folder / "modules.json").is_file() and not (folder / CONFIG_FILE).exists()


def _check_exists(name: str) -> None:
    """Refuses a model that is not there, before another one encodes for hours."""
    if not _is_plain(name):
        read_config(find_folder(name))


def _load(name: str, settings: AnalysisSettings) -> SentenceTransformer:
    """An LLM2Comp model, or the sentence-transformers model in a folder."""
    if _is_plain(name):
        device = choose_device(settings.device)
        arguments = {"dtype": inference_dtype(settings.dtype, device), "use_safetensors": True}
        try:
            return SentenceTransformer(name, device=device, model_kwargs=arguments)
        except Exception as error:  # transformers, tokenizers and safetensors each raise kinds of their own
            raise ModelFolderError(
                f"{name}: cannot be loaded as a sentence-transformers model: {one_line(error)}"
            ) from error
    return llm2comp.load(name, device=settings.device, dtype=settings.dtype)


def _plain(value: Any) -> Any:
    """The value with named tuples as objects; JSON would write them as lists."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value
