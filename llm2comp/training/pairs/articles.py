"""Pairs derived from encyclopedia articles: a paragraph or heading per line, headings short, with a full stop."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from llm2comp.corpus.documents import Document
from llm2comp.training.pairs.questions import ask
from llm2comp.training.pairs.sentences import (
    content_words,
    cut_words,
    english,
    letters,
    roughen,
    split_sentences,
    swap_synonyms,
    view,
)
from llm2comp.training.pairs.settings import Pair, PairSettings

__all__ = ["article_pairs", "rest_pairs"]

_T = TypeVar("_T")
_TITLE_FORMS = ("{}", "{}", "what is {}?", "tell me about {}", "definition of {}", "{} meaning")
_PERSON_FORMS = ("{}", "{}", "who is {}?", "who was {}?", "tell me about {}", "{} biography")
_PERSON = re.compile(
    r"\(born |\b[Hh]e was\b|\b[Ss]he was\b| born \d|\b(?:He|She|His|Her) "
    r"|\d{4}\s?[–-]\s?(?:\d+ \w+ |\w+ \d+, )?\d{4}\) (?:is|was) an?"
)
_HEADING_FORMS = (
    "{title} {heading}",
    "{title} {heading}",
    "{heading} of {title}",
    "{heading} {title}",
    "what about the {heading} of {title}?",
    "{title}: {heading}",
)


@dataclass(frozen=True, slots=True)
class _Block:
    """Sentences of a paragraph, or of several short paragraphs of one section."""

    heading: str
    sentences: list[str]


def article_pairs(document: Document, settings: PairSettings) -> Iterator[Pair]:
    """All pairs derived from one article, kind by kind; equal articles and settings give equal pairs."""
    blocks = _read_blocks(document.text, settings)
    topic = re.sub(r"\s*\([^()]*\)$", "", document.title).strip()
    if not blocks or not topic:
        return
    for kind, derive in _DERIVATIONS.items():
        limit = settings.limit(kind)
        if limit:
            rng = random.Random(f"{settings.seed} {kind} {document.id}")
            pairs = derive(_Article(document.id, topic, blocks, settings, rng))
            yield from islice(
                (pair for pair in pairs if letters(pair.query) not in ("", letters(pair.positive))), limit
            )


def rest_pairs(kind: str, document: Document, settings: PairSettings, limit: int) -> Iterator[Pair]:
    """Sentence-rest pairs from prose, such as an answer or an abstract; none from fewer than four sentences."""
    sentences = split_sentences(document.text)
    if len(sentences) >= 4:
        rng = random.Random(f"{settings.seed} {kind} {document.id} {document.text}")
        article = _Article(document.id, "", [_Block("", sentences)], settings, rng)
        for pair in islice(article.sentence_rest(), limit):
            positive = f"{document.title}\n{pair.positive}" if rng.random() < settings.titled else pair.positive
            yield Pair(kind, pair.query, positive, pair.source)


def _read_blocks(text: str, settings: PairSettings) -> list[_Block]:
    blocks: list[_Block] = []
    heading, waiting = "", list[str]()
    enough = settings.passage_words[0] + 15
    for line in [*text.split("\n"), "."]:
        is_heading = line.endswith(".") and len(line.split()) <= 8 and ". " not in line and not line[0].islower()
        if not is_heading and len(line.split()) >= 6:
            waiting += split_sentences(line)
        if waiting and (is_heading or sum(len(sentence.split()) for sentence in waiting) >= enough):
            if len(waiting) >= 2 and heading.lower() not in english().skipped_headings and _is_prose(waiting):
                blocks.append(_Block(heading, waiting))
            waiting = []
        if is_heading:
            heading = line.rstrip(". ")
    return blocks


def _is_prose(sentences: list[str]) -> bool:
    """Whether sentences are prose: not a table or list without its layout, and at least 20 words."""
    words = " ".join(sentences).split()
    return len(words) >= 20 and sum(word.isalpha() and word.islower() for word in words) > 0.4 * len(words)


@dataclass(frozen=True, slots=True)
class _Article:
    id: str
    topic: str
    blocks: list[_Block]
    settings: PairSettings
    rng: random.Random

    def title_lead(self) -> Iterator[Pair]:
        lead = self.blocks[0]
        if not lead.heading and self.topic.lower() not in english().skipped_headings:
            forms = _PERSON_FORMS if _PERSON.search(" ".join(lead.sentences[:2])) else _TITLE_FORMS
            query = self.rng.choice(forms).format(self.topic)
            yield self._pair("title-lead", query, self._window(lead, 0, first=True), titled=False)

    def heading_section(self) -> Iterator[Pair]:
        first = {block.heading: number for number, block in reversed(list(enumerate(self.blocks))) if block.heading}
        for heading, number in self._shuffled(list(first.items())):
            name = heading if any(map(str.isupper, heading[1:])) else heading[:1].lower() + heading[1:]
            query = self.rng.choice(_HEADING_FORMS).format(title=self.topic, heading=name)
            yield self._pair(
                "heading-section",
                query,
                self._window(self.blocks[number], 0, first=True),
                self._other(number, elsewhere=True),
            )

    def sentence_rest(self) -> Iterator[Pair]:
        for number, position, sentence in self._sentences(neighbours=2):
            block = self.blocks[number]
            if self.rng.random() >= self.settings.keep_sentence:
                rest = block.sentences[:position] + block.sentences[position + 1 :]
                block, position = _Block(block.heading, rest), min(position, len(rest) - 1)
            query = swap_synonyms(self._named(sentence), self.settings.synonyms, self.rng)
            yield self._pair("sentence-rest", query, self._window(block, position))

    def science_rest(self) -> Iterator[Pair]:
        words = [
            word.strip(".,;()").lower()
            for block in self.blocks
            for sentence in block.sentences
            for word in sentence.split()
        ]
        if sum(word in english().science_words for word in words) >= self.settings.science_density * len(words):
            for pair in self.sentence_rest():
                yield Pair("science-rest", pair.query, pair.positive, pair.source)

    def question_passage(self) -> Iterator[Pair]:
        for number, position, sentence in self._sentences():
            question = ask(sentence, self.topic, self.rng)
            if question is not None:
                question = self._located(swap_synonyms(question, self.settings.synonyms, self.rng))
                passage = self._window(self.blocks[number], position)
                pair = self._pair("question-passage", question, passage, self._other(number))
                # a sentence longer than any passage is cut, and the passage is what is left of it
                yield replace(pair, answer=sentence if sentence in passage else passage)

    def keywords_passage(self) -> Iterator[Pair]:
        for number, position, sentence in self._sentences():
            words = [word for word in content_words(sentence) if len(word) > 2]
            telling = [word for word in words if len(word) > 6 or not word.islower()]
            if len(telling) >= 3:
                words = words if self.rng.random() < 0.4 else telling
                count = min(self.rng.randint(3, 6), len(words))
                start = self.rng.randrange(len(words) - count + 1)
                keywords = words[start : start + count] if self.rng.random() < 0.6 else self.rng.sample(words, count)
                named = self.rng.random() < (
                    0.8 if all(map(str.islower, keywords)) else 0.4
                ) and self.topic not in " ".join(keywords)
                query = swap_synonyms(
                    " ".join([self.topic, *keywords] if named else keywords), self.settings.synonyms, self.rng
                )
                yield self._pair("keywords-passage", query, self._window(self.blocks[number], position))

    def lead_passage(self) -> Iterator[Pair]:
        lead = self.blocks[0].sentences[0]
        if not self.blocks[0].heading and self._fits(lead):
            for number in self._shuffled(list(range(1, len(self.blocks)))):
                yield self._pair("lead-passage", lead, self._window(self.blocks[number], 0))

    def sentence_next(self) -> Iterator[Pair]:
        for number, position, sentence in self._sentences(neighbours=1, short=True):
            following = self.blocks[number].sentences[position + 1 : position + 2]
            if following and self._fits(following[0], short=True):
                texts = [sentence, following[0]]
                if self.rng.random() < 0.5:
                    texts.reverse()
                yield self._pair("sentence-next", texts[0], texts[1], titled=False)

    def sentence_view(self) -> Iterator[Pair]:
        for number, position, sentence in self._sentences(neighbours=1, short=True):
            sentences = self.blocks[number].sentences
            near = sentences[position - 1] if position else sentences[1]
            other = view(sentence, self.rng)
            if other != sentence and self._fits(near, short=True):
                yield self._pair("sentence-view", other, sentence, near, titled=False)

    def _pair(self, kind: str, query: str, positive: str, negative: str | None = None, *, titled: bool = True) -> Pair:
        settings = self.settings
        query = roughen(
            query,
            self.rng,
            lowercase=settings.lowercase,
            unpunctuated=settings.unpunctuated,
            drop_word=settings.drop_word,
        )
        if titled and self.topic and self.rng.random() < settings.titled:
            positive = f"{self.topic}\n{positive}"
            negative = negative and f"{self.topic}\n{negative}"
        return Pair(kind, cut_words(query, settings.query_words[1]), positive, self.id, negative)

    def _sentences(self, neighbours: int = 0, *, short: bool = False) -> Iterator[tuple[int, int, str]]:
        """Block, position and text of the sentences that can stand alone: one of each block before a second of any."""
        rounds: list[list[tuple[int, int, str]]] = []
        for number, block in enumerate(self.blocks):
            if len(block.sentences) > neighbours:
                fitting = [
                    (number, position, text)
                    for position, text in enumerate(block.sentences)
                    if self._fits(text, short=short)
                ]
                for turn, entry in enumerate(self._shuffled(fitting)):
                    rounds += [[]] if turn == len(rounds) else []
                    rounds[turn].append(entry)
        for entries in rounds:
            yield from self._shuffled(entries)

    def _fits(self, sentence: str, *, short: bool = False) -> bool:
        shortest, longest = self.settings.short_sentence_words if short else self.settings.sentence_words
        return (
            shortest <= len(sentence.split()) <= longest
            and sentence[-1] in '.!?"”)'
            and not re.search(r"^\W*[a-z]|\(\s*[,;)]|\bformula_", sentence)
        )

    def _window(self, block: _Block, position: int, *, first: bool = False) -> str:
        """Passage of random length: whole sentences around one; only a sentence longer than any passage is cut."""
        shortest, longest = self.settings.passage_words
        goal = self.rng.randint(shortest, longest)
        lengths = [len(sentence.split()) for sentence in block.sentences]
        start = end = position
        while start > 0 or end < len(lengths) - 1:
            forward = end < len(lengths) - 1 and (first or start == 0 or self.rng.random() < 0.5)
            added = lengths[end + 1] if forward else lengths[start - 1]
            now = sum(lengths[start : end + 1])
            if now + added > (longest if start == end else goal) and (now >= shortest or now + added > longest):
                break
            start, end = (start, end + 1) if forward else (start - 1, end)
            if first and end == len(lengths) - 1:
                break
        return cut_words(" ".join(block.sentences[start : end + 1]), longest)

    def _other(self, number: int, *, elsewhere: bool = False) -> str | None:
        """Another passage of the article, or None.

        Args:
            number: Number of the block that the passage must not come from.
            elsewhere: Whether the passage must come from another section, because the query fits the whole section.
        """
        excluded = self.blocks[number]
        others = [
            block
            for block in self.blocks
            if block is not excluded and not (elsewhere and block.heading == excluded.heading)
        ]
        return self._window(self.rng.choice(others), 0) if others else None

    def _named(self, sentence: str) -> str:
        """The sentence; half of the time with the article's topic in place of an opening pronoun."""
        first, _, rest = sentence.partition(" ")
        return (
            f"{self.topic} {rest}"
            if self.topic and first in ("He", "She", "It") and self.rng.random() < 0.5
            else sentence
        )

    def _located(self, question: str) -> str:
        """The question; if it names nothing, most of the time with the article's topic added."""
        vague = not any(word[:1].isupper() or word[:1].isdigit() for word in question.split()[1:])
        return f"{question.rstrip('?')} in {self.topic}?" if vague and self.rng.random() < 0.7 else question

    def _shuffled(self, entries: list[_T]) -> list[_T]:
        return self.rng.sample(entries, len(entries))


_DERIVATIONS = {
    "title-lead": _Article.title_lead,
    "heading-section": _Article.heading_section,
    "sentence-rest": _Article.sentence_rest,
    "science-rest": _Article.science_rest,
    "question-passage": _Article.question_passage,
    "keywords-passage": _Article.keywords_passage,
    "lead-passage": _Article.lead_passage,
    "sentence-next": _Article.sentence_next,
    "sentence-view": _Article.sentence_view,
}
