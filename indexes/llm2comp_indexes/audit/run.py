"""The audit: rows of an index, drawn or all, read from their memories by a language model."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from llm2comp.corpus.documents import Document
from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import IndexFolderError, SettingsError
from llm2comp_indexes.audit.traits import Correlation, correlate, text_traits
from llm2comp_indexes.builder.chunks import make_text_of_row
from llm2comp_indexes.encoder import Encoder, load_encoder
from llm2comp_indexes.progress import Phase, Progress, silent
from llm2comp_indexes.search.index import Index, open_index

if TYPE_CHECKING:
    from llm2comp.analysis.fidelity import Fidelity, TextSplit
    from llm2comp.analysis.fidelity_summary import FidelitySummary
    from llm2comp.encoder import MemoryEncoder

Measure = Literal["reconstruction", "continuation"]
__all__ = ["Audit", "AuditSettings", "AuditedRow", "audit_index"]

_ROWS_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """What is read, and by whom.

    Attributes:
        sample: Number of rows drawn; None: all.
        seed: Seed of the draw.
        measure: What the reader reads after a memory: `reconstruction`, the text itself, or `continuation`, its second
            half after the memory of its first one.
        reader: Language model that reads: folder, Hub id or GGUF file; None: the model's own, if it has one.
        max_tokens: Number of tokens after which a text is cut; None: as many as the model reads at once.

    Raises:
        SettingsError: There is no such measure, or a number is out of its range.
    """

    sample: int | None = 200
    seed: int = 0
    measure: Measure = "reconstruction"
    reader: str | None = None
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.measure not in get_args(Measure):
            raise SettingsError(f"measure is {self.measure!r}, expected one of {', '.join(get_args(Measure))}")
        for name, least in (("sample", 1), ("max_tokens", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise SettingsError(f"{name} is {value}, expected at least {least}")


@dataclass(frozen=True)
class AuditedRow:
    """A row and its fidelity.

    Attributes:
        id: Id of the document or chunk.
        text: The text that was encoded, title and headings first.
        fidelity: Its fidelity.
        traits: Its traits, as `traits.TRAITS` lists them.
    """

    id: str
    text: str
    fidelity: "Fidelity"
    traits: tuple[float, ...]

    @property
    def share(self) -> float | None:
        """Share of the text's worth to the reader that the memory keeps; None if the text does not help the reader."""
        return self.fidelity.share


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    Attributes:
        settings: What was read.
        own_model: Whether the memories are those of the model that the index was built with.
        rows: Number of rows of the index.
        audited: The rows that were read, in the order of the index.
        too_short: Number of rows drawn that are too short to be cut in two, and so were left out.
        summary: Their fidelities in a few numbers.
        correlations: What the fidelity goes with.
    """

    settings: AuditSettings
    own_model: bool
    rows: int
    audited: Sequence[AuditedRow]
    too_short: int
    summary: "FidelitySummary"
    correlations: Sequence[Correlation]

    @property
    def shares(self) -> list[float]:
        """The shares of all rows that have one."""
        return [row.share for row in self.audited if row.share is not None]

    def lowest(self, count: int) -> list[AuditedRow]:
        """The rows with the lowest shares, the lowest one first; of equal ones, in the order of the index."""
        known = [(row.share, row) for row in self.audited if row.share is not None]
        return [row for _, row in sorted(known, key=lambda pair: pair[0])[:count]]


def audit_index(
    folder: str | Path,
    settings: AuditSettings | None = None,
    *,
    model: str | Path | Encoder | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Audit:
    """How much of the texts of an index a language model can read from their memories.

    Args:
        folder: Folder of the index.
        settings: What is read, and by whom; None: 200 rows, by the model's own reader.
        model: The model that makes the memories, or its name or folder; None: that of the index.
        device: Where model and reader run; None: a GPU if there is one.
        progress: Called with the number of rows read.

    Raises:
        IndexFolderError: There is no index, it holds no texts, or its model cannot be loaded.
        BackboneError, SettingsError: The model has no reader, or the reader does not fit it; or no row is long enough
            to be cut in two.
    """
    from llm2comp.analysis.fidelity import measure_splits
    from llm2comp.analysis.fidelity_summary import summarize
    from llm2comp.reading.frozen_reader import check_reader

    chosen, show = settings or AuditSettings(), progress or silent
    with open_index(folder, encoder=EncoderOptions(device=device)) as index:
        used = index.model if model is None else _load(model, index, device)
        encoder = check_reader(used, chosen.reader).encoder
        drawn, rows = _draw(index, chosen)
        text_of = make_text_of_row(index.manifest.options, used)
        texts = list(map(text_of, drawn))
        own_model = used.fingerprint == index.manifest.fingerprint
    splits = {n: split for n, text in enumerate(texts) if (split := _split(encoder, text, chosen)) is not None}
    if not splits:
        what = "has a text" if chosen.measure == "reconstruction" else "is long enough to be cut in two"
        raise SettingsError(f"{folder}: none of the {len(texts):,} rows {what}, so there is nothing to read")
    fidelities: list[Fidelity] = []
    numbers = list(splits)
    for first in range(0, len(numbers), _ROWS_AT_ONCE):
        fidelities += measure_splits(encoder, [splits[number] for number in numbers[first : first + _ROWS_AT_ONCE]])
        show(Phase.ROWS_READ_FROM_MEMORY, len(fidelities))
    tokens = [[*split.parts.context[1:], *_second_part(split, chosen)] for split in splits.values()]
    traits = text_traits([texts[number] for number in numbers], tokens)
    audited = [
        AuditedRow(drawn[number].id, texts[number], fidelity, values)
        for number, fidelity, values in zip(numbers, fidelities, traits, strict=True)
    ]
    correlations = correlate(traits, [fidelity.share for fidelity in fidelities])
    return Audit(chosen, own_model, rows, audited, len(texts) - len(splits), summarize(fidelities), correlations)


def _second_part(split: "TextSplit", settings: AuditSettings) -> list[int]:
    """The tokens of the text that are not in its memory."""
    return split.parts.continuation if settings.measure == "continuation" else []


def _split(encoder: "MemoryEncoder", text: str, settings: AuditSettings) -> "TextSplit | None":
    """The text and what follows it; None if it is too short."""
    from llm2comp.analysis.fidelity import TooShortError, split_text

    try:
        return split_text(encoder, text, settings.measure, max_tokens=settings.max_tokens)
    except TooShortError:
        return None


def _load(model: str | Path | Encoder, index: Index, device: str | None) -> Encoder:
    """A model that is given instead of the index's, with the length of text that the index was built with."""
    if not isinstance(model, str | Path):
        return model
    return load_encoder(model, replace(index.manifest.encoder, truncate_dim=None, device=device))[0]


def _draw(index: Index, settings: AuditSettings) -> tuple[list[Document], int]:
    """The rows that are read, in the order of the index, and the number of all."""
    living = [np.arange(part.rows) if part.alive is None else np.flatnonzero(part.alive) for part in index.segments]
    total = sum(map(len, living))
    if not total:
        raise IndexFolderError(f"{index.folder}: an index without documents has nothing to read")
    drawn = np.arange(total)
    if settings.sample is not None and settings.sample < total:
        drawn = np.array(sorted(random.Random(settings.seed).sample(range(total), settings.sample)))
    documents, begin = [], 0
    for segment, rows in zip(index.segments, living, strict=True):
        here = drawn[(drawn >= begin) & (drawn < begin + len(rows))] - begin
        documents += [segment.documents[int(row)] for row in rows[here]]
        begin += len(rows)
    return documents, total
