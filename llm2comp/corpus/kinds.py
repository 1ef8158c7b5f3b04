"""Which corpora are files of records, which are texts, and which folders hold either."""

import os
from collections.abc import Iterator
from pathlib import Path

from llm2comp.corpus.records import RECORD_SUFFIXES
from llm2comp.corpus.text import COMPRESSED_SUFFIXES, readable, uncompressed_name

__all__ = ["find_records_file", "find_texts", "has_records", "holds_texts", "is_table", "is_text"]

_TEXT_SUFFIXES = (".txt", ".md")


def holds_texts(path: Path) -> bool:
    """Whether the path is a text file, or a folder that is read as text files."""
    return find_records_file(path) is None if path.is_dir() else is_text(path)


def is_text(path: Path) -> bool:
    """Whether the name is that of a text file, .txt or .md, compressed or not."""
    return Path(uncompressed_name(path)).suffix.lower() in _TEXT_SUFFIXES


def has_records(path: Path) -> bool:
    """Whether the name is that of a file of records, compressed or not."""
    name = uncompressed_name(path)
    suffix = Path(name).suffix.lower()
    return suffix in RECORD_SUFFIXES and (suffix != ".parquet" or name == path.name)


def is_table(path: Path) -> bool:
    """Whether the name is that of a file whose rows all have the same fields."""
    return Path(uncompressed_name(path)).suffix.lower() in (".csv", ".tsv", ".parquet")


def find_records_file(folder: Path) -> Path | None:
    """The `corpus.jsonl` (or .json, .parquet, .csv, .tsv, plain before compressed) of a BEIR folder."""
    names = [f"corpus{suffix}{compressed}" for suffix in RECORD_SUFFIXES for compressed in ("", *COMPRESSED_SUFFIXES)]
    return next((folder / name for name in names if has_records(folder / name) and (folder / name).is_file()), None)


def find_texts(folder: Path) -> Iterator[Path]:
    """Text files below the folder, in order, without hidden ones."""

    def fail(error: OSError) -> None:
        raise error

    with readable(folder):
        for parent, folders, files in os.walk(folder, onerror=fail):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield from (
                Path(parent, name) for name in sorted(files) if not name.startswith(".") and is_text(Path(name))
            )
