"""Messages about malformed rows: raised as errors, or passed on while reading continues."""

import logging
from collections.abc import Callable, Iterable
from functools import cache
from itertools import islice
from typing import Literal

from llm2comp.errors import CorpusError, SettingsError

__all__ = ["OnError", "Report", "SkipCounter", "choose_report", "count_rows", "list_names", "note_left_out"]

OnError = Literal["raise", "skip"]
Report = Callable[[str], None]

_logger = logging.getLogger(__name__)


class SkipCounter:
    """Counts skipped rows and passes their messages on, to the log by default.

    Attributes:
        count: Number of rows skipped so far.
        empty: Number of rows so far that are left out because they have neither title nor text.
    """

    def __init__(self, report: Report | None = None) -> None:
        self.count = self.empty = 0
        self._first = ""
        self._report = report or _logger.warning

    def __call__(self, message: str) -> None:
        """Counts a skipped row and passes its message on."""
        self._report(message)
        self.count += 1
        self._first = self._first or message

    def summary(self) -> str:
        """The end of an error about a corpus in which nothing is left: number of rows skipped, and the first."""
        rows = "row was" if self.count == 1 else "rows were"
        skipped = f"; {self.count:,} {rows} left out, the first as {self._first}" if self.count else ""
        return skipped + (f"; {count_rows(self.empty)} without title and text" if self.empty else "")


def count_rows(count: int) -> str:
    """Number of rows, formatted."""
    return f"{count:,} row{'s' * (count != 1)}"


def choose_report(on_error: OnError, on_skip: Report | None) -> Report:
    """Function for messages about malformed rows: raises CorpusError, or calls `on_skip` (by default the log)."""
    if on_error == "raise":
        return _raise
    if on_error != "skip":
        raise SettingsError(f'on_error is {on_error!r}, expected "raise" or "skip"')
    return on_skip or _logger.warning


def list_names(names: Iterable[str], most: int = 8) -> str:
    """The first names on one line, for a message."""
    shown = list(islice((" ".join(str(name).split())[:40] for name in names), most + 1))
    return ", ".join(shown[:most] + ["..."] * (len(shown) > most)) or "none"


@cache  # a corpus may be read several times
def note_left_out(place: str, fields: tuple[str, ...]) -> None:
    """Logs once that values of these fields, which JSON cannot hold, are no metadata."""
    _logger.warning("%s: values are left out of the metadata from here on: %s", place, list_names(fields))


def _raise(message: str) -> None:
    raise CorpusError(message)
