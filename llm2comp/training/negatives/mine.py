"""Hard negatives of the rows of one file: passages of its other rows, ranked by similarity to the query.

`mine_hard_negatives` of sentence-transformers (6.2) is not used. It drops rows for which fewer negatives are found,
keeps as many candidates for each query as any query has positives, and prints what it dropped instead of returning it.
It compares texts character by character, so that the query itself, where it is another row's positive with other
punctuation, becomes a negative, and it does not know which passages are cut from one document. The margin is the same.
"""

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from llm2comp.corpus.training_rows import Triple
from llm2comp.errors import TrainingError
from llm2comp.protocols import check_vectors
from llm2comp.training.negatives.settings import MiningSettings
from llm2comp.training.pairs.sentences import letters

if TYPE_CHECKING:
    from llm2comp.model import LLM2Comp

__all__ = ["MinedRows", "PairRow", "mine_rows"]

_logger = logging.getLogger(__name__)
_TEXTS_AT_ONCE = 4096
_SCORES_AT_ONCE = 1 << 25  # 128 MiB of float32; two blocks are in memory for a moment


class PairRow(NamedTuple):
    """A row of training pairs, and the document that its texts come from, if the file names it."""

    triple: Triple
    source: str | int | None


class MinedRows(NamedTuple):
    """Result of mining a file.

    Attributes:
        negatives: Negatives of each row, those that it had first.
        too_close: Number of passages, summed over queries, that the margin dropped from the ranks considered.
    """

    negatives: list[tuple[str, ...]]
    too_close: int


@dataclass(slots=True)
class _Query:
    """Passages, by number, that rows with one query rule out as its negatives."""

    positives: list[int] = field(default_factory=list)
    others: list[int] = field(default_factory=list)
    sources: set[str | int] = field(default_factory=set)


def mine_rows(
    model: "LLM2Comp",
    rows: Sequence[PairRow],
    settings: MiningSettings,
    *,
    instruction: str | None = None,
    name: str = "",
    progress: Callable[[str, int], None] = lambda phase, count: None,
) -> MinedRows:
    """Negatives of the rows of one file, which are positives of its other rows.

    Never a negative of a query are its own positives, in whichever row they are, the query itself, and, unless
    `same_source`, positives of rows with the same source. Texts are compared by their letters and digits in lower case.
    Memory is that of the rows, of one float32 vector for each of their texts, and 256 MiB.

    Args:
        model: Encodes queries with `instruction`, or else with its own instruction.
        rows: Rows of the file.
        settings: Numbers of negatives, ranks and margin.
        instruction: Text before every query.
        name: Name of the file, which with the seed decides what `sampling` `random` takes.
        progress: Receives what is done and how many texts of it are done.

    Raises:
        TrainingError: The model gives a vector that is not finite.
    """
    queries = _distinct(row.triple.query for row in rows)
    passages = _distinct(text for row in rows for text in row.triple.positives)
    excluded, by_source = _exclusions(rows, queries, passages, settings)
    _warn_of_large_source(by_source, len(passages), name)
    encode_query = partial(model.encode_query, prompt=instruction) if instruction else model.encode_query
    query_vectors = _encode(encode_query, list(queries.values()), "queries encoded", progress)
    passage_vectors = _encode(model.encode_document, list(passages.values()), "passages encoded", progress)
    seed = f"{settings.seed} {name}".encode("utf-8", "surrogateescape")  # a file's name need not be UTF-8
    chance = random.Random(seed)
    texts = list(passages.values())
    mined: dict[str, list[str]] = {}
    too_close = 0
    search = _search(query_vectors, passage_vectors, excluded, by_source, settings)
    for number, (query, (candidates, close)) in enumerate(zip(queries, search, strict=True), start=1):
        if settings.sampling == "random":
            candidates = chance.sample(candidates, min(settings.negatives, len(candidates)))
        mined[query] = [texts[place] for place in candidates[: settings.negatives]]
        too_close += close
        progress("queries searched", number)
    return MinedRows([_join(row.triple, mined, settings.negatives) for row in rows], too_close)


def _key(text: str) -> str:
    return letters(text) or text


def _distinct(texts: Iterable[str]) -> dict[str, str]:
    """The texts by their letters and digits; of equal ones the first."""
    distinct: dict[str, str] = {}
    for text in texts:
        distinct.setdefault(_key(text), text)
    return distinct


def _join(triple: Triple, mined: dict[str, list[str]], count: int) -> tuple[str, ...]:
    missing = max(0, count - len(triple.negatives))
    return (*triple.negatives, *mined[_key(triple.query)][:missing])


def _exclusions(
    rows: Sequence[PairRow], queries: dict[str, str], passages: dict[str, str], settings: MiningSettings
) -> tuple[list[_Query], dict[str | int, Tensor]]:
    """What is ruled out for each query, and the numbers of the passages of each source."""
    places = {key: place for place, key in enumerate(passages)}
    by_query = {key: _Query(others=[places[key]] if key in places else []) for key in queries}
    by_source: dict[str | int, set[int]] = {}
    for triple, source in rows:
        query = by_query[_key(triple.query)]
        positives = [places[_key(text)] for text in triple.positives]
        query.positives += positives
        query.others += [places[key] for key in map(_key, triple.negatives) if key in places]
        if source is not None and not settings.same_source:
            query.sources.add(source)
            by_source.setdefault(source, set()).update(positives)
    return list(by_query.values()), {source: torch.tensor(sorted(numbers)) for source, numbers in by_source.items()}


def _warn_of_large_source(by_source: dict[str | int, Tensor], passages: int, name: str) -> None:
    """Warns where a source is not a document but, for instance, the name of a data set."""
    source, largest = max(
        ((source, len(of_it)) for source, of_it in by_source.items()), key=itemgetter(1), default=("", 0)
    )
    if largest > max(1, passages // 2):
        _logger.warning(
            "%s: %d of %d passages have the source %r, so none is a negative of another; same_source (--same-source) "
            "lets them be",
            name,
            largest,
            passages,
            source,
        )


def _encode(encode: Callable[..., Any], texts: list[str], phase: str, progress: Callable[[str, int], None]) -> Tensor:
    """Unit vectors (texts, dim)."""
    parts = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        part = texts[start : start + _TEXTS_AT_ONCE]
        vectors = torch.from_numpy(check_vectors(encode(part, show_progress_bar=False), part, error=TrainingError))
        parts.append(torch.nn.functional.normalize(vectors, dim=1))
        progress(phase, start + len(part))
    return torch.cat(parts)


def _search(
    queries: Tensor,
    passages: Tensor,
    excluded: Sequence[_Query],
    by_source: dict[str | int, Tensor],
    settings: MiningSettings,
) -> Iterator[tuple[list[int], int]]:
    """For each query the passages in the ranks considered, most similar first, and how many the margin dropped."""
    least, most = settings.from_rank - 1, min(settings.to_rank, len(passages))
    rows = max(1, _SCORES_AT_ONCE // len(passages))
    for start in range(0, len(queries), rows):
        scores = queries[start : start + rows] @ passages.T  # (rows, passages)
        limits = []
        for similarities, query in zip(scores, excluded[start : start + rows], strict=True):
            positive = similarities[query.positives].min().item()
            limits.append(positive - abs(positive) * (1 - settings.margin))
            similarities[query.positives + query.others] = -torch.inf
            for source in query.sources:
                similarities[by_source[source]] = -torch.inf
        best = scores.topk(most, dim=1)
        for values, places, limit in zip(best.values[:, least:], best.indices[:, least:], limits, strict=True):
            possible = values > -torch.inf
            kept = possible & (values <= limit)
            yield places[kept].tolist(), int(possible.sum() - kept.sum())
