"""Pairs derived from docstrings: the summary, a user's wording or the name asks for the text without its names."""

import random
import re
from collections.abc import Iterable, Iterator

from llm2comp.corpus.documents import Document
from llm2comp.corpus.python_docs import is_held_out, remove_names, split_summary
from llm2comp.training.pairs.sentences import content_words, cut_words, english, letters, roughen, swap_synonyms
from llm2comp.training.pairs.settings import Pair, PairSettings

__all__ = ["docstring_pairs"]

_ASKING = (
    "how to {}",
    "how do I {}?",
    "how can I {} in python?",
    "function to {}",
    "which function can {}?",
    "python {}",
    "{}",
    "I want to {}",
)
_SECTION = re.compile(
    r"(?:Parameters|Returns?|Args|Arguments|Attributes|Raises|Yields|Examples?|References|See Also|Notes?|Usage)\b"
)


def docstring_pairs(documents: Iterable[Document], settings: PairSettings) -> Iterator[Pair]:
    """Pairs from docstrings that may be trained on, in the order of the documents.

    No pair comes from a held-out docstring or from one that has the body of a held-out one, and no query or positive
    equals a held-out summary, body or docstring, with or without its names; letters and digits are compared. Therefore
    all documents are read into memory before the first pair. A summary or body that many definitions share says little
    about any of them: over all documents, each text occurs in at most `limit` pairs of a kind.
    """
    kept: list[Document] = []
    held_out: set[str] = set()
    for document in documents:
        if is_held_out(document.text):
            held_out |= _versions(document)
        else:
            kept.append(document)
    uses: dict[str, int] = {}
    for document in kept:
        if not _bodies(document).isdisjoint(held_out):
            continue
        for pair in _document_pairs(document, settings, random.Random(f"{settings.seed} {document.id}")):
            texts = (letters(pair.query), letters(pair.positive))
            keys = [f"{pair.kind} {text}" for text in texts]
            if held_out.isdisjoint(texts) and all(uses.get(key, 0) < settings.limit(pair.kind) for key in keys):
                uses.update((key, uses.get(key, 0) + 1) for key in keys)
                yield pair


def _versions(document: Document) -> set[str]:
    """All forms in which a docstring, its summary or its body could occur in a pair, normalized for comparison."""
    summary, _ = split_summary(document.text)
    texts = (
        summary,
        document.text,
        document.content,
        remove_names(document, summary),
        remove_names(document, document.text),
    )
    return _bodies(document) | {plain for text in texts if (plain := letters(text))}


def _bodies(document: Document) -> set[str]:
    body = split_summary(document.text)[1]
    return {plain for text in (body, remove_names(document, body)) if (plain := letters(text))}


def _document_pairs(document: Document, settings: PairSettings, rng: random.Random) -> Iterator[Pair]:
    """Pairs of one docstring: with its summary if it has a body, otherwise with the words of its name."""
    summary, body = split_summary(document.text)
    nameless = remove_names(document, body)
    passage = cut_words(nameless, rng.randint(*settings.passage_words))
    if len(nameless.split()) >= 8:
        if len(summary.split()) >= 3:
            yield _pair("summary-body", summary, passage, document, settings, rng)
        action = _infinitive(summary)
        if action:
            query = rng.choice(_ASKING).format(swap_synonyms(action, 2 * settings.synonyms, rng))
            whole = cut_words(document.content, settings.passage_words[1])
            yield _pair("howto-docstring", query, passage if rng.random() < 0.5 else whole, document, settings, rng)
        yield from _part_pairs(document, nameless, settings, rng)
    elif len(document.text.split()) >= 8:
        name = _name_words(document)
        if len(name.split()) >= 2:
            yield _pair("name-docstring", name, document.text, document, settings, rng)


def _pair(kind: str, query: str, positive: str, document: Document, settings: PairSettings, rng: random.Random) -> Pair:
    query = roughen(
        query, rng, lowercase=settings.lowercase, unpunctuated=settings.unpunctuated, drop_word=settings.drop_word
    )
    return Pair(kind, cut_words(query, settings.query_words[1]), positive, document.id)


def _part_pairs(document: Document, body: str, settings: PairSettings, rng: random.Random) -> Iterator[Pair]:
    """A paragraph of prose of the body, paired with the rest."""
    parts = [part for part in re.split(r"\n\s*\n", body) if part.strip()]
    prose = [
        number
        for number, part in enumerate(parts)
        if re.match(r"[A-Z`]", part) and not _SECTION.match(part) and len(content_words(part)) >= 6
    ]
    if len(parts) < 3 or not prose:
        return
    number = rng.choice(prose)
    rest = "\n\n".join(parts[:number] + parts[number + 1 :])
    if len(rest.split()) >= 12:
        query = " ".join(parts[number].split())
        yield _pair(
            "part-docstring", query, cut_words(rest, rng.randint(*settings.passage_words)), document, settings, rng
        )


def _infinitive(summary: str) -> str:
    """A summary as an infinitive, `Returns the name.` -> `return the name`; empty if it does not begin with a verb."""
    words = re.split(r"(?<=[a-z)])\. ", summary, maxsplit=1)[0].rstrip(".: ").split()
    if not 3 <= len(words) <= 16 or not words[0].istitle():
        return ""
    verb = words[0].lower()
    forms = [verb, verb.removesuffix("s"), verb.removesuffix("es"), verb.removesuffix("ies") + "y"]
    base = next((form for form in forms if form in english().docstring_verbs), "")
    return " ".join([base, *words[1:]]) if base else ""


def _name_words(document: Document) -> str:
    """Words of the last two parts of the name: `os.path.splitext` -> `path splitext`."""
    parts = [part.strip("_") for part in document.id.split(".")[-2:]]
    text = " ".join(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_+", " ", part) for part in parts)
    return " ".join(dict.fromkeys(word.lower() for word in text.split() if len(word) > 1))
