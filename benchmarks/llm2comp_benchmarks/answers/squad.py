"""Questions with their passages and answers, and the scores of an answer: exact match and F1 of its words.

Source: Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text", EMNLP 2016, section 6.1: case,
punctuation and the words a, an and the are left out; the best of the given answers counts.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from llm2comp.corpus.read import read_corpus, read_json_lines, read_qrels, read_queries
from llm2comp.errors import SettingsError

__all__ = ["Question", "best", "exact_match", "f1", "read_questions"]


class Question(NamedTuple):
    """A question, and what answers it.

    Attributes:
        text: The question.
        passages: The passage that holds the answer first, then others, without titles.
        answers: Right answers, each as good as the other.
    """

    text: str
    passages: list[str]
    answers: list[str]


def read_questions(folder: Path, *, passages: int, every: int = 1) -> list[Question]:
    """Questions of a BEIR folder that also has `answers.jsonl.gz`.

    Args:
        folder: The folder.
        passages: Passages for each question: the right one, and those behind it in the corpus.
        every: 1 takes all questions, n each nth one.

    Raises:
        SettingsError: The folder has no answers, or fewer passages than that.
    """
    path = folder / "answers.jsonl.gz"
    if not path.is_file():
        raise SettingsError(f"{path} is missing: the answers to the questions, one JSON object a line")
    answers = {fields["_id"]: fields["answers"] for _, fields in read_json_lines(path)}
    queries = read_queries(folder / "queries.jsonl.gz")
    documents = list(read_corpus(folder))
    if passages > len(documents):
        raise SettingsError(f"{passages} passages for each question; {folder} has {len(documents)}")
    places = {document.id: place for place, document in enumerate(documents)}
    judgements = read_qrels(folder / "qrels" / "test.tsv")
    questions = []
    for name in list(judgements)[::every]:
        first = places[next(iter(judgements[name]))]
        shown = [documents[(first + step) % len(documents)].text for step in range(passages)]
        questions.append(Question(queries[name], shown, answers[name]))
    return questions


def exact_match(given: str, expected: str) -> float:
    """1.0 if both have the same words."""
    return float(_words(given) == _words(expected))


def f1(given: str, expected: str) -> float:
    """Harmonic mean of the shares of words that each has of the other."""
    ours, theirs = Counter(_words(given)), Counter(_words(expected))
    shared = sum((ours & theirs).values())
    return 2 * shared / (ours.total() + theirs.total()) if shared else 0.0


def best(score: Callable[[str, str], float], given: str, answers: Sequence[str]) -> float:
    """The score against the nearest of several right answers."""
    return max(score(given, answer) for answer in answers)


def _words(text: str) -> list[str]:
    plain = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()
