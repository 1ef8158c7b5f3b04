"""Writer of a BM25 index in the format of bm25s, from a stream of texts, with bounded memory.

Postings are sorted block by block into a temporary file, which `LexicalWriter.finish` inverts. A build adds the texts
while it writes their rows, so that no document is read back and parsed again. The temporary file is not kept between
runs: a build that resumes reads the corpus again in any case, and adds the rows that were already written from there.
"""

import json
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from llm2comp.atomic import sync_folder
from llm2comp.errors import SettingsError
from llm2comp_indexes.format.arrays import ArrayFile
from llm2comp_indexes.format.files import FileRecord, HashedFile
from llm2comp_indexes.lexical.stems import SplitWords, stemmer_version, word_splitter

__all__ = [
    "B",
    "DATA",
    "ENDS",
    "INDPTR",
    "K1",
    "LENGTHS",
    "PARAMETERS",
    "ROWS",
    "STEMS",
    "VOCABULARY",
    "LexicalWriter",
    "inverse_frequency",
]

DATA, ROWS, INDPTR = "data.csc.index.npy", "indices.csc.index.npy", "indptr.csc.index.npy"
VOCABULARY, PARAMETERS = "vocab.index.json", "params.index.json"
STEMS = "stems.json"
"""Language and version of the stemmer; absent where words are not stemmed."""
ENDS, LENGTHS = "vocab.ends.npy", "lengths.npy"
_FILES = (DATA, ROWS, INDPTR, VOCABULARY, PARAMETERS, STEMS, ENDS, LENGTHS)
_SPOOL = "postings.spool"

K1, B = 1.2, 0.75
"""Lucene's defaults: K1 limits the weight of repeated words, B (0 to 1) is the strength of length normalization."""

_BLOCK_WORDS = 1 << 21
_BLOCK_ROWS = 1 << 17
_PART_POSTINGS = 1 << 21


class LexicalWriter:
    """Writes a BM25 index of texts, numbered in the order in which they are added; a context manager.

    `bm25s.BM25.load(folder)` opens the result too. Memory: about 120 bytes per distinct word, 4 bytes per text, and
    about 200 MB. For each distinct word of each text, the temporary file in the folder takes 12 bytes, and the index 8.

    Args:
        folder: Folder of the index.
        language: Language whose stems are counted instead of words, as for `word_splitter`; None: words.

    Raises:
        LLM2CompError: PyStemmer is not installed.
        SettingsError: There is no stemmer for the language.
    """

    def __init__(self, folder: Path, language: str | None = None) -> None:
        """Writes nothing yet: the first `add` makes the folder and removes what a killed build left in it."""
        self._folder, self._spool = folder, folder / _SPOOL
        self._language, self._split = language, word_splitter(language)
        self._postings: _Postings | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._postings is not None:
            try:
                self._postings.file.close()
            finally:
                self._spool.unlink(missing_ok=True)

    def add(self, texts: Iterable[str]) -> None:
        """Appends texts.

        Raises:
            SettingsError: More than 2^31 - 1 texts, which rows of 32 bits cannot number; build several indexes.
        """
        postings = self._start()
        for text in texts:
            postings.add(text)

    def finish(self) -> dict[str, FileRecord]:
        """Records of the index's files by name, once they are on the device."""
        with self:
            postings = self._start()
            postings.flush()
            postings.file.close()
            records = _write_postings(postings, self._spool, self._folder)
            records |= _write_vocabulary(postings.vocabulary, self._folder)
            records[PARAMETERS] = _write_parameters(len(postings.lengths), self._folder)
            if self._language is not None:
                content = {"language": self._language, "pystemmer": stemmer_version(self._language)}
                records[STEMS] = _write_json(self._folder / STEMS, content)
        sync_folder(self._folder)
        return records

    def _start(self) -> "_Postings":
        if self._postings is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            for name in (*_FILES, _SPOOL):
                (self._folder / name).unlink(missing_ok=True)
            self._postings = _Postings(self._spool.open("xb"), self._split)
        return self._postings


def inverse_frequency(documents: int, frequency: Any) -> Any:
    """Weight of a word that n of N documents hold: Lucene's ln(1 + (N - n + 0.5) / (n + 0.5)).

    Args:
        documents: N.
        frequency: n, a number or an array.
    """
    return np.log1p((documents - frequency + 0.5) / (frequency + 0.5))


class _Postings:
    """Postings (word, row, times), in a file of sorted blocks: three int32 arrays each, by word, then row."""

    def __init__(self, file: IO[bytes], split: SplitWords) -> None:
        self._split = split
        self.vocabulary: dict[str, int] = {}
        self.lengths = array("I")  # number of words in each text
        self.blocks: list[int] = []  # number of postings in each block
        self.frequencies = np.zeros(0, dtype=np.int64)  # number of texts with each word
        self.file = file
        self._words = array("i")
        self._first = 0

    def add(self, text: str) -> None:
        numbers = self.vocabulary
        words = self._split(text)
        self._words.extend([numbers.setdefault(word, len(numbers)) for word in words])
        self.lengths.append(len(words))
        if len(self._words) >= _BLOCK_WORDS or len(self.lengths) - self._first >= _BLOCK_ROWS:
            self.flush()

    def flush(self) -> None:
        if len(self.lengths) >= 2**31:
            raise SettingsError(
                f"a BM25 index of {len(self.lengths):,} texts; one segment holds at most {2**31 - 1:,}: build several"
            )
        lengths = np.array(self.lengths[self._first :], dtype=np.int64)
        row = np.repeat(np.arange(len(lengths)), lengths)
        pairs, times = np.unique(np.array(self._words, dtype=np.int64) * max(1, len(lengths)) + row, return_counts=True)
        word, row = np.divmod(pairs, max(1, len(lengths)))
        for column in (word, row + self._first, times):
            self.file.write(column.astype(np.int32).tobytes())
        self.frequencies = np.pad(self.frequencies, (0, len(self.vocabulary) - len(self.frequencies))) + np.bincount(
            word, minlength=len(self.vocabulary)
        )
        self.blocks.append(len(pairs))
        self._words, self._first = array("i"), len(self.lengths)


class _Part(NamedTuple):
    """Sorted postings: all of some consecutive words, or some of a single word."""

    word: NDArray[np.int32]
    row: NDArray[np.int32]
    times: NDArray[np.int32]


def _write_postings(postings: _Postings, spool: Path, folder: Path) -> dict[str, FileRecord]:
    lengths = np.array(postings.lengths, dtype=np.uint32)
    weight = inverse_frequency(len(lengths), postings.frequencies)
    starts = np.concatenate([[0], np.cumsum(postings.frequencies)])  # (words + 1,)
    average = float(lengths.mean()) if lengths.any() else 1.0
    files = {
        DATA: ArrayFile(folder / DATA, "<f4", int(starts[-1])),
        ROWS: ArrayFile(folder / ROWS, "<i4", int(starts[-1])),
        INDPTR: ArrayFile(folder / INDPTR, "<i8", len(starts)),
        LENGTHS: ArrayFile(folder / LENGTHS, "<u4", len(lengths)),
    }
    try:
        files[INDPTR].append(starts)
        files[LENGTHS].append(lengths)
        for part in _read_parts(postings.blocks, spool, starts):
            norm = K1 * (1 - B + B * lengths[part.row] / average)
            files[DATA].append(weight[part.word] * part.times / (part.times + norm))
            files[ROWS].append(part.row)
        return {name: file.finish() for name, file in files.items()}
    finally:
        for file in files.values():
            file.close()


def _read_parts(blocks: list[int], spool: Path, starts: NDArray[np.int64]) -> Iterator[_Part]:
    """All postings by word, then row, in parts of bounded size."""
    cuts = _cut_words(starts)
    firsts = np.concatenate([[0], np.cumsum(blocks)])[:-1]  # postings before each block
    bounds = np.array(
        [_find_words(spool, int(3 * first), count, cuts) for first, count in zip(firsts, blocks, strict=True)]
    )  # (blocks, cuts)
    for number, words in enumerate(np.diff(cuts)):
        slices = [
            (3 * first, count, *bound[number : number + 2])
            for first, count, bound in zip(firsts, blocks, bounds, strict=True)
        ]
        parts = (_read_slice(spool, *map(int, place)) for place in slices if place[2] < place[3])
        if words == 1:
            yield from parts  # rows rise from block to block, so the postings of one word are in order as they come
        elif block_parts := list(parts):
            joined = [np.concatenate(column) for column in zip(*block_parts, strict=True)]
            order = np.argsort(joined[0], kind="stable")
            yield _Part(*(column[order] for column in joined))


def _cut_words(starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bounds of parts with a bounded number of postings, or with a single word: 0, ..., number of words."""
    cuts = [0]
    while cuts[-1] < len(starts) - 1:
        last = int(np.searchsorted(starts, starts[cuts[-1]] + _PART_POSTINGS, side="right")) - 1
        cuts.append(max(cuts[-1] + 1, last))
    return np.array(cuts)


def _find_words(spool: Path, first: int, count: int, cuts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position of each cut in the block."""
    if not count:
        return np.zeros(len(cuts), dtype=np.int64)
    return np.searchsorted(
        np.memmap(spool, dtype=np.int32, mode="r", offset=4 * first, shape=(count,)), cuts.astype(np.int32)
    )


def _read_slice(spool: Path, first: int, count: int, start: int, stop: int) -> _Part:
    return _Part(
        *(
            np.fromfile(spool, dtype=np.int32, count=stop - start, offset=4 * (first + column * count + start))
            for column in range(3)
        )
    )


def _write_vocabulary(vocabulary: dict[str, int], folder: Path) -> dict[str, FileRecord]:
    """Writes a JSON object, word to number, sorted by the words' bytes, and the end of each entry, for bisection."""
    ends = array("Q")
    with HashedFile(folder / VOCABULARY) as file:
        file.write(b"{")
        end = 1
        for word in sorted(vocabulary):
            # Words are letters and digits, of which JSON escapes none
            entry = f'{", " if ends else ""}"{word}": {vocabulary[word]}'.encode()
            file.write(entry)
            end += len(entry)
            ends.append(end)
        file.write(b"}")
        record = file.finish()
    offsets = ArrayFile(folder / ENDS, "<u8", len(ends))
    try:
        offsets.append(np.array(ends, dtype=np.uint64))
        return {VOCABULARY: record, ENDS: offsets.finish()}
    finally:
        offsets.close()


def _write_parameters(rows: int, folder: Path) -> FileRecord:
    names = {"method": "lucene", "idf_method": "lucene", "dtype": "float32", "int_dtype": "int32", "backend": "numpy"}
    return _write_json(folder / PARAMETERS, {"k1": K1, "b": B, "delta": 0.5, **names, "num_docs": rows})


def _write_json(path: Path, content: dict[str, Any]) -> FileRecord:
    with HashedFile(path) as file:
        file.write(json.dumps(content).encode())
        return file.finish()
