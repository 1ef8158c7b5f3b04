"""What a search of chunks finds: the right passage among the first chunks, the answer within a budget of tokens."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import NamedTuple

from llm2comp_benchmarks.chunks.corpus import PassageCorpus, Question
from llm2comp_indexes import Hit

__all__ = ["BUDGETS", "Scores", "score"]

BUDGETS = (512, 1024, 2048)
"""Numbers of tokens that are read of the best chunks, one after another, as a language model would."""
_DEPTH = 10


class Scores(NamedTuple):
    """Means over all questions, 0 to 1.

    Attributes:
        passage_at_1: Share of questions whose best chunk is of the right passage: at least half of its text is.
        passage_mrr: Mean reciprocal rank of the first such chunk, within ten.
        answers: By number of tokens: share of questions with an answer in the best chunks, read up to that number of
            tokens in all; in chunks of the right document.
    """

    passage_at_1: float
    passage_mrr: float
    answers: dict[int, float]


def score(corpus: PassageCorpus, results: Sequence[Sequence[Hit]], tokens: Mapping[str, int]) -> Scores:
    """Scores of the results for each question.

    Args:
        corpus: The documents and questions.
        results: Best chunks for each question, best first.
        tokens: Number of tokens of each chunk, as it is encoded, by id.
    """
    texts = {document.id: document.text for document in corpus.documents}
    ranks = [_passage_rank(question, hits, texts) for question, hits in zip(corpus.questions, results, strict=True)]
    needed = [
        _tokens_to_answer(question, hits, tokens) for question, hits in zip(corpus.questions, results, strict=True)
    ]
    return Scores(
        mean(rank == 1 for rank in ranks),
        mean(1 / rank if rank and rank <= _DEPTH else 0.0 for rank in ranks),
        {budget: mean(count is not None and count <= budget for count in needed) for budget in BUDGETS},
    )


def _passage_rank(question: Question, hits: Sequence[Hit], texts: Mapping[str, str]) -> int | None:
    """Rank, from 1, of the first chunk of which half is of the right passage."""
    passage = question.passage
    for rank, hit in enumerate(hits, start=1):
        if hit.document_id == passage.document:
            begin = texts[passage.document].index(hit.text)
            shared = min(begin + len(hit.text), passage.end) - max(begin, passage.begin)
            if 2 * shared >= min(len(hit.text), passage.end - passage.begin):
                return rank
    return None


def _tokens_to_answer(question: Question, hits: Sequence[Hit], tokens: Mapping[str, int]) -> int | None:
    """Number of tokens of the best chunks down to the first one of the document with an answer in its text."""
    count = 0
    for hit in hits:
        count += tokens[hit.id]
        if hit.document_id == question.passage.document and any(answer in hit.text for answer in question.answers):
            return count
    return None
