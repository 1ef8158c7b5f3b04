"""Retrieval among the docstrings of installed Python code: from the summary line of a function or class to the rest of its docstring.

Only docstrings of the held-out part take part (`llm2comp.corpus.python_docs.is_held_out`), which no recipe of ours
trains on. The pool depends on the Python version and the installed packages, so every result carries its size and a
fingerprint: figures compare only where the fingerprints agree.
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
    """The task over every installed package and the standard library ("all"), or the standard library alone ("standard")."""
    documents = read_python_docs(packages=source == "all")
    return build_task(documents, queries=queries, name="python-docs" if source == "all" else "python-docs-standard")


def build_task(documents: Iterable[Document], *, queries: int = 2000, name: str = "python-docs") -> RetrievalTask:
    """The task made from docstrings by these rules, always the same for the same documents.

    The pool holds the bodies (all but the first paragraph) of held-out functions and classes. The words of the object's
    own qualified name are taken out of summary and body. A body is in the pool once, if it has 80 letters or more and
    equals no body outside the held-out part. Equality looks at letters and digits only, with and without the names.

    Queries are summaries of pool members. One that is left with fewer than three words, or that several members share,
    is not asked: its answer would be a guess; the bodies stay in the pool. Of the rest the first 2,000 in the order of
    their SHA-256 are asked, so a package added or removed changes few of them.

    Args:
        documents: Docstrings, as `read_python_docs` gives them.
        queries: How many to ask at most.
        name: The task's name.

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
    asked = sorted(clear, key=lambda candidate: _key(candidate.summary))[:queries]
    if not asked:
        raise CorpusError(
            f"{name}: no question can be made of the docstrings found; expected the source files of Python's standard "
            "library beside the interpreter"
        )
    corpus = [Document(candidate.id, "", candidate.body) for candidate in pool]
    details = {
        "queries": len(asked),
        "documents": len(pool),
        "possible_queries": len(clear),
        "pool_fingerprint": hashlib.sha256(b"".join(sorted(_key(candidate.body) for candidate in pool))).hexdigest()[
            :16
        ],
    }
    return RetrievalTask(
        name,
        lambda: corpus,
        {one.id: one.summary for one in asked},
        {one.id: {one.id: 1} for one in asked},
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
    """Equal for texts of the same letters and digits."""
    return hashlib.sha256(" ".join(_words(text)).encode()).digest()
