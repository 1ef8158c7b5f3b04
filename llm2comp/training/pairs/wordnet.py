"""Pairs derived from WordNet: words, and examples of their use, ask for a definition."""

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from llm2comp.corpus.read import open_text
from llm2comp.errors import CorpusError
from llm2comp.training.pairs.sentences import content_words, cut_words, letters, roughen
from llm2comp.training.pairs.settings import Pair, PairSettings

__all__ = ["wordnet_pairs"]

_PARTS = ("noun", "verb", "adj", "adv")
_SHORTEST = 4
"""Smallest number of words of a definition that is used."""
_MOST_WORDS = 3
_DRAWN = 8
_WORD_FORMS = ("{}", "{}", "{} meaning", "definition of {}", "what does {} mean?", "define {}")
_EXAMPLE_FORMS = ("{word}: {example}", "what does {word} mean in \u201c{example}\u201d?", "{example} ({word})")


@dataclass(frozen=True, slots=True)
class _Synset:
    """Words of one meaning.

    Attributes:
        key: Part of speech and offset, such as `n 00401783`.
        words: The words, with blanks.
        above: Keys of the synsets of wider meaning.
        definition: The gloss without examples.
        examples: Phrases and sentences in which one of the words stands.
    """

    key: str
    words: list[str]
    above: list[str]
    definition: str
    examples: list[str]


def wordnet_pairs(folder: str, settings: PairSettings) -> Iterator[Pair]:
    """Pairs of WordNet's data files (`data.noun` and so on), which are read into memory: about 130 MB.

    - `words-definition`: the words of a synset ask for its definition; the negative is a definition under the same
      wider word. A single word with several meanings is given with the wider word, or not used without one.
    - `example-definition`: an example and the word in it ask for the definition; the negative is that of another
      meaning of the word.

    A definition of several synsets, which could be a false negative of itself, is used for the first one only; a
    definition that has all words of the positive, or the reverse, is no negative.
    """
    lexicon = _Lexicon(_read_synsets(Path(folder)))
    used: set[str] = set()
    for synset in lexicon.synsets.values():
        if len(synset.definition.split()) >= _SHORTEST and letters(synset.definition) not in used:
            used.add(letters(synset.definition))
            rng = random.Random(f"{settings.seed} {synset.key}")
            for kind, derive in (("words-definition", lexicon.words), ("example-definition", lexicon.examples)):
                for query, negative in islice(derive(synset, rng), settings.limit(kind)):
                    yield _pair(kind, query, synset, negative, settings, rng)


def _pair(
    kind: str, query: str, synset: _Synset, negative: str | None, settings: PairSettings, rng: random.Random
) -> Pair:
    query = roughen(query, rng, lowercase=settings.lowercase, unpunctuated=settings.unpunctuated, drop_word=0)
    longest = settings.passage_words[1]
    return Pair(
        kind,
        cut_words(query, settings.query_words[1]),
        cut_words(synset.definition, longest),
        synset.key,
        negative and cut_words(negative, longest),
    )


class _Lexicon:
    """Synsets by key, by word and by the synset of wider meaning."""

    def __init__(self, synsets: Iterable[_Synset]) -> None:
        self.synsets = {synset.key: synset for synset in synsets}
        self._meanings: dict[str, list[_Synset]] = {}
        self._below: dict[str, list[_Synset]] = {}
        for synset in self.synsets.values():
            for word in synset.words:
                self._meanings.setdefault(word.lower(), []).append(synset)
            for key in synset.above:
                self._below.setdefault(key, []).append(synset)

    def words(self, synset: _Synset, rng: random.Random) -> Iterator[tuple[str, str | None]]:
        """Query of the words, and a negative."""
        word = synset.words[0]
        wider = self.synsets.get(synset.above[0]) if synset.above else None
        if len(synset.words) > 1:
            text = ", ".join(synset.words[:_MOST_WORDS])
        elif len(self._meanings[word.lower()]) == 1:
            text = word
        elif wider:
            text = f"{word} ({wider.words[0]})"
        else:
            return
        others = self._below[wider.key] if wider else []
        yield rng.choice(_WORD_FORMS).format(text), _other(synset, others, rng)

    def examples(self, synset: _Synset, rng: random.Random) -> Iterator[tuple[str, str | None]]:
        """Queries of the examples in which a word is found, and negatives."""
        for example in synset.examples:
            word = next((word for word in synset.words if _stands_in(word, example)), None)
            if word is not None:
                query = rng.choice(_EXAMPLE_FORMS).format(word=word, example=example)
                yield query, _other(synset, self._meanings[word.lower()], rng)


def _other(synset: _Synset, others: list[_Synset], rng: random.Random) -> str | None:
    """Definition of one of the others; None if none of a few drawn says something else than the synset's."""
    words = _content(synset)
    for other in rng.sample(others, min(len(others), _DRAWN)):
        if len(other.definition.split()) >= _SHORTEST and not (words <= _content(other) or words >= _content(other)):
            return other.definition
    return None


def _content(synset: _Synset) -> set[str]:
    return set(content_words(synset.definition.lower()))


def _stands_in(word: str, example: str) -> bool:
    """Whether a word, inflected or not, stands in an example; irregular forms are not recognized."""
    stem = word.split()[0].lower()
    stem = stem[: max(4, len(stem) - 1)]
    return re.search(rf"(?<!\w){re.escape(stem)}\w{{0,4}}(?!\w)", example.lower()) is not None


def _read_synsets(folder: Path) -> Iterator[_Synset]:
    if not (folder / "data.noun").is_file():
        raise CorpusError(
            f"{folder}: no file data.noun; expected the folder of WordNet's data files, which the Debian package "
            "wordnet-base installs as /usr/share/wordnet"
        )
    for part in _PARTS:
        path = folder / f"data.{part}"
        with open_text(path) as lines:
            for number, line in enumerate(lines, start=1):
                if not line.startswith("  "):  # the licence
                    try:
                        yield _read_synset(line)
                    except (ValueError, IndexError) as error:
                        raise CorpusError(
                            f"{path}:{number}: not a synset in WordNet's format (wndb): {line.strip()[:60]!r}"
                        ) from error


def _read_synset(line: str) -> _Synset:
    """Synset of one line: offset, file, type, words, pointers and gloss, as the manual page wndb describes them."""
    head, separator, gloss = line.partition(" | ")
    offset, _, kind, count, *fields = head.split()
    after = 2 * int(count, 16)
    pointers = fields[after + 1 : after + 1 + 4 * int(fields[after])]
    words = [re.sub(r"\((?:a|p|ip)\)$", "", word).replace("_", " ") for word in fields[:after:2]]
    above = [
        f"{part} {target}"
        for symbol, target, part in zip(pointers[::4], pointers[1::4], pointers[2::4], strict=True)
        if symbol in ("@", "@i")
    ]
    if not (words and separator and offset.isdigit()):
        raise ValueError("no words, gloss or offset")
    definition = gloss.partition('"')[0].strip(" ;:,\n")
    examples = [example for example in re.findall(r'"([^"]+)"', gloss) if len(example.split()) >= 3]
    part = "a" if kind == "s" else kind
    return _Synset(f"{part} {offset}", words, above, definition, examples)
