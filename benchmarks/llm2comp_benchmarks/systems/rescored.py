"""The first documents of a ranking ordered by MaxSim over memory tokens, as `llm2comp search --rescore maxsim` does."""

from collections.abc import Iterable
from itertools import islice
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp.errors import SettingsError
from llm2comp.late_interaction import maxsim
from llm2comp_benchmarks.metrics import Run
from llm2comp_benchmarks.systems.hybrid import Hybrid
from llm2comp_benchmarks.tasks.exact_search import exact_search
from llm2comp_indexes.encoder import count_memory_tokens
from llm2comp_indexes.search.options import SearchOptions

__all__ = ["Rescored"]

_BLOCK = 1024  # documents whose memory is held at once


class Rescored:
    """A model's ranking, or its hybrid with BM25's, whose first documents are ordered by MaxSim of memory tokens.

    Vectors of memory tokens are not rounded. Of the documents that are candidates of some query, texts are encoded
    twice, so that the memory of one block only is held.

    Args:
        encoder: The model.
        candidates: Number of documents of a query that are ordered; no other is ranked.
        weights: Weights of the rankings by vectors and by words that the candidates are the first of; None: vectors.

    Raises:
        SettingsError: The model has no memory tokens, or a number is out of its range.
    """

    system = "maxsim"

    def __init__(self, encoder: Any, candidates: int = 100, weights: tuple[float, float] | None = None) -> None:
        self.candidates = candidates
        SearchOptions(rescore="maxsim", candidates=candidates)  # checks them
        count_memory_tokens(encoder)
        self.encoder, self._hybrid = encoder, None if weights is None else Hybrid(encoder, weights)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the system in a result file."""
        first = {"of": "vectors"} if self._hybrid is None else {"of": "hybrid", **self._hybrid.settings["parameters"]}
        return {"system": self.system, "parameters": {"rescore": "maxsim", "candidates": self.candidates, **first}}

    def search(self, documents: Iterable[Document], queries: dict[str, str], *, k: int) -> Run:
        """The k best of the candidates of every query."""
        listed = list(documents)
        if self._hybrid is None:
            first = exact_search(self.encoder, listed, queries, k=self.candidates)
        else:
            first = self._hybrid.search(listed, queries, k=self.candidates)
        asked = self.encoder.encode_vectors(list(queries.values()), task="query").memory
        wanted = {name for ranking in first.values() for name in ranking}
        texts = ((document.id, document.content) for document in listed if document.id in wanted)
        run: Run = {query: {} for query in queries}
        while block := dict(islice(texts, _BLOCK)):
            memory = self.encoder.encode_vectors(list(block.values())).memory
            places = {name: place for place, name in enumerate(block)}
            for query, its_memory in zip(queries, asked, strict=True):
                names = [name for name in first[query] if name in places]
                rows = np.array([places[name] for name in names], np.int64)
                scores: NDArray[np.float32] = maxsim(its_memory[None], memory[rows]).ravel()
                run[query] |= dict(zip(names, scores.tolist(), strict=True))
        return {query: dict(sorted(scores.items(), key=lambda pair: -pair[1])[:k]) for query, scores in run.items()}

    def encode_query(
        self, inputs: list[str], /, *, batch_size: int = 32, show_progress_bar: bool | None = None
    ) -> NoReturn:
        """Raises an error: the scores are of no single vectors.

        Raises:
            SettingsError: Always.
        """
        raise SettingsError("rescore maxsim ranks documents and gives no vectors: give it retrieval tasks only")

    encode_document = encode_query
