"""Long documents with questions about one passage each: passages of an article put together, among other articles."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from llm2comp.corpus.documents import Document
from llm2comp.corpus.read import read_corpus, read_json_lines, read_qrels, read_queries

__all__ = ["Passage", "PassageCorpus", "Question", "join_passages"]


class Passage(NamedTuple):
    """A passage within a document: `text[begin:end]` of the document with this id."""

    document: str
    begin: int
    end: int


class Question(NamedTuple):
    """A question, the passage that answers it, and the answers as the passage words them."""

    id: str
    text: str
    passage: Passage
    answers: tuple[str, ...]


class PassageCorpus(NamedTuple):
    """Documents, and questions about passages of some of them."""

    documents: list[Document]
    questions: list[Question]


def join_passages(passages: Path, others: Sequence[str | Path] = (), most: int | None = None) -> PassageCorpus:
    """A document for each title in a BEIR folder, of its passages with blank lines between, and the other documents.

    Args:
        passages: BEIR folder with one relevant passage for each query, and `answers.jsonl.gz` (`_id`, `answers`).
        others: Corpora whose documents are added; each line of their texts is a paragraph.
        most: Maximum number of documents of each of them; None: all.
    """
    articles: dict[str, list[Document]] = defaultdict(list)
    for passage in read_corpus(passages):
        articles[passage.title].append(passage)
    places: dict[str, Passage] = {}
    documents = []
    for number, (title, parts) in enumerate(articles.items()):
        name, begin = f"article-{number}", 0
        for part in parts:
            places[part.id] = Passage(name, begin, begin + len(part.text))
            begin += len(part.text) + 2
        documents.append(Document(name, title, "\n\n".join(part.text for part in parts)))
    for corpus in others:
        for other in islice(read_corpus(corpus), most):
            documents.append(Document(f"other-{other.id}", other.title, other.text.replace("\n", "\n\n")))
    return PassageCorpus(documents, _read_questions(passages, places))


def _read_questions(folder: Path, places: dict[str, Passage]) -> list[Question]:
    queries = read_queries(folder / "queries.jsonl.gz")
    judgements = read_qrels(folder / "qrels" / "test.tsv")
    answers = {fields["_id"]: tuple(fields["answers"]) for _, fields in read_json_lines(folder / "answers.jsonl.gz")}
    return [
        Question(name, queries[name], places[next(iter(relevant))], answers.get(name, ()))
        for name, relevant in judgements.items()
    ]
