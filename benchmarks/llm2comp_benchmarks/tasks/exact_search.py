"""Exact search: every document compared with every query, the corpus streamed once."""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from llm2comp.corpus.documents import Document
from llm2comp.protocols import Encoder
from llm2comp.streams import on_terminal
from llm2comp_benchmarks.metrics import Run
from llm2comp_benchmarks.tasks.encoding import document_vectors, query_vectors

__all__ = ["exact_search"]

_BLOCK = 4096  # documents encoded and compared at once
_QUERIES = 1024  # compared at once: with 1,000 results kept, a block of scores stays near 20 MB


def exact_search(
    model: Encoder,
    documents: Iterable[Document],
    queries: dict[str, str],
    *,
    k: int = 1000,
    batch_size: int = 32,
    name: str = "",
) -> Run:
    """The k best documents of every query by the model's own similarity, or all where there are fewer.

    Vectors of one block of documents are in memory at a time; of the documents themselves only the ids are kept.

    Args:
        model: The encoder.
        documents: The corpus; read once.
        queries: Texts by id.
        k: Documents kept for each query.
        batch_size: Texts in one pass of the model.
        name: Shown beside the progress bar.
    """
    query_ids = list(queries)
    vectors_of_queries = query_vectors(model, list(queries.values()), batch_size)  # (queries, dim)
    best = [_Best.empty(len(part)) for part in _parts(vectors_of_queries)]
    document_ids: list[str] = []
    with tqdm(unit=" documents", desc=name, disable=not on_terminal()) as progress:
        for block in _blocks(documents):
            vectors = document_vectors(model, [document.content for document in block], batch_size)  # (block, dim)
            for position, part in enumerate(_parts(vectors_of_queries)):
                best[position] = best[position].merged(part @ vectors.T, len(document_ids), k)
            document_ids += [document.id for document in block]
            progress.update(len(block))
    scores = np.concatenate([part.scores for part in best])
    rows = np.concatenate([part.rows for part in best])
    return {
        query: {document_ids[row]: score for row, score in zip(its_rows, its_scores, strict=True)}
        for query, its_rows, its_scores in zip(query_ids, rows.tolist(), scores.tolist(), strict=True)
    }


class _Best:
    """The best documents so far, of some queries: scores and rows in the corpus, (queries, up to k), not sorted."""

    def __init__(self, scores: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
        self.scores = scores
        self.rows = rows

    @classmethod
    def empty(cls, queries: int) -> "_Best":
        return cls(np.empty((queries, 0), np.float32), np.empty((queries, 0), np.int64))

    def merged(self, scores: NDArray[np.float32], first_row: int, k: int) -> "_Best":
        new_rows = np.broadcast_to(np.arange(first_row, first_row + scores.shape[1]), scores.shape)
        all_scores, all_rows = np.hstack([self.scores, scores]), np.hstack([self.rows, new_rows])
        if all_scores.shape[1] <= k:
            return _Best(all_scores, all_rows)
        kept = np.argpartition(all_scores, -k, axis=1)[:, -k:]
        return _Best(np.take_along_axis(all_scores, kept, 1), np.take_along_axis(all_rows, kept, 1))


def _parts(vectors: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(vectors), _QUERIES):
        yield vectors[start : start + _QUERIES]


def _blocks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    iterator = iter(documents)
    while block := list(islice(iterator, _BLOCK)):
        yield block
