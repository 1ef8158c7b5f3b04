"""Derived training pairs and the settings of their derivation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from llm2comp.errors import SettingsError

__all__ = ["PAIR_LIMITS", "Pair", "PairSettings"]

PAIR_LIMITS: Mapping[str, int] = MappingProxyType(
    {
        "title-lead": 1,
        "heading-section": 3,
        "sentence-rest": 4,
        "question-passage": 6,
        "keywords-passage": 2,
        "lead-passage": 1,
        "sentence-next": 2,
        "sentence-view": 3,
        "science-rest": 10,
        "summary-body": 2,
        "howto-docstring": 1,
        "name-docstring": 1,
        "part-docstring": 1,
        "synopsis-description": 1,
        "part-description": 1,
        "words-definition": 1,
        "example-definition": 3,
    }
)
"""Default of the largest number of pairs per document, by kind."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts that belong together.

    Attributes:
        kind: Rule that derived the pair, such as `sentence-rest`; batches are best drawn from one kind at a time.
        query: The shorter text, which asks.
        positive: The text that answers, or means the same.
        source: Id of the document that both come from.
        negative: A text of the same document that does not answer; None for kinds without negatives.
        answer: The sentence of the positive that answers a question; None for other kinds.
    """

    kind: str
    query: str
    positive: str
    source: str
    negative: str | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSettings:
    """Sources of pairs, their number and length, and how often queries are altered."""

    articles: tuple[str, ...] = ()
    """Corpora (as `read_corpus` takes them) of articles: one paragraph or heading per line."""
    docstrings: tuple[str, ...] = ()
    """Corpora of docstrings, such as `python-docs:all`; the held-out part is always left out."""
    packages: tuple[str, ...] = ()
    """Translation-en files of Debian, plain or compressed (.gz, .xz, .zst): descriptions of packages."""
    wordnet: str | None = None
    """Folder of WordNet's data files, such as `/usr/share/wordnet`."""
    ready: tuple[str, ...] = ()
    """Training files (see `llm2comp.corpus.triples`); their pairs are used too, cut to length. The stem is the kind."""
    excluded: tuple[str, ...] = ()
    """Files of evaluation texts (JSON lines or tab-separated). No query, positive or negative equals one of their texts
    of three words or more, or shares 13 successive words with one; only letters and digits are compared."""
    heldout_share: float = 0.0
    """Share of the rows of ready files, chosen by a hash of the query, of which no pair is made: a development set."""
    sentence_sets: tuple[str, ...] = ("snli",)
    """Ready kinds whose pairs are symmetric sentences: they are used in both directions, and every sentence is also
    paired with another wording of itself (`NAME-view`)."""
    limits: Mapping[str, int] = field(default_factory=dict)
    """Largest number of pairs per document, by kind; 0 turns a kind off. Kinds not named have that of `PAIR_LIMITS`."""
    query_words: tuple[int, int] = (2, 32)
    """Shortest and longest query in words; longer ones are cut."""
    passage_words: tuple[int, int] = (25, 80)
    """Shortest and longest passage in words; passages are whole sentences, of a length drawn between the two."""
    sentence_words: tuple[int, int] = (6, 40)
    """Shortest and longest sentence in words that asks for a passage."""
    short_sentence_words: tuple[int, int] = (5, 25)
    """Shortest and longest sentence in words that is paired with a sentence."""
    science_density: float = 0.012
    """Share of medical and biological words from which an article also gives pairs of the kind `science-rest`."""
    keep_sentence: float = 0.1
    """Share of sentence-rest pairs whose passage keeps the sentence."""
    titled: float = 0.5
    """Share of passages that begin with the article's title on a line of its own, as documents of a corpus do."""
    lowercase: float = 0.3
    """Share of queries in lower case."""
    unpunctuated: float = 0.3
    """Share of queries without their final punctuation."""
    drop_word: float = 0.1
    """Share of queries of more than five words that lose one."""
    synonyms: float = 0.15
    """Probability that a word of a query is replaced by a listed synonym, if it has one."""
    seed: int = 0
    """Seed of all random choices; equal settings and texts give equal files."""

    def __post_init__(self) -> None:
        """Rejects contradictions.

        Raises:
            SettingsError: If there is no corpus, a kind is unknown, a shortest length exceeds the longest, or a share
                is not between 0 and 1.
        """
        if not (self.articles or self.docstrings or self.packages or self.wordnet or self.ready):
            raise SettingsError("pairs need a corpus: name one in articles, docstrings, packages, wordnet or ready")
        unknown = sorted(set(self.limits) - set(PAIR_LIMITS))
        if unknown:
            raise SettingsError(f"limits names unknown kinds {', '.join(unknown)}; known: {', '.join(PAIR_LIMITS)}")
        if any(limit < 0 for limit in self.limits.values()):
            raise SettingsError("limits must be 0 or more for every kind")
        for name in ("query_words", "passage_words", "sentence_words", "short_sentence_words"):
            low, high = getattr(self, name)
            if not 1 <= low <= high:
                raise SettingsError(f"{name} is ({low}, {high}); expected two numbers, 1 <= shortest <= longest")
        for name in (
            "keep_sentence",
            "titled",
            "lowercase",
            "unpunctuated",
            "drop_word",
            "synonyms",
            "science_density",
            "heldout_share",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; expected a share between 0 and 1")

    def limit(self, kind: str) -> int:
        """Largest number of pairs of a kind from one document."""
        return self.limits.get(kind, PAIR_LIMITS[kind])
