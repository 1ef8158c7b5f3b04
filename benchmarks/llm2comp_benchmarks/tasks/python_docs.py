"""Retrieval among docstrings of installed Python code: from the summary of an object to the rest of its docstring.

Only held-out docstrings are used (`llm2comp.corpus.python_docs.is_held_out`), which none of our recipes trains on. The
pool depends on the Python version and the installed packages, so every result has its size and a fingerprint: scores
are comparable only where the fingerprints are equal.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from llm2comp.corpus.documents import Document
from llm2comp.corpus.python_docs import is_held_out, read_python_docs, remove_names, split_summary
from llm2comp.errors import CorpusError
from llm2comp_benchmarks.tasks.retrieval import RetrievalTask

__all__ = ["build_task", "read_python_docs_task"]

_LEAST_BODY_LETTERS = 80
_LEAST_SUMMARY_WORDS = 3


@dataclass(frozen=True)
class _Candidate:
    id: str
    summary: str
    body: str


def read_python_docs_task(source: Literal["all", "standard"] = "all", *, queries: int = 2000) -> RetrievalTask:
    """The task over the standard library ("standard"), or over all installed packages too ("all")."""
    documents = read_python_docs(packages=source == "all")
    return build_task(documents, queries=queries, name="python-docs" if source == "all" else "python-docs-standard")


def build_task(documents: Iterable[Document], *, queries: int = 2000, name: str = "python-docs") -> RetrievalTask:
    """The task made from docstrings by fixed rules; the same for the same documents.

    The pool:

    - It has the bodies (all but the first paragraph) of held-out functions and classes.
    - The words of an object's qualified name are removed from its summary and body.
    - A body is in the pool once, if it has 80 letters or more and equals no body that is not held out. Bodies are equal
      if their letters and digits are, with or without the names.

    Queries are the summaries of the pool. Summaries of fewer than three words and summaries that several objects share
    are left out, because an answer would be a guess; their bodies stay in the pool. Of the others the first 2,000 in
    the order of their SHA-256 are taken, so that adding or removing a package changes few of them.

    Args:
        documents: Docstrings, as `read_python_docs` returns them.
        queries: Number of queries at most.
        name: Name of the task.

    Raises:
        CorpusError: No query is left.
    """
    pool = _choose_pool(documents)
    times = Counter(_key(candidate.summary) for candidate in pool)
    clear = [
        candidate
        for candidate in pool
        if times[_key(candidate.summary)] == 1 and len(_words(candidate.summary)) >= _LEAST_SUMMARY_WORDS
    ]
    chosen = sorted(clear, key=lambda candidate: _key(candidate.summary))[:queries]
    if not chosen:
        raise CorpusError(
            f"{name}: no question can be made of the docstrings found; expected the source files of Python's standard "
            "library beside the interpreter"
        )
    corpus = [Document(candidate.id, "", candidate.body) for candidate in pool]
    details = {
        "queries": len(chosen),
        "documents": len(pool),
        "possible_queries": len(clear),
        "pool_fingerprint": hashlib.sha256(b"".join(sorted(_key(candidate.body) for candidate in pool))).hexdigest()[
            :16
        ],
    }
    return RetrievalTask(
        name,
        lambda: corpus,
        {one.id: one.summary for one in chosen},
        {one.id: {one.id: 1} for one in chosen},
        details=details,
    )


def _choose_pool(documents: Iterable[Document]) -> list[_Candidate]:
    elsewhere: set[bytes] = set()  # bodies that may have been trained on
    candidates: list[tuple[_Candidate, set[bytes]]] = []
    for document in documents:
        summary, body = split_summary(document.text)
        if not body:
            continue
        bare = remove_names(document, body)
        keys = {_key(body), _key(bare)}
        if not is_held_out(document.text):
            elsewhere |= keys
        elif document.metadata["kind"] != "module" and sum(map(len, _words(bare))) >= _LEAST_BODY_LETTERS:
            candidates.append((_Candidate(document.id, remove_names(document, summary), bare), keys))
    pool = []
    taken = elsewhere
    for candidate, keys in candidates:
        if taken.isdisjoint(keys):
            pool.append(candidate)
            taken |= keys
    return pool


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _key(text: str) -> bytes:
    """A digest that is equal for texts of the same letters and digits."""
    return hashlib.sha256(" ".join(_words(text)).encode()).digest()
