"""Messages about malformed rows: raised as errors, or passed on while reading continues."""

import logging
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Literal

from llm2comp.errors import CorpusError, SettingsError

__all__ = ["OnError", "Report", "choose_report", "list_names"]

OnError = Literal["raise", "skip"]
Report = Callable[[str], None]

_logger = logging.getLogger(__name__)


def choose_report(on_error: OnError, on_skip: Report | None) -> Report:
    """Function for messages about malformed rows: raises CorpusError, or calls `on_skip` (by default the log)."""
    if on_error == "raise":
        return _raise
    if on_error != "skip":
        raise SettingsError(f'on_error is {on_error!r}, expected "raise" or "skip"')
    return on_skip or _logger.warning


def list_names(names: Iterable[str]) -> str:
    """The first eight names on one line, for a message."""
    shown = list(islice((" ".join(str(name).split())[:40] for name in names), 9))
    return ", ".join(shown[:8] + ["..."] * (len(shown) > 8)) or "none"


def _raise(message: str) -> None:
    raise CorpusError(message)
