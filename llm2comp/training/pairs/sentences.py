"""English sentences: splitting, shortening, and small changes that keep the meaning."""

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
        stop_words: Words that say nothing about a topic.
        abbreviations: Words after which a full stop does not end a sentence.
        past_to_base: Base forms of verbs by past tense, where rules would be wrong.
        skipped_headings: Headings of sections that are lists of sources.
        synonyms: Synonyms by word.
        docstring_verbs: Verbs that describe what a function does.
        science_words: Words that are frequent in medicine and biology.
        package_parts: Words that say which part of a project a package is.
    """

    stop_words: frozenset[str]
    abbreviations: frozenset[str]
    past_to_base: dict[str, str]
    skipped_headings: frozenset[str]
    synonyms: dict[str, list[str]]
    docstring_verbs: frozenset[str]
    science_words: frozenset[str]
    package_parts: frozenset[str]


@cache
def english() -> English:
    """Word lists of the package, from `english.json`."""
    lists = json.loads(files("llm2comp.training.pairs").joinpath("english.json").read_text(encoding="utf-8"))
    return English(
        stop_words=frozenset(lists["stop_words"]),
        abbreviations=frozenset(lists["abbreviations"]),
        past_to_base=lists["past_to_base"],
        skipped_headings=frozenset(lists["skipped_headings"]),
        synonyms=lists["synonyms"],
        docstring_verbs=frozenset(lists["docstring_verbs"]),
        science_words=frozenset(lists["science_words"]),
        package_parts=frozenset(lists["package_parts"]),
    )


def split_sentences(text: str) -> list[str]:
    """Sentences of a paragraph, in order; abbreviations and initials do not end a sentence."""
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
    """Words that are not stop words, in order, each once, without punctuation at their ends."""
    words = (word.strip(".,;:!?\"“”‘’'()[]").removesuffix("'s") for word in text.split())
    return list(
        dict.fromkeys(
            word for word in words if word and word.lower() not in english().stop_words and any(map(str.isalnum, word))
        )
    )


def cut_words(text: str, limit: int) -> str:
    """The first `limit` words of a text, line breaks included."""
    for number, match in enumerate(re.finditer(r"\S+", text), start=1):
        if number == limit:
            return text[: match.end()]
    return text


def letters(text: str) -> str:
    """A text normalized for comparison: letters and digits in lower case, words separated by single spaces."""
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


def swap_synonyms(text: str, chance: float, rng: random.Random) -> str:
    """The text with some words replaced by a listed synonym; only words in lower case, so that names are kept."""
    table = english().synonyms

    def swap(match: re.Match[str]) -> str:
        choices = table.get(match[0])
        return rng.choice(choices) if choices and rng.random() < chance else match[0]

    return re.sub(r"(?<![\w'’`.-])[a-z.]+[a-z](?![\w'’`(-])", swap, text) if chance else text


def view(sentence: str, rng: random.Random) -> str:
    """A rewording of a sentence by rules: shortened, reordered, with synonyms, with words dropped."""
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
    """The query as typed in a hurry: at random in lower case, without final punctuation, without one word.

    Args:
        query: The query.
        rng: Source of randomness.
        lowercase: Probability of lower case.
        unpunctuated: Probability that final punctuation is removed.
        drop_word: Probability that a word is dropped, if there are more than five.
    """
    words = query.split()
    if len(words) > 5 and rng.random() < drop_word:
        del words[rng.randrange(1, len(words))]
    text = " ".join(words)
    if rng.random() < unpunctuated:
        text = text.rstrip(".!?") or text
    return text.lower() if rng.random() < lowercase else text
