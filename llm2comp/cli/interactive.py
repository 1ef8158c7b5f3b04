"""`llm2comp search DIR` without a question: one question after another, the model loaded once."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llm2comp.cli.documents import format_documents
from llm2comp.cli.hits import describe_score, format_hits, format_times
from llm2comp.cli.output import printable
from llm2comp.errors import LLM2CompError

if TYPE_CHECKING:
    from llm2comp_indexes import Index, SearchOptions

__all__ = ["ask"]

_HELP = """\
/mode dense|bm25|hybrid   by vectors, by words, or by both
/where FILTER             only documents that fit, such as: /where year >= 2020 (without a filter: all)
/k N                      number of results
/show FIELD,FIELD         metadata to show with each result
/read N                   the whole text of result N
/quit                     or Ctrl-D
Anything else is a question."""


@dataclass
class _State:
    """What the next question is asked with."""

    options: "SearchOptions"
    k: int
    fields: tuple[str, ...]
    texts: tuple[str, ...] = ()


def ask(
    index: "Index",
    options: "SearchOptions",
    k: int,
    *,
    fields: tuple[str, ...] = (),
    explain_nothing: Callable[["Index", "SearchOptions"], str],
) -> None:
    """Answers the questions on standard input until it ends.

    Args:
        index: The index.
        options: Options of the searches, until a command changes them.
        k: Number of results.
        fields: Names of metadata to show.
        explain_nothing: Why there is no result.
    """
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if on_terminal:
        _keep_history()
        print(f"{format_documents(len(index))}. Ask, or /help.")
    if options.mode != "bm25" and len(index):
        index.model  # noqa: B018  # loaded before the first question
    state = _State(options, k, fields)
    while True:
        try:
            line = input("> " if on_terminal else "").strip()
        except EOFError:
            break
        if line in ("/quit", "/exit", "/q"):
            break
        try:
            if line.startswith("/"):
                print(_command(line, state))
            elif line:
                print(_answer(index, line, state, explain_nothing))
        except LLM2CompError as error:
            print(f"error: {error}", file=sys.stderr)


def _answer(index: "Index", question: str, state: _State, explain: Callable[..., str]) -> str:
    start = time.perf_counter()
    [hits] = index.search([question], state.k, options=state.options)
    times = format_times(time.perf_counter() - start, index.encode_seconds)
    state.texts = tuple(hit.text for hit in hits)
    if not hits:
        return explain(index, state.options)
    score = describe_score(state.options.mode, state.options.weights)
    return f"{format_hits(hits, question=question, fields=state.fields)}\n     {times}; score: {score}"


def _command(line: str, state: _State) -> str:
    """Does what the command says, and returns what to print."""
    name, _, value = line.partition(" ")
    value = value.strip()
    if name == "/mode":
        state.options = replace(state.options, mode=value)
        return f"mode: {value}"
    if name == "/where":
        state.options = replace(state.options, where=value or None)
        return f"filter: {value or 'none'}"
    if name == "/k" and value.isdigit() and 1 <= int(value) <= 1000:
        state.k = int(value)
        return f"results: {value}"
    if name == "/show":
        state.fields = tuple(filter(None, map(str.strip, value.split(","))))
        return f"metadata shown: {', '.join(state.fields) or 'none'}"
    if name == "/read" and value.isdigit() and 1 <= int(value) <= len(state.texts):
        return "\n".join(map(printable, state.texts[int(value) - 1].splitlines()))
    return _HELP if name == "/help" else f"{printable(line)}: no such command; /help lists them"


def _keep_history() -> None:
    """Arrow keys bring back earlier questions, those of earlier sessions too."""
    import atexit

    try:
        import readline
    except ImportError:  # Windows
        return
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "llm2comp"
    file = folder / "search-history"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if file.exists():
            readline.read_history_file(file)
    except OSError:
        return
    readline.set_history_length(1000)
    atexit.register(readline.write_history_file, file)
