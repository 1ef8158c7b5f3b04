"""Pairs of ready training files, cut to length, and further pairs derived from them."""

from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from random import Random

from llm2comp.corpus.documents import Document
from llm2comp.corpus.triples import dataset_name, read_rows
from llm2comp.training.pairs.articles import rest_pairs
from llm2comp.training.pairs.sentences import cut_words, letters, split_sentences, view
from llm2comp.training.pairs.settings import Pair, PairSettings

__all__ = ["is_heldout", "ready_pairs"]

_REST_LIMIT = 3
_BOILERPLATE_WORDS = 4
_BOILERPLATE_TIMES = 15
_LONG_WORDS = 60


def ready_pairs(path: Path, settings: PairSettings) -> Iterator[Pair]:
    """Pairs of a training file, whose name is their kind, and further pairs derived from them.

    - A long positive gives sentence-rest pairs (`NAME-sentence`), with the query as its title.
    - Where a query has a short and a long positive, such as the conclusion of a study and its abstract, every sentence
      of the short one is a claim about the long one (`NAME-claim`).
    - Pairs of a sentence set are used in both directions, and each sentence is paired with another wording of itself
      (`NAME-view`).

    Positives that begin with the same words as many others are boilerplate and left out.
    """
    name = dataset_name(path)
    openings = Counter(_opening(positive) for _, triple in read_rows(path) for positive in triple.positives)
    answers: dict[str, list[str]] = {}
    for number, triple in read_rows(path, name_unused=False):
        if is_heldout(triple.query, settings.heldout_share):
            continue
        source = f"{name}:{number}"
        for positive in triple.positives:
            negative = triple.negatives[0] if triple.negatives else None
            if name in settings.sentence_sets:
                yield from _sentence_pairs(name, triple.query, positive, negative, source, settings)
            elif openings[_opening(positive)] < _BOILERPLATE_TIMES:
                yield _cut(Pair(name, triple.query, positive, source, negative), settings)
                yield from rest_pairs(
                    f"{name}-sentence", Document(source, triple.query, positive), settings, _REST_LIMIT
                )
                answers.setdefault(triple.query, []).append(positive)
    for query, positives in answers.items():
        yield from _claims(f"{name}-claim", query, sorted(positives, key=len), settings)


def is_heldout(query: str, share: float) -> bool:
    """Whether the rows of a query belong to the held-out share of a ready file; decided by its letters and digits."""
    digest = blake2b(letters(query).encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def _opening(text: str) -> str:
    return " ".join(text.split(maxsplit=_BOILERPLATE_WORDS)[:_BOILERPLATE_WORDS])


def _cut(pair: Pair, settings: PairSettings) -> Pair:
    longest = settings.passage_words[1]
    negative = cut_words(pair.negative, longest) if pair.negative else None
    return Pair(
        pair.kind,
        cut_words(pair.query, settings.query_words[1]),
        cut_words(pair.positive, longest),
        pair.source,
        negative,
    )


def _sentence_pairs(
    name: str, query: str, positive: str, negative: str | None, source: str, settings: PairSettings
) -> Iterator[Pair]:
    yield _cut(Pair(name, query, positive, source, negative), settings)
    yield _cut(Pair(name, positive, query, source, negative), settings)
    rng = Random(f"{settings.seed} {name} {source}")
    for text, other in ((query, negative or positive), (positive, negative), (negative, query)):
        wording = view(text, rng) if text else ""
        if text and wording != text and len(text.split()) >= settings.short_sentence_words[0]:
            yield _cut(Pair(f"{name}-view", wording, text, source, other), settings)


def _claims(kind: str, query: str, positives: list[str], settings: PairSettings) -> Iterator[Pair]:
    shortest, longest = positives[0], positives[-1]
    if len(longest.split()) < _LONG_WORDS or len(longest) < 2 * len(shortest):
        return
    rng = Random(f"{settings.seed} {kind} {query}")
    for sentence in split_sentences(shortest):
        if settings.sentence_words[0] <= len(sentence.split()):
            passage = f"{query}\n{longest}" if rng.random() < settings.titled else longest
            yield _cut(Pair(kind, sentence, passage, query), settings)
