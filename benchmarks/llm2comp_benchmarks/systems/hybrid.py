"""BM25 and a model together, fused as by `llm2comp search --mode hybrid`; the words are those of `Bm25`."""

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import numpy as np

from llm2comp.corpus.documents import Document
from llm2comp.errors import SettingsError
from llm2comp.protocols import Encoder
from llm2comp_benchmarks.metrics import Run
from llm2comp_benchmarks.systems.bm25 import Bm25
from llm2comp_benchmarks.tasks.exact_search import exact_search
from llm2comp_indexes.format.vectors import Neighbors
from llm2comp_indexes.search.fusion import WINDOW, fuse
from llm2comp_indexes.search.options import SearchOptions

__all__ = ["Hybrid"]


class Hybrid:
    """A model's ranking and BM25's, fused; whole corpora in memory.

    Args:
        encoder: The model.
        options: Fusion and weights; None: those of a search. Nothing else of it is used.
    """

    system = "hybrid"

    def __init__(self, encoder: Encoder, options: SearchOptions | None = None) -> None:
        self.encoder, self.options = encoder, options or SearchOptions(mode="hybrid")
        self._words = Bm25()

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the system in a result file."""
        vectors, words = self.options.fused_weights
        fusion = {"fusion": self.options.fusion, "weights": {"vectors": vectors, "words": words}}
        return {"system": self.system, "parameters": {**fusion, "bm25": self._words.settings["parameters"]}}

    def search(self, documents: Iterable[Document], queries: dict[str, str], *, k: int) -> Run:
        """The k best documents of every query by both rankings, each of them k deep, and at least `WINDOW`."""
        listed = list(documents)
        rows = {document.id: row for row, document in enumerate(listed)}
        depth = max(WINDOW, k)
        runs = (exact_search(self.encoder, listed, queries, k=depth), self._words.search(listed, queries, k=depth))
        by_vectors, by_words = (_ranking(run, list(queries), rows, depth) for run in runs)
        fused = fuse(by_vectors, by_words, k, self.options.fusion, self.options.fused_weights)
        return {
            query: {listed[row].id: score for row, score in zip(its_rows, its_scores, strict=True) if row >= 0}
            for query, its_rows, its_scores in zip(queries, fused.rows.tolist(), fused.scores.tolist(), strict=True)
        }

    def encode_query(
        self, inputs: list[str], /, *, batch_size: int = 32, show_progress_bar: bool | None = None
    ) -> NoReturn:
        """Raises an error: two rankings have no vectors.

        Raises:
            SettingsError: Always.
        """
        raise SettingsError("hybrid ranks documents and has no vectors: give it retrieval tasks only")

    encode_document = encode_query


def _ranking(run: Run, queries: Sequence[str], rows: dict[str, int], k: int) -> Neighbors:
    """Scores and rows of each query, best first, (queries, k); row -1 where there are fewer."""
    ranking = Neighbors(np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64))
    for place, query in enumerate(queries):
        best = sorted(run[query].items(), key=lambda pair: (-pair[1], rows[pair[0]]))[:k]
        ranking.rows[place, : len(best)] = [rows[identifier] for identifier, _ in best]
        ranking.scores[place, : len(best)] = [score for _, score in best]
    return ranking
