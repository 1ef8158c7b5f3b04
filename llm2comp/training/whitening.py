"""Fitting the whitening of a model to texts: no labels, no training, minutes."""

import logging
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llm2comp.corpus.triples import read_rows, read_triples
from llm2comp.errors import SettingsError
from llm2comp.training.sources import training_documents
from llm2comp.training.whitening_settings import WhiteningSettings

if TYPE_CHECKING:
    from torch import Tensor

    from llm2comp.model import LLM2Comp

__all__ = ["draw_texts", "fit_whitening"]

_LONGEST = 1000
"""Characters of a text; of a longer one, a part is taken."""
_AT_ONCE = 2048
_FEW = 5
"""Texts for each component of a vector, below which a high power follows the texts too closely."""
_POWER_OF_FEW = 0.5

_logger = logging.getLogger(__name__)


def draw_texts(settings: WhiteningSettings) -> list[str]:
    """Texts of the sources, in random order: of each corpus and each file of pairs as many, if it has them.

    Raises:
        CorpusError: As the readers of corpora and pairs.
    """
    draw = random.Random(settings.seed)
    sources = list(_sources(settings))
    share = math.ceil(settings.texts / len(sources))
    drawn = [text for read in sources for text in _sample(read(), share, draw)]
    draw.shuffle(drawn)
    return [_part(text, draw) for text in drawn[: settings.texts]]


def _sources(settings: WhiteningSettings) -> Iterator[Callable[[], Iterator[str]]]:
    """Readers of each corpus and each file of pairs."""
    for source in settings.corpora:
        yield partial(_read_corpus, source)
    for source in settings.pairs:
        for path in dict.fromkeys(each.path for each in read_triples(source, max_negatives=0)):
            yield partial(_read_pairs, path)


def _read_corpus(source: str) -> Iterator[str]:
    for document in training_documents(source):
        yield from _pieces(document.content)


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces that end at white space, where there is some."""
    first = 0
    while first < len(text):
        end = first + _LONGEST
        if end < len(text):
            spaces = (place for place in range(end, first + _LONGEST // 2, -1) if text[place].isspace())
            end = next(spaces, end)
        if piece := text[first:end].strip():
            yield piece
        first = end


def _read_pairs(path: Path) -> Iterator[str]:
    for _, row in read_rows(path, name_unused=False):
        yield from (row.query, *row.positives)


def _sample(texts: Iterable[str], count: int, draw: random.Random) -> list[str]:
    """So many of the texts, each as likely as another; all, if there are fewer."""
    kept: list[str] = []
    for number, text in enumerate(texts):
        if number < count:
            kept.append(text)
        elif (place := draw.randrange(number + 1)) < count:
            kept[place] = text
    return kept


def _part(text: str, draw: random.Random) -> str:
    """The text, or so many characters of it from the beginning of a word."""
    if len(text) <= _LONGEST:
        return text
    first = draw.randrange(len(text) - _LONGEST + 1)
    found = re.compile(r"(?<=\s)\S").search(text, first, first + _LONGEST // 2) if first else None
    start = found.start() if found else first
    return text[start : start + _LONGEST]


def fit_whitening(
    model: "LLM2Comp",
    texts: Sequence[str],
    *,
    power: float = 0.75,
    progress: Callable[[str, int], None] = lambda phase, count: None,
) -> "Tensor":
    """The whitening of a model's embeddings that fits the texts, (dim, dim), for `model.variant(whitening=…)`.

    Args:
        model: The model; a whitening that it has is not used.
        texts: Texts such as those that will be searched, at least as many as a vector has components.
        power: As in `WhiteningSettings`.
        progress: Receives "texts encoded" and their number.

    Raises:
        SettingsError: If there are too few texts, or vectors are shortened.
    """
    import torch

    from llm2comp.truncation import count_truncated
    from llm2comp.whitening import whitening_matrix

    if model.truncate_dim is not None:
        raise SettingsError("whitening is fitted to whole vectors: load the model without truncate_dim")
    dimension = model.encoder.get_embedding_dimension()
    if len(texts) < dimension:
        raise SettingsError(
            f"whitening of vectors of dimension {dimension} is fitted to at least {dimension:,} texts, better to "
            f"{_FEW * dimension:,}, and there are {len(texts):,}"
        )
    if len(texts) < _FEW * dimension and power > _POWER_OF_FEW:
        _logger.warning(
            "%s texts are few for vectors of dimension %d: power %g would follow them less closely than %g",
            f"{len(texts):,}",
            dimension,
            _POWER_OF_FEW,
            power,
        )
    plain, vectors = model.variant(whitening=None, normalize=True), []
    with count_truncated():
        for first in range(0, len(texts), _AT_ONCE):
            vectors.append(plain.encode_document(list(texts[first : first + _AT_ONCE]), show_progress_bar=False))
            progress("texts encoded", min(len(texts), first + _AT_ONCE))
    return torch.from_numpy(whitening_matrix(np.concatenate(vectors), power))
