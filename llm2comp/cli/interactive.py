"""`llm2comp search DIR` without a question: one question after another, the model loaded once."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import typer

from llm2comp.cli.documents import format_documents
from llm2comp.cli.history import keep_history
from llm2comp.cli.hits import describe_score, format_hits, format_times
from llm2comp.cli.output import printable, tell
from llm2comp.errors import LLM2CompError, SettingsError

if TYPE_CHECKING:
    from llm2comp_indexes import Index, SearchOptions, StoreIndex

__all__ = ["ask", "check_fields"]

_HELP = """\
/mode dense|bm25|hybrid   by vectors, by words, or by both
/where FILTER             only documents that fit, such as: /where year >= 2020 (without a filter: all)
/k N                      number of results
/show FIELD,FIELD         metadata to show with each result (without a field: none)
/read N                   the whole text of result N
/quit                     or Ctrl-D
Anything else is a question."""
_MOST_RESULTS = 1000


def ask(
    index: "Index | StoreIndex",
    options: "SearchOptions",
    k: int,
    *,
    fields: tuple[str, ...] = (),
    explain_nothing: Callable[["Index | StoreIndex", "SearchOptions"], str],
) -> None:
    """Answers the questions on standard input until it ends.

    Each question searches the last commit. On a terminal Ctrl-C leaves a line or stops a search, and the next question
    may follow.

    Args:
        index: The index.
        options: Options of the searches, until a command changes them.
        k: Number of results.
        fields: Names of metadata to show.
        explain_nothing: Why there is no result.

    Raises:
        SettingsError: The index cannot be searched with the options.
        typer.Exit: With 1, at the end of questions from a pipe or file, if one of them failed.
    """
    _check(index, options)
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if on_terminal:
        keep_history()
        print(f"{format_documents(len(index))}. Ask, or /help.")
    if options.uses_model and len(index):
        index.model  # noqa: B018  # loaded before the first question
    session, failed = _Session(index, options, k, fields, explain_nothing), False
    while True:
        try:
            line = _read_typed() if on_terminal else _read_piped()
            if line in ("/quit", "/exit", "/q"):
                break
            if line:
                print(session.reply(line), flush=True)
        except EOFError:
            break
        except LLM2CompError as error:
            tell(f"error: {error}")
            failed = True
        except KeyboardInterrupt:
            if not on_terminal:
                raise
            print()
    if failed and not on_terminal:
        raise typer.Exit(1)


def _read_typed() -> str:
    try:
        line = input("> ").strip()
        line.encode()  # bytes that are no text may come as lone surrogates
    except UnicodeError as error:
        raise SettingsError("the line has bytes that are no text; type it again") from error
    except EOFError:
        print()  # what the shell prints next begins on a line of its own
        raise
    return line


def _read_piped() -> str:
    line = sys.stdin.buffer.readline()
    if not line:
        raise EOFError
    try:
        return line.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise SettingsError(f"a question that is not UTF-8: {line[:40]!r}") from error


class _Session:
    """The index, and what the next question is asked with."""

    def __init__(
        self,
        index: "Index | StoreIndex",
        options: "SearchOptions",
        k: int,
        fields: tuple[str, ...],
        explain_nothing: Callable[["Index | StoreIndex", "SearchOptions"], str],
    ) -> None:
        self._index, self._options, self._k, self._fields = index, options, k, fields
        self._explain_nothing = explain_nothing
        self._texts: list[str] = []  # of the last results

    def reply(self, line: str) -> str:
        """The answer to a question, or what a command changed."""
        if not line.startswith("/"):
            return self._answer(line)
        name, _, value = line.partition(" ")
        commands: dict[str, Callable[[str], str]] = {
            "/mode": self._set_mode,
            "/where": self._set_filter,
            "/k": self._set_results,
            "/show": self._set_fields,
            "/read": self._read,
            "/help": lambda _: _HELP,
        }
        if name not in commands:
            raise SettingsError(f"{name[:40]}: no such command; /help lists them")
        return commands[name](value.strip())

    def _answer(self, question: str) -> str:
        if self._index.refresh():
            tell(f"the index has changed: {format_documents(len(self._index))}")
        start = time.perf_counter()
        [hits] = self._index.search([question], self._k, options=self._options)
        times = format_times(time.perf_counter() - start, self._index.encode_seconds)
        self._texts = [hit.text for hit in hits]
        if not hits:
            return printable(self._explain_nothing(self._index, self._options))
        score = describe_score(self._options)
        return f"{format_hits(hits, question=question, fields=self._fields)}\n     {times}; score: {score}"

    def _set_mode(self, value: str) -> str:
        mode = cast("Any", value)  # SearchOptions refuses what is none
        self._options = _check(self._index, replace(self._options, mode=mode))
        return f"mode: {value}"

    def _set_filter(self, value: str) -> str:
        self._options = _check(self._index, replace(self._options, where=value or None))
        return f"filter: {printable(value) or 'none'}"

    def _set_results(self, value: str) -> str:
        self._k = _parse_number("/k", value, _MOST_RESULTS)
        return f"results: {self._k}"

    def _set_fields(self, value: str) -> str:
        names = tuple(filter(None, map(str.strip, value.split(","))))
        check_fields(self._index, names)
        self._fields = names
        return f"metadata shown: {', '.join(names) or 'none'}"

    def _read(self, value: str) -> str:
        if not self._texts:
            raise SettingsError("/read: there is no result to read yet")
        text = self._texts[_parse_number("/read", value, len(self._texts)) - 1]
        return "\n".join(map(printable, text.splitlines()))


def _parse_number(name: str, value: str, most: int) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 10 and 1 <= int(value) <= most):
        raise SettingsError(f"{name} is {value[:40]!r}, expected a number from 1 to {most:,}")
    return int(value)


def check_fields(index: "Index | StoreIndex", names: Sequence[str]) -> None:
    """Checks that there is metadata of these names.

    Raises:
        SettingsError: No document has one of them; the message lists those there are.
    """
    from llm2comp_indexes import SearchOptions
    from llm2comp_indexes.filters.names import quote_name
    from llm2comp_indexes.filters.parse import parse_where

    for name in names:
        _check(index, SearchOptions(where=replace(parse_where(quote_name(name)), name="show")))


def _check(index: "Index | StoreIndex", options: "SearchOptions") -> "SearchOptions":
    """The options, after a search with them that encodes nothing.

    Raises:
        SettingsError: The index has no such fields, or no BM25 index.
    """
    import numpy as np

    index.search(["?"], 1, options=options, vectors=np.zeros((1, index.dimension), np.float32))
    return options
