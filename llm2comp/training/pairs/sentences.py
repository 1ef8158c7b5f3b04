"""English sentences: splitting, cutting, and small changes that keep the meaning."""

import json
import random
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = [
    "English",
    "content_words",
    "cut_words",
    "english",
    "letters",
    "roughen",
    "split_sentences",
    "swap_synonyms",
    "view",
]

_BREAK = re.compile(r"(?<=[.!?])[\"”’')\]]*\s+(?=[\"“‘'(\[]?[A-Z0-9])")
_PARENTHESES = re.compile(r"\s*[(\[][^()\[\]]*[)\]]")
_ADVERBIAL = re.compile(r"^((?:In|On|During|After|Before|Since|By|At|From|Until) [^,]{2,60}), (?=\S)")


@dataclass(frozen=True, slots=True)
class English:
    """Lists of words, in lower case.

    Attributes:
        stop_words: Words that say nothing of a topic.
        abbreviations: Words after which a full stop ends no sentence.
        past_to_base: Base forms by past tense, where rules would go wrong.
        skipped_headings: Sections that are lists of sources.
        synonyms: Words that may stand for a word.
        docstring_verbs: What a function can be said to do.
        science_words: Words that are frequent in medicine and biology.
    """

    stop_words: frozenset[str]
    abbreviations: frozenset[str]
    past_to_base: dict[str, str]
    skipped_headings: frozenset[str]
    synonyms: dict[str, list[str]]
    docstring_verbs: frozenset[str]
    science_words: frozenset[str]


@cache
def english() -> English:
    """The lists shipped in `english.json`."""
    lists = json.loads(files("llm2comp.training.pairs").joinpath("english.json").read_text(encoding="utf-8"))
    return English(
        stop_words=frozenset(lists["stop_words"]),
        abbreviations=frozenset(lists["abbreviations"]),
        past_to_base=lists["past_to_base"],
        skipped_headings=frozenset(lists["skipped_headings"]),
        synonyms=lists["synonyms"],
        docstring_verbs=frozenset(lists["docstring_verbs"]),
        science_words=frozenset(lists["science_words"]),
    )


def split_sentences(text: str) -> list[str]:
    """The sentences of a paragraph, in order; no break after abbreviations and initials."""
    sentences, start = [], 0
    for match in _BREAK.finditer(text):
        last = text[start : match.start()].rsplit(maxsplit=1)[-1:] or [""]
        word = last[0].strip("(\"“'").rstrip(".").lower()
        if text[match.start() - 1] == "." and (word in english().abbreviations or len(word) == 1):
            continue
        sentences.append(text[start : match.end()].strip())
        start = match.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if sentence]


def content_words(text: str) -> list[str]:
    """The words that are not stop words, punctuation at their ends removed, in order, each once."""
    words = (word.strip(".,;:!?\"“”‘’'()[]").removesuffix("'s") for word in text.split())
    return list(
        dict.fromkeys(
            word for word in words if word and word.lower() not in english().stop_words and any(map(str.isalnum, word))
        )
    )


def cut_words(text: str, limit: int) -> str:
    """The beginning of a text up to so many words; line breaks inside stay as they are."""
    for number, match in enumerate(re.finditer(r"\S+", text), start=1):
        if number == limit:
            return text[: match.end()]
    return text


def letters(text: str) -> str:
    """Letters and digits only, in lower case, words apart: what two texts are compared by."""
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


def swap_synonyms(text: str, chance: float, rng: random.Random) -> str:
    """The text with some words replaced by a listed synonym; only words in lower case are, which spares names."""
    table = english().synonyms

    def swap(match: re.Match[str]) -> str:
        choices = table.get(match[0])
        return rng.choice(choices) if choices and rng.random() < chance else match[0]

    return re.sub(r"(?<![\w'’`.-])[a-z.]+[a-z](?![\w'’`(-])", swap, text) if chance else text


def view(sentence: str, rng: random.Random) -> str:
    """The same statement in other words, as far as rules can: shortened, reordered, synonyms, words dropped."""
    text = _PARENTHESES.sub("", sentence).strip() or sentence
    opening = _ADVERBIAL.match(text)
    if opening:
        rest = text[opening.end() :].rstrip(".!? ")
        text = rest if rng.random() < 0.3 else f"{rest} {opening[1][0].lower()}{opening[1][1:]}"
    elif rng.random() < 0.5:
        clause = re.split(r", (?:which|who|where|although|while|but|with|including|as|and)\b|;| – | — ", text)[0]
        text = clause if len(clause.split()) >= 6 else text
    words = swap_synonyms(text, 0.6, rng).split()
    share = rng.choice((0.0, 0.0, 0.15, 0.25))
    stop = english().stop_words
    kept = [word for word in words if rng.random() >= share * (1.5 if word.lower() in stop else 0.7)]
    return " ".join(kept if len(kept) >= 4 else words)


def roughen(query: str, rng: random.Random, *, lowercase: float, unpunctuated: float, drop_word: float) -> str:
    """The query as someone in a hurry types it: maybe in lower case, without its final punctuation, a word short."""
    words = query.split()
    if len(words) > 5 and rng.random() < drop_word:
        del words[rng.randrange(1, len(words))]
    text = " ".join(words)
    if rng.random() < unpunctuated:
        text = text.rstrip(".!?") or text
    return text.lower() if rng.random() < lowercase else text
