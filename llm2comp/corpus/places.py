"""What lies at the path of a corpus, and the errors that say what was expected there."""

import logging
from collections.abc import Iterator
from pathlib import Path

from llm2comp.corpus.files.readers import READERS, suffix_of
from llm2comp.corpus.kinds import (
    find_files,
    find_records_file,
    find_tables,
    find_texts,
    has_records,
    is_document,
    is_pattern,
)
from llm2comp.corpus.report import list_names
from llm2comp.corpus.text import readable
from llm2comp.errors import CorpusError

__all__ = ["EXPECTED", "find_source_tables", "is_several", "note_other_files"]

EXPECTED = (
    "a BEIR folder, a folder or quoted pattern of texts or of files of rows, a pattern of code such as 'src/**/*.py', "
    "a file .jsonl .ndjson .json .csv .tsv .txt .md .markdown .rst .html .htm .xhtml (also with .gz .xz .zst), .pdf "
    ".docx .epub .parquet or of code, all these in s3://, gs:// or hf://, - (JSON lines from standard input), "
    "hub:NAME[:CONFIG][:SPLIT], python-docs: or python-docs:all"
)
"""All kinds of corpora, for error messages."""

_logger = logging.getLogger(__name__)


def is_several(path: Path) -> bool:
    """Whether the path may stand for several files: a folder or a pattern.

    Raises:
        CorpusError: There is nothing there, or a file of no known kind.
    """
    with readable(path):
        if path.is_dir() or is_pattern(path):
            return True
        if not path.exists():
            raise CorpusError(f"{path}: no such file or folder{_expect_kind(path)}")
    if kinds := _expect_kind(path):
        raise CorpusError(f"{path}: unknown kind of file{kinds}")
    return False


def _describe_nothing(path: Path) -> str:
    """What is wrong with a folder or pattern in which there is nothing to read, and what to do."""
    kinds = _expect_kind(path)
    if is_pattern(path):
        return f"no file of a known kind matches the pattern{kinds}" if kinds else "no file matches the pattern"
    if code := next(find_files(path, lambda file: suffix_of(file) in READERS), None):
        return f"a folder without texts and rows; a pattern reads its code: '{path}/**/*{suffix_of(code)}'"
    return f"a folder without files of a known kind{kinds}"


def _expect_kind(path: Path) -> str:
    """All kinds of corpora, for a message, if the name is of none of them."""
    return "" if is_document(path, path) or has_records(path) else f"; expected {EXPECTED}"


def find_source_tables(path: Path, *, several: bool) -> list[Path]:
    """Files of rows at the path.

    Raises:
        CorpusError: There is none.
    """
    if not several:
        return [path]
    if file := find_records_file(path):
        return [file]
    files = list(find_tables(path))
    if judged := [file.name for file in files if file.name.startswith(("queries.", "qrels."))]:
        raise CorpusError(
            f"{path}: a folder without corpus.jsonl, beside {list_names(judged)} as of a BEIR folder; name the file of "
            "documents itself"
        )
    if not files:
        raise CorpusError(f"{path}: {_describe_nothing(path)}")
    note_other_files(path, find_texts(path), "only the files of rows are read, not the texts beside them")
    return files


def note_other_files(path: Path, files: Iterator[Path], message: str) -> None:
    """Logs one line about files of another kind than those that are read."""
    if others := [file.name for file in files]:
        _logger.warning("%s: %s (%s): name them, or a pattern", path, message, list_names(others))
