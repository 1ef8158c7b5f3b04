"""Estimated numbers of documents, compared with the numbers that are read."""

import csv
import gzip
import io
import json
import lzma
import os
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
import zstandard
from pyarrow import parquet

from llm2comp.corpus import size as corpus_size
from llm2comp.corpus.size import estimate_documents

ROWS = 4_000
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}


@pytest.fixture(autouse=True)
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_size, "_SAMPLE_BYTES", 1 << 19)


def texts(count: int) -> list[str]:
    draw = random.Random(0)
    return [
        " ".join(f"{draw.getrandbits(16 + 4 * (word % 3)):x}" for word in range(draw.randint(5, 120)))
        for _ in range(count)
    ]


def json_lines(count: int) -> bytes:
    return "".join(json.dumps({"_id": str(row), "text": text}) + "\n" for row, text in enumerate(texts(count))).encode()


def table(count: int, delimiter: str, line_break: str) -> bytes:
    file = io.StringIO()
    rows = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    rows.writerows(
        [("_id", "text"), *((row, text.replace(" ", line_break, 4)) for row, text in enumerate(texts(count)))]
    )
    return file.getvalue().encode()


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_large_file_is_estimated_from_its_beginning(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"corpus.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](json_lines(ROWS)))
    assert path.stat().st_size > corpus_size._SAMPLE_BYTES
    for source in (path, str(tmp_path)):  # the file, and the BEIR folder it lies in
        assert estimate_documents([source]) == pytest.approx(ROWS, rel=0.15)
    assert estimate_documents([path, path]) == pytest.approx(2 * ROWS, rel=0.15)


@pytest.mark.parametrize(("name", "delimiter", "line_break"), [("c.csv", ",", "\n"), ("c.tsv", "\t", " ")])
def test_tables_count_rows_and_not_lines(tmp_path: Path, name: str, delimiter: str, line_break: str) -> None:
    path = tmp_path / name
    path.write_bytes(table(ROWS, delimiter, line_break))
    assert estimate_documents([path]) == pytest.approx(ROWS, rel=0.15)
    path.write_bytes(table(20, delimiter, line_break))
    assert estimate_documents([path]) == 20


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_small_file_is_counted(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"c.json{suffix}"
    parts = [json_lines(40), b"\n\n", json_lines(2)]
    path.write_bytes(
        b"".join(COMPRESS[suffix](part) for part in parts)
    )  # an archive of several parts, as pigz and cat make them
    assert estimate_documents([path]) == 42


def test_parquet_files_and_folders_of_texts_are_counted(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"id": range(1234), "text": ["x"] * 1234}), tmp_path / "c.parquet")
    folder = tmp_path / "texts" / "below"
    folder.mkdir(parents=True)
    for name in ("a.txt", "b.md", "c.txt.gz", ".hidden.txt", "other.png"):
        (folder / name).write_bytes(b"")
    assert estimate_documents([tmp_path / "c.parquet", tmp_path / "texts", folder / "a.txt"]) == 1234 + 3 + 1


def test_what_cannot_be_told_is_none_and_never_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl.gz").write_bytes(b"not an archive")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    sources: list[str | Path] = ["python-docs:", "hub:some/set", tmp_path / "missing.jsonl", *tmp_path.iterdir()]
    for source in sources:
        assert estimate_documents([source]) is None
    small = tmp_path / "small.jsonl"
    small.write_bytes(json_lines(3))
    assert estimate_documents([small, "python-docs:"]) is None


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_an_archive_that_expands_without_end_takes_little_memory(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_size, "_SAMPLE_TEXT_BYTES", 1 << 16)
    path = tmp_path / f"bomb.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](b"{}\n" * 1_000_000))
    assert estimate_documents([path]) is None
    assert len(corpus_size._decompress(path.read_bytes(), suffix)) <= 1 << 16


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert estimate_documents([tmp_path / "pipe.jsonl"]) is None
