"""Which corpora are files of records, which are texts, and which folders and patterns hold either."""

import glob
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from llm2comp.corpus.files.readers import READERS, suffix_of
from llm2comp.corpus.records import RECORD_SUFFIXES
from llm2comp.corpus.remote import RemotePath, list_files
from llm2comp.corpus.text import COMPRESSED_SUFFIXES, readable, uncompressed_name

__all__ = [
    "find_files",
    "find_records_file",
    "find_tables",
    "find_texts",
    "has_records",
    "holds_texts",
    "is_bare_text",
    "is_document",
    "is_lock",
    "is_pattern",
    "is_table",
    "is_text",
    "pattern_root",
]

_BARE_SUFFIXES = (".txt", ".md")


def holds_texts(path: Path) -> bool:
    """Whether the path is a file that is a document, or a folder or pattern that is read as such files.

    A folder with .txt or .md files is; one with files of other kinds, such as .html, is unless it has files of rows.
    """
    if not (path.is_dir() or is_pattern(path)):
        return is_document(path, path)
    if find_records_file(path) is not None:
        return False
    if next(find_files(path, is_bare_text), None) is not None:
        return True
    return next(find_texts(path), None) is not None and next(find_tables(path), None) is None


def is_pattern(path: Path) -> bool:
    """Whether the path is a pattern of shells, such as `data/**/*.parquet`, and no name of a file or folder."""
    return glob.has_magic(str(path)) and not path.exists()


def pattern_root(pattern: Path) -> Path:
    """The folder above the first part of a pattern that has a wildcard."""
    fixed = next(row for row, part in enumerate(pattern.parts) if glob.has_magic(part))
    return type(pattern)(*pattern.parts[:fixed])


def is_text(path: Path) -> bool:
    """Whether the name is that of a file that is a document, compressed or not, wherever it is; not of code."""
    return (reader := READERS.get(suffix_of(path))) is not None and not reader.code


def is_lock(path: Path) -> bool:
    """Whether the name is that of a file that Office keeps beside a document while it is open."""
    return path.name.startswith("~$")


def is_document(path: Path, corpus: Path) -> bool:
    """Whether the file is a document of the corpus; code is if the name or pattern of the corpus ends as its name."""
    is_code = suffix_of(path) in READERS and suffix_of(path) == suffix_of(corpus)
    return (is_text(path) or is_code) and not is_lock(path)


def is_bare_text(path: Path) -> bool:
    """Whether the name is that of a .txt or .md file, compressed or not, the only texts that 0.1.0 read."""
    return suffix_of(path) in _BARE_SUFFIXES


def has_records(path: Path) -> bool:
    """Whether the name is that of a file of records, compressed or not."""
    name = uncompressed_name(path)
    suffix = Path(name).suffix.lower()
    return suffix in RECORD_SUFFIXES and (suffix != ".parquet" or name == path.name)


def is_table(path: Path) -> bool:
    """Whether the name is that of a file whose rows all have the same fields."""
    return suffix_of(path) in (".csv", ".tsv", ".parquet")


def find_records_file(folder: Path) -> Path | None:
    """The `corpus.jsonl` (or .json, .parquet, .csv, .tsv, plain before compressed) of a BEIR folder."""
    if is_pattern(folder):
        return None
    names = [f"corpus{suffix}{compressed}" for suffix in RECORD_SUFFIXES for compressed in ("", *COMPRESSED_SUFFIXES)]
    if isinstance(folder, RemotePath):  # listed once, instead of a request for each name
        there = {file.name for file in list_files(folder) if file.parent == folder}
        names = [name for name in names if name in there]
    return next((folder / name for name in names if has_records(folder / name) and (folder / name).is_file()), None)


def find_texts(folder: Path) -> Iterator[Path]:
    """Files below the folder or that match the pattern that are documents, in order, without hidden ones."""
    return find_files(folder, lambda path: is_document(path, folder))


def find_tables(folder: Path) -> Iterator[Path]:
    """Files of rows, as `find_texts`; without those that Spark and others leave beside.

    They, or a folder above them, begin with `_`, such as `_delta_log` and `_temporary`; a partition may.
    """
    root = pattern_root(folder) if is_pattern(folder) else folder
    for path in find_files(folder, has_records):
        parts = path.relative_to(root).parts
        if not any(part.startswith("_") and "=" not in part for part in parts):
            yield path


def find_files(folder: Path, fits: Callable[[Path], bool]) -> Iterator[Path]:
    """Files below the folder or that match the pattern, in order, without hidden ones, whose names fit."""

    def fail(error: OSError) -> None:
        raise error

    if isinstance(folder, RemotePath):
        yield from filter(fits, list_files(folder))
        return
    with readable(folder):
        if is_pattern(folder):
            matches = map(Path, sorted(set(glob.glob(str(folder), recursive=True))))  # **/** gives some twice
            yield from (path for path in matches if fits(path) and path.is_file())
            return
        for parent, folders, files in os.walk(folder, onerror=fail):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield from (Path(parent, name) for name in sorted(files) if not name.startswith(".") and fits(Path(name)))
