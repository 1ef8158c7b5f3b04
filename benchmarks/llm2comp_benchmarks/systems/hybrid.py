"""BM25 and a model together, as `llm2comp search --mode hybrid` ranks."""

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import numpy as np

from llm2comp.corpus.documents import Document
from llm2comp.errors import SettingsError
from llm2comp.protocols import Encoder
from llm2comp_benchmarks.metrics import Run
from llm2comp_benchmarks.systems.bm25 import Bm25
from llm2comp_benchmarks.tasks.exact_search import exact_search
from llm2comp_indexes.search.fusion import fuse
from llm2comp_indexes.search.options import SearchOptions

__all__ = ["Hybrid"]


class Hybrid:
    """Reciprocal rank fusion of a model's ranking and BM25's, whole corpora in memory.

    Args:
        encoder: The model.
        weights: Weights of the rankings by vectors and by words, 0 or more and not both 0.

    Raises:
        SettingsError: The weights are others.
    """

    system = "hybrid"

    def __init__(self, encoder: Encoder, weights: tuple[float, float] = (1.0, 1.0)) -> None:
        self.encoder, self._weights = encoder, weights
        SearchOptions(mode="hybrid", weights=weights)  # checks them
        self._words = Bm25()

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the system in a result file."""
        fusion = {
            "fusion": "reciprocal rank",
            "constant": 60,
            "weights": {"vectors": self._weights[0], "words": self._weights[1]},
        }
        return {"system": self.system, "parameters": {**fusion, "bm25": self._words.settings["parameters"]}}

    def search(self, documents: Iterable[Document], queries: dict[str, str], *, k: int) -> Run:
        """The k best documents of every query by both rankings, each of them k deep."""
        listed = list(documents)
        rows = {document.id: row for row, document in enumerate(listed)}
        runs = (exact_search(self.encoder, listed, queries, k=k), self._words.search(listed, queries, k=k))
        rankings = [_ranking(run, list(queries), rows, k) for run in runs]
        fused = fuse(rankings, weights=self._weights, k=k)
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


def _ranking(run: Run, queries: Sequence[str], rows: dict[str, int], k: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Rows of each query, best first, (queries, k); -1 where there are fewer."""
    ranking = np.full((len(queries), k), -1, dtype=np.int64)
    for place, query in enumerate(queries):
        best = sorted(run[query].items(), key=lambda pair: (-pair[1], rows[pair[0]]))[:k]
        ranking[place, : len(best)] = [rows[identifier] for identifier, _ in best]
    return ranking
