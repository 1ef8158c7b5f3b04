"""Runs in the TREC format, `query Q0 document rank score tag`, which every evaluation tool reads."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from llm2comp.errors import CorpusError, SettingsError
from llm2comp_indexes.search.index import Hit

__all__ = ["check_run_id", "write_run"]

_WORD = re.compile(r"[^ \t\r\n\f\v]+")  # white space as trec_eval knows it


def check_run_id(kind: str, identifier: str) -> None:
    """Raises CorpusError if the id cannot stand in a run, whose fields are separated by white space."""
    if not _WORD.fullmatch(identifier):
        raise CorpusError(
            f'{kind} id "{identifier}" is empty or has white space, which a TREC run cannot hold; rename it, or use '
            "--json"
        )


def write_run(path: Path, results: Iterable[tuple[str, Sequence[Hit]]], *, tag: str = "llm2comp") -> int:
    """Number of lines written to the run file, which appears when it is complete; ranks count from 1.

    Raises:
        CorpusError: A query's or document's id is empty or has white space; no file is written.
        SettingsError: `path` is a folder or a device.
    """
    if path.exists() and not path.is_file():
        raise SettingsError(f"{path}: not a plain file; name the run file to write")
    lines = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            for query, hits in results:
                check_run_id("query", query)
                for rank, hit in enumerate(hits, start=1):
                    check_run_id("document", hit.document_id)
                    file.write(f"{query} Q0 {hit.document_id} {rank} {hit.score:.9g} {tag}\n")
                    lines += 1
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return lines
