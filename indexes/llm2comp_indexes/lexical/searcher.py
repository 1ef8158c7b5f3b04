"""BM25 search of a segment, over mapped files in the format of bm25s that are checked before use."""

import logging
from collections import Counter
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.checked_json import JsonFormat
from llm2comp.errors import IndexFolderError, SettingsError
from llm2comp_indexes.format.arrays import map_array
from llm2comp_indexes.format.mapping import Bytes, map_file
from llm2comp_indexes.lexical.stems import SplitWords, stemmer_version, word_splitter
from llm2comp_indexes.lexical.tokenizer import LONGEST_WORD
from llm2comp_indexes.lexical.writer import (
    DATA,
    ENDS,
    INDPTR,
    K1,
    LENGTHS,
    PARAMETERS,
    ROWS,
    STEMS,
    VOCABULARY,
    B,
    inverse_frequency,
)

__all__ = ["Lexical", "LexicalHits", "open_lexical"]

_BLOCK_ROWS = 1 << 22
_LONGEST_ENTRY = 4 * LONGEST_WORD + 32  # bytes; a character takes up to 4
_REBUILD = "the index was cut or altered: build it again"
_PARAMETERS = JsonFormat("record of BM25 parameters", IndexFolderError, _REBUILD, most_bytes=4096)
_STEMS = JsonFormat("record of stems", IndexFolderError, _REBUILD, most_bytes=4096)
_logger = logging.getLogger(__name__)


class LexicalHits(NamedTuple):
    """Scores and rows of a search, both (queries, k); where a query has fewer rows, row -1 with score 0."""

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]


class _Term(NamedTuple):
    """A word of a query.

    Attributes:
        start: Position of its first posting.
        stop: Position after its last posting.
        times: Number of times that the query has it.
        weight: Its inverse document frequency in this segment.
        corpus_weight: The same in the whole corpus.
    """

    start: int
    stop: int
    times: int
    weight: float
    corpus_weight: float


def open_lexical(folder: Path, rows: int, language: str | None = None) -> "Lexical":
    """The BM25 index of `rows` rows that `LexicalWriter` wrote, mapped.

    Sizes, headers and offsets are checked here, which reads 8 bytes per word of the vocabulary; the rows and scores of
    a word are checked each time they are used. The stemmer is imported by the first search.

    Args:
        folder: Folder of the index.
        rows: Number of its texts.
        language: Language that it was written with.

    Raises:
        IndexFolderError: Files are missing, altered, or made for another number of rows or another language.
    """
    _check_parameters(folder / PARAMETERS, rows)
    return Lexical(folder, rows, language)


class Lexical:
    """An open BM25 index; made by `open_lexical`.

    Scores are Lucene's BM25 (k1 = 1.2, b = 0.75). Statistics are those of the segment, or, if `search` gets all
    segments of a corpus, those of the corpus: then scores of several segments are comparable, and equal to those of one
    segment that holds everything. Deleted documents count in the statistics until segments are merged.

    Attributes:
        rows: Number of texts.
    """

    def __init__(self, folder: Path, rows: int, language: str | None) -> None:
        self.rows = rows
        self._folder, self._language = folder, language
        self._made_with = _read_stems(folder / STEMS, language)
        self._data = map_array(folder / DATA, "<f4")  # (postings,)
        self._rows = map_array(folder / ROWS, "<i4", len(self._data))  # (postings,)
        self._starts = map_array(folder / INDPTR, "<i8")  # (words + 1,)
        self._lengths = map_array(folder / LENGTHS, "<u4", rows)
        self._ends = map_array(folder / ENDS, "<u8", max(0, len(self._starts) - 1))  # (words,)
        self._check_starts()
        self._vocabulary = self._map_vocabulary()

    @cached_property
    def _split(self) -> SplitWords:
        """From a query to words of the vocabulary; says once if another version made the stems there."""
        if self._language is not None:
            _compare_versions(self._language, self._made_with, stemmer_version(self._language))
        return word_splitter(self._language)

    @cached_property
    def words(self) -> int:
        """Number of words in all texts."""
        return int(self._lengths.sum(dtype=np.int64))

    def frequency(self, word: str) -> int:
        """Number of texts with the word, which is one that the language's `word_splitter` returns."""
        number = self._find(word)
        return 0 if number is None else int(self._starts[number + 1] - self._starts[number])

    def search(
        self,
        queries: Sequence[str],
        k: int,
        *,
        allowed: NDArray[np.bool_] | None = None,
        corpus: Sequence["Lexical"] = (),
    ) -> LexicalHits:
        """The k best rows for each query that hold a word of it, best first, equal scores by row. Exact; one thread.

        Args:
            queries: Texts. A query without a known word finds nothing.
            k: Number of rows per query.
            allowed: Mask of the rows that may be found, (rows,), applied before the best are chosen; None for all.
            corpus: All segments of the corpus, with this one, for its statistics; empty: those of this segment.

        Raises:
            LLM2CompError: The index has stems, and PyStemmer is not installed.
            SettingsError: k is below 1, or `allowed` is of another length.
            IndexFolderError: The files were altered.
        """
        if k < 1:
            raise SettingsError(f"k is {k}, expected at least 1")
        if allowed is not None and allowed.shape != (self.rows,):
            raise SettingsError(f"allowed has shape {allowed.shape}, expected ({self.rows},), a truth value per row")
        hits = LexicalHits(
            np.zeros((len(queries), k), dtype=np.float32), np.full((len(queries), k), -1, dtype=np.int64)
        )
        segments = corpus or (self,)
        average = _mean_length(segments)
        for number, query in enumerate(queries):
            scores, rows = self._search_one(self._find_terms(query, segments), k, allowed, average)
            hits.scores[number, : len(rows)], hits.rows[number, : len(rows)] = scores, rows
        return hits

    def _find_terms(self, query: str, segments: Sequence["Lexical"]) -> list[_Term]:
        terms = []
        for word, times in Counter(self._split(query)).items():
            if (number := self._find(word)) is not None:
                start, stop = int(self._starts[number]), int(self._starts[number + 1])
                documents = sum(segment.rows for segment in segments)
                frequency = sum(segment.frequency(word) for segment in segments)
                weight = float(inverse_frequency(self.rows, stop - start))
                terms.append(_Term(start, stop, times, weight, float(inverse_frequency(documents, frequency))))
        return terms

    def _search_one(
        self, terms: list[_Term], k: int, allowed: NDArray[np.bool_] | None, average: float
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The best scores and rows, k or fewer; computed in blocks of rows, so that memory stays bounded."""
        scores, rows = np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
        for low in range(0, self.rows if terms else 0, _BLOCK_ROWS):
            sums = np.zeros(min(_BLOCK_ROWS, self.rows - low), dtype=np.float32)
            for term in terms:
                places, parts = self._read(term, low, len(sums), average)
                sums[places] += parts  # a row occurs once in a word's postings
            if allowed is not None:
                sums *= allowed[low : low + len(sums)]
            matches = np.flatnonzero(sums)
            scores, rows = _take_best(np.concatenate([scores, sums[matches]]), np.concatenate([rows, matches + low]), k)
        return scores, rows

    def _read(self, term: _Term, low: int, count: int, average: float) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Rows of the term among the `count` rows from `low`, minus `low`, and what it adds to their scores."""
        postings = self._rows[term.start : term.stop]
        bounds = np.array([low, low + count], dtype=np.int32)  # of another type, searchsorted would copy the postings
        start, stop = (term.start + int(place) for place in np.searchsorted(postings, bounds))
        rows, data = np.asarray(self._rows[start:stop]), np.asarray(self._data[start:stop])
        if postings[0] < 0 or postings[-1] >= self.rows:
            raise IndexFolderError(f"{self._folder / ROWS}: a row beyond {self.rows:,}; {_REBUILD}")
        if not len(rows):
            return rows, data
        if rows[0] < low or rows[-1] >= low + count or not (rows[1:] > rows[:-1]).all():
            raise IndexFolderError(f"{self._folder / ROWS}: a word's rows are not in order; {_REBUILD}")
        if not (data.min() > 0 and data.max() <= 1.0001 * term.weight):
            raise IndexFolderError(f"{self._folder / DATA}: a score out of range; {_REBUILD}")
        if average != (segment_average := _mean_length([self])):
            data = term.weight * _renorm(data / np.float32(term.weight), self._lengths[rows], segment_average, average)
        return rows - low, (data * (term.times * term.corpus_weight / term.weight)).astype(np.float32)

    def _find(self, word: str) -> int | None:
        """Number of the word, found by bisection of the sorted vocabulary; None if it is unknown."""
        key, low, high = word.encode("utf-8", "surrogatepass"), 0, len(self._ends)
        while low < high:
            middle = (low + high) // 2
            entry, number = self._read_entry(middle)
            if entry == key:
                return number
            low, high = (middle + 1, high) if entry < key else (low, middle)
        return None

    def _read_entry(self, place: int) -> tuple[bytes, int]:
        start = int(self._ends[place - 1]) + 2 if place else 1
        stop = int(self._ends[place])
        word, _, number = self._vocabulary[start : min(stop, start + _LONGEST_ENTRY)].rpartition(b'": ')
        if not (word.startswith(b'"') and number.isdigit() and len(number) < 19 and int(number) < len(self._ends)):
            raise IndexFolderError(f"{self._folder / VOCABULARY}: entry {place + 1} is not one of ours; {_REBUILD}")
        return word[1:], int(number)

    def _check_starts(self) -> None:
        counts = np.diff(np.asarray(self._starts))
        if (
            not len(self._starts)
            or self._starts[0]
            or self._starts[-1] != len(self._data)
            or (len(counts) and not 0 < counts.min() <= counts.max() <= self.rows)
        ):
            raise IndexFolderError(
                f"{self._folder / INDPTR}: does not fit {len(self._data):,} scores of {self.rows:,} rows; {_REBUILD}"
            )

    def _map_vocabulary(self) -> Bytes:
        path, ends = self._folder / VOCABULARY, np.asarray(self._ends)
        try:
            content = map_file(path)
            size = len(content)
            expected = int(ends[-1]) + 1 if len(ends) else 2
            if size != expected or (len(ends) and int(ends[0]) < 2) or not (ends[1:] > ends[:-1]).all():
                raise IndexFolderError(f"{path}: {size:,} bytes, expected {expected:,} in order; {_REBUILD}")
            return content
        except OSError as error:
            raise IndexFolderError(f"{path}: {error.strerror or error}; {_REBUILD}") from error


def _mean_length(segments: Sequence[Lexical]) -> float:
    rows, words = sum(segment.rows for segment in segments), sum(segment.words for segment in segments)
    return words / rows if words and rows else 1.0


def _renorm(part: NDArray[Any], lengths: NDArray[np.uint32], old: float, new: float) -> NDArray[np.float64]:
    """The part of a score that is times / (times + norm), for another mean length.

    The number of repeats, `times`, is recovered from the old part and the old norm.
    """
    part = np.minimum(part, 1)
    old_norm, new_norm = (K1 * (1 - B + B * lengths / average) for average in (old, new))
    recovered: NDArray[np.float64] = part * old_norm / (part * old_norm + (1 - part) * new_norm)
    return recovered


def _take_best(
    scores: NDArray[np.float32], rows: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k highest scores and their rows, equal scores by row. Rows with equal scores must come in rising order."""
    if len(scores) > k:
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        above = np.flatnonzero(scores > least)
        kept = np.concatenate([above, np.flatnonzero(scores == least)[: k - len(above)]])
        scores, rows = scores[kept], rows[kept]
    order = np.lexsort((rows, -scores))
    return scores[order], rows[order]


def _read_stems(path: Path, language: str | None) -> str:
    """Version of PyStemmer that made the stems; empty without a language."""
    if language is None:
        return ""
    stems = _STEMS.read(path)
    if stems.get("language") != language or not isinstance(stems.get("pystemmer"), str):
        raise IndexFolderError(f"{path}: not that of {language} stems; {_REBUILD}")
    return str(stems["pystemmer"])


@cache
def _compare_versions(language: str, made: str, installed: str) -> None:
    if made.split(".")[:2] != installed.split(".")[:2]:
        _logger.warning(
            "the BM25 index has the %s stems of PyStemmer %s, and %s is installed: words whose stem has changed are "
            "not found; to make it again: llm2comp index merge --no-hybrid, then merge --hybrid --language %s",
            language,
            made,
            installed,
            language,
        )


def _check_parameters(path: Path, rows: int) -> None:
    parameters = _PARAMETERS.read(path)
    expected = {
        "k1": K1,
        "b": B,
        "method": "lucene",
        "idf_method": "lucene",
        "dtype": "float32",
        "int_dtype": "int32",
        "num_docs": rows,
    }
    if any(
        type(parameters.get(name)) is not type(value) or parameters[name] != value for name, value in expected.items()
    ):
        raise IndexFolderError(f"{path}: not those of a BM25 index of {rows:,} rows; {_REBUILD}")
