"""Estimated number of documents of a corpus, from its size and its beginning, for the remaining time of a build."""

import csv
import lzma
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import zstandard

from llm2comp.corpus.kinds import find_records_file, find_tables, find_texts, holds_texts, is_pattern
from llm2comp.corpus.remote import is_remote
from llm2comp.corpus.text import COMPRESSED_SUFFIXES, uncompressed_name

__all__ = ["estimate_documents"]

_SAMPLE_BYTES = 1 << 20  # of the file
_SAMPLE_FILES = 50  # of a folder
_SAMPLE_TEXT_BYTES = 64 << 20  # decompressed


def estimate_documents(sources: Sequence[str | Path]) -> int | None:
    """Estimated number of documents of all corpora together; None if only reading them could tell.

    Exact for parquet files and folders of texts; of other files, the first megabyte is read. Never raises: an error in
    a corpus is reported when it is read.
    """
    total = 0
    for source in sources:
        try:
            documents = _estimate(str(source))
        except Exception:  # a damaged archive, a folder that cannot be listed: reported when the corpus is read
            return None
        if documents is None:
            return None
        total += documents
    return total


def _estimate(source: str) -> int | None:
    if source.startswith(("python-docs:", "hub:")) or source == "-" or is_remote(source):
        return None
    path = Path(source)
    if path.is_dir() or is_pattern(path):
        if file := find_records_file(path):
            return _estimate_file(file)
        if holds_texts(path):
            return sum(1 for _ in find_texts(path))
        return _estimate_files(list(find_tables(path)))
    return _estimate_file(path)


def _estimate_files(files: Sequence[Path]) -> int | None:
    """Rows of all files, from the first of them."""
    sample = [(file.stat().st_size, _estimate_file(file)) for file in files[:_SAMPLE_FILES]]
    known = [rows for _, rows in sample if rows is not None]
    size = sum(bytes_ for bytes_, _ in sample)
    if len(known) < len(sample) or not size:
        return None
    return round(sum(known) * sum(file.stat().st_size for file in files) / size)


def _estimate_file(path: Path) -> int | None:
    if not path.is_file():
        return None  # a pipe: what is read for the estimate would be missing later
    suffix = Path(uncompressed_name(path)).suffix.lower()
    if suffix == ".parquet":
        from pyarrow import parquet

        with path.open("rb") as table:  # pyarrow itself takes names in UTF-8 only
            return int(parquet.read_metadata(table).num_rows)
    return _extrapolate(path, suffix) if suffix in (".jsonl", ".ndjson", ".json", ".csv", ".tsv") else 1


def _extrapolate(path: Path, suffix: str) -> int | None:
    size = path.stat().st_size
    with path.open("rb") as file:
        sample = file.read(_SAMPLE_BYTES)
    text = _decompress(sample, path.suffix.lower()) if path.suffix.lower() in COMPRESSED_SUFFIXES else sample
    if len(text) >= _SAMPLE_TEXT_BYTES:
        return None  # expands so much that part of the sample is unread
    lines = text.splitlines(keepends=True)
    whole = len(sample) == size
    if not whole and lines:
        lines.pop()  # incomplete
    header = suffix in (".csv", ".tsv")
    rows = (
        sum(1 for _ in csv.reader(line.decode("utf-8", "replace") for line in lines))
        if suffix == ".csv"
        else sum(not line.isspace() for line in lines)
    )
    if whole:
        return max(0, rows - header)
    read = sum(map(len, lines))
    return round(rows * (size / len(sample)) * (len(text) / read)) - header if read else None


def _decompress(sample: bytes, suffix: str) -> bytes:
    """Text of the first bytes of an archive, up to 64 MiB."""
    if suffix == ".zst":
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
            sample, read_across_frames=True
        ) as reader:
            return reader.read(_SAMPLE_TEXT_BYTES)
    return b"".join(_expand(sample, suffix))


def _expand(sample: bytes, suffix: str) -> Iterator[bytes]:
    """Text of each member of a .gz or .xz archive; the last member may be incomplete."""
    left = _SAMPLE_TEXT_BYTES
    while sample and left > 0:
        member = zlib.decompressobj(31) if suffix == ".gz" else lzma.LZMADecompressor()
        text = member.decompress(sample, left)
        left -= len(text)
        yield text
        sample = member.unused_data if member.eof else b""
