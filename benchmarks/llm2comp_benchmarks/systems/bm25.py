"""BM25, the lexical baseline."""

import logging
from collections.abc import Iterable
from functools import cache
from typing import Any, NoReturn

from llm2comp.corpus.documents import Document
from llm2comp.errors import SettingsError
from llm2comp.optional import optional_import
from llm2comp_benchmarks.metrics import Run

__all__ = ["Bm25"]

_K1, _B = 1.2, 0.75


class Bm25:
    """BM25 as Lucene scores it: k1 = 1.2, b = 0.75, title and text as one field, no English stop words, Porter2 stems.

    Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond, 2009; the variant is Lucene's, as in
    Kamphuis et al., Which BM25 Do You Mean?, 2020. Counting and scoring are bm25s's, the stemmer is NLTK's.

    Raises:
        LLM2CompError: One of the two is not installed.
    """

    system = "bm25"

    def __init__(self) -> None:
        self._bm25s: Any = optional_import("bm25s", extra="eval", needed_by="bm25")
        stemmers: Any = optional_import("nltk.stem.snowball", extra="eval", needed_by="bm25")
        logging.getLogger("bm25s").setLevel(
            logging.WARNING
        )  # it sets itself to DEBUG, and a line of that for each index
        self._stem = cache(stemmers.SnowballStemmer("english").stem)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the system in a result file."""
        parameters = {
            "scoring": "lucene",
            "k1": _K1,
            "b": _B,
            "stop_words": "english",
            "stemmer": "porter2",
            "field": "title and text",
        }
        return {"system": self.system, "parameters": parameters}

    def search(self, documents: Iterable[Document], queries: dict[str, str], *, k: int) -> Run:
        """The k best documents of every query that share a word with it, or all where there are fewer."""
        ids, texts = [], []
        for document in documents:
            ids.append(document.id)
            texts.append(document.content)
        words = self._words(texts)
        words_of_queries = self._words(list(queries.values()))
        known = {word for text in words for word in text}
        if not known:  # bm25s would refuse
            return {query: {} for query in queries}
        index = self._bm25s.BM25(method="lucene", k1=_K1, b=_B, backend="numpy")
        index.index(words, show_progress=False)
        run: Run = {}
        for query, its_words in zip(queries, words_of_queries, strict=True):
            rows, scores = (
                index.retrieve([its_words], k=min(k, len(ids)), show_progress=False, backend_selection="numpy")
                if known.intersection(its_words)
                else ([[]], [[]])
            )
            run[query] = {ids[row]: float(score) for row, score in zip(rows[0], scores[0], strict=True) if score > 0}
        return run

    def _words(self, texts: list[str]) -> list[list[str]]:
        words: list[list[str]] = self._bm25s.tokenize(
            texts,
            stopwords="en",
            stemmer=lambda vocabulary: [self._stem(word) for word in vocabulary],
            return_ids=False,
            show_progress=False,
        )
        return words

    def encode_query(
        self, inputs: list[str], /, *, batch_size: int = 32, show_progress_bar: bool | None = None
    ) -> NoReturn:
        """Raises an error: BM25 has no vectors.

        Raises:
            SettingsError: Always.
        """
        raise SettingsError(
            "bm25 ranks documents and has no vectors: give it retrieval tasks only (--beir, --python-docs)"
        )

    encode_document = encode_query
    encode = encode_query
