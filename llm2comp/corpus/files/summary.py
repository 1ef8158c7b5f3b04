"""How many files of a folder were read, and how many were not and why, by kind."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache

from llm2comp.corpus.files.content import Note
from llm2comp.corpus.report import list_names

__all__ = ["FileSummary"]

_logger = logging.getLogger(__name__)
_MOST_KINDS = 12


class FileSummary:
    """Counts the files of one folder or pattern by kind, which is the suffix of their names.

    Attributes:
        unseen: The user's names of metadata that no file has.
        fields: Names of metadata that files have.
        unchanged: Number of files that were not read, as they are known.
    """

    def __init__(self) -> None:
        self.unseen: Sequence[str] = ()
        self.fields = dict[str, None]()
        self.unchanged = 0
        self._read = Counter[str]()
        self._notes: dict[str, Counter[str]] = {}
        self._first: dict[str, tuple[Note, str]] = {}  # by message: the first note, and the name of its file
        self._skipped: dict[str, Counter[str]] = {}

    def add(self, kind: str, note: Note | None = None, name: str = "") -> None:
        """Counts a file of this name that was read."""
        self._read[kind] += 1
        if note:
            self._notes.setdefault(note.message, Counter())[kind] += 1
            self._first.setdefault(note.message, (note, name))

    def skip(self, kind: str, reason: str) -> None:
        """Counts a file that is left out; the reason goes on behind a number, such as `without text`."""
        self._skipped.setdefault(reason, Counter())[kind] += 1

    def skipped(self) -> str:
        """What was left out and why, for the end of a message; empty if nothing was."""
        return f"; left out: {_list(self._skipped)}" if self._skipped else ""

    def log(self, corpus: str) -> None:
        """Logs one line: a warning if files are left out."""
        count = sum(self._read.values())
        kinds = f" ({_kinds(self._read)})" if count else ""
        files = f"{count:,} file{'s' * (count != 1)} read{kinds}"
        if self.unchanged:
            files += f", {self.unchanged:,} unchanged by size and time"
        notes = f", of which {_list(self._notes, self._first)}" if self._notes else ""
        level = logging.WARNING if self._skipped or self._notes else logging.INFO
        _log(level, f"{corpus}: {files}{notes}{self.skipped()}")

    def log_notes(self, corpus: str) -> None:
        """Logs the notes on a corpus that is one file."""
        for note, _ in self._first.values():
            sample = f', with "{note.sample}" in it' if note.sample else ""
            hint = f" ({note.hint})" if note.hint else ""
            _log(logging.WARNING, f"{corpus}: {note.message}{sample}{hint}")

    def log_unseen(self, corpus: str) -> None:
        """Logs one line for the user's names of metadata that no file has."""
        if self.unseen:
            missing, there = list_names(self.unseen), list_names(self.fields)
            _log(logging.WARNING, f"{corpus}: no file has the field {missing}; the fields are {there}")


@cache  # a corpus may be read several times
def _log(level: int, message: str) -> None:
    _logger.log(level, "%s", message)


def _list(groups: dict[str, Counter[str]], first: Mapping[str, tuple[Note, str]] | None = None) -> str:
    """Groups of files with their numbers and kinds, and an example where there is one."""
    parts = []
    for reason, kinds in groups.items():
        part = f"{sum(kinds.values()):,} {reason} ({_kinds(kinds)})"
        if first and reason in first:
            note, name = first[reason]
            part += f', such as "{note.sample}" in {name}' if note.sample else f", such as {name}"
        parts.append(part)
    return ", ".join(parts)


def _kinds(kinds: Counter[str]) -> str:
    """Kinds with the numbers of their files, the most frequent first."""
    ordered = sorted(kinds.items(), key=lambda one: (-one[1], one[0]))
    names = [f"{kind or 'no suffix'} {count:,}" for kind, count in ordered]
    return ", ".join(names[:_MOST_KINDS] + ["..."] * (len(names) > _MOST_KINDS))
