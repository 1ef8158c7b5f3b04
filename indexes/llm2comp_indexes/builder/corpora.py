"""Documents of several corpora as one stream, with a count of the rows skipped."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from llm2comp.corpus.documents import Document
from llm2comp.corpus.id_set import IdSet
from llm2comp.corpus.read import read_corpus
from llm2comp.errors import CorpusError, SettingsError

__all__ = ["SkipCounter", "read_documents"]

_logger = logging.getLogger(__name__)


class SkipCounter:
    """Counts skipped rows and passes their messages on, to the log by default.

    Attributes:
        count: Number of rows skipped so far.
    """

    def __init__(self, report: Callable[[str], None] | None = None) -> None:
        self.count = 0
        self._report = report or _logger.warning

    def __call__(self, message: str) -> None:
        """Counts a skipped row and passes its message on."""
        self.count += 1
        self._report(message)


def read_documents(
    corpora: Sequence[str | Path], on_error: Literal["raise", "skip"], skip: SkipCounter
) -> Iterator[Document]:
    """Documents of all corpora. Each is opened at once, so that a missing one is reported before anything is loaded.

    Raises:
        SettingsError: `corpora` is no list, or empty.
        CorpusError: A corpus is missing, empty or malformed, or an id occurs twice.
    """
    if isinstance(corpora, str | Path) or not corpora:
        raise SettingsError(f"corpora is {corpora!r}, expected a list of at least one corpus")
    streams = [(source, read_corpus(source, on_error=on_error, on_skip=skip)) for source in corpora]
    return streams[0][1] if len(streams) == 1 else _join(streams, on_error, skip)


def _join(
    streams: Sequence[tuple[str | Path, Iterator[Document]]], on_error: str, skip: SkipCounter
) -> Iterator[Document]:
    seen = IdSet()
    for source, stream in streams:
        for document in stream:
            if seen.add(document.id):
                yield document
                continue
            message = (
                f'{source}: id "{document.id}" occurs in an earlier corpus too; ids must be unique (on_error="skip", '
                "--on-error skip: the first stays)"
            )
            if on_error == "raise":
                raise CorpusError(message)
            skip(message)
