"""About how many documents a corpus holds, from its size and its beginning: for the time left of a build."""

import csv
import lzma
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import zstandard

from llm2comp.corpus.read import find_records_file, find_texts
from llm2comp.corpus.text import COMPRESSED_SUFFIXES, uncompressed_name

__all__ = ["estimate_documents"]

_SAMPLE_BYTES = 1 << 20  # of the file
_SAMPLE_TEXT_BYTES = 64 << 20  # decompressed


def estimate_documents(sources: Sequence[str | Path]) -> int | None:
    """About how many documents the corpora hold together; None where that cannot be told without reading all of them.

    Exact for parquet files and folders of texts; of other files the first megabyte is read. It never raises: what is
    wrong with a corpus is said when it is read.
    """
    total = 0
    for source in sources:
        try:
            found = _estimate(str(source))
        except Exception:  # a damaged archive, a folder that cannot be listed: whoever reads it will say what is wrong
            return None
        if found is None:
            return None
        total += found
    return total


def _estimate(source: str) -> int | None:
    if source.startswith(("python-docs:", "hub:")):
        return None
    path = Path(source)
    if path.is_dir():
        found = find_records_file(path)
        if found is None:
            return sum(1 for _ in find_texts(path))
        path = found
    if not path.is_file():
        return None  # a pipe, which a sample would take from its reader
    suffix = Path(uncompressed_name(path)).suffix.lower()
    if suffix == ".parquet":
        from pyarrow import parquet

        return int(parquet.read_metadata(path).num_rows)
    return _extrapolate(path, suffix) if suffix in (".jsonl", ".json", ".csv", ".tsv") else 1


def _extrapolate(path: Path, suffix: str) -> int | None:
    size = path.stat().st_size
    with path.open("rb") as file:
        sample = file.read(_SAMPLE_BYTES)
    text = _decompress(sample, path.suffix.lower()) if path.suffix.lower() in COMPRESSED_SUFFIXES else sample
    if len(text) >= _SAMPLE_TEXT_BYTES:
        return None  # it expands so much that the sample was not used up
    lines = text.splitlines(keepends=True)
    whole = len(sample) == size
    if not whole and lines:
        lines.pop()  # cut
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
    """What the first bytes of an archive expand to, as far as memory allows."""
    if suffix == ".zst":
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
            sample, read_across_frames=True
        ) as reader:
            return reader.read(_SAMPLE_TEXT_BYTES)
    return b"".join(_expand(sample, suffix))


def _expand(sample: bytes, suffix: str) -> Iterator[bytes]:
    """Members of a .gz or .xz archive, one behind the other, the last one cut."""
    left = _SAMPLE_TEXT_BYTES
    while sample and left > 0:
        member = zlib.decompressobj(31) if suffix == ".gz" else lzma.LZMADecompressor()
        text = member.decompress(sample, left)
        left -= len(text)
        yield text
        sample = member.unused_data if member.eof else b""
