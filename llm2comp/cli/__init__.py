"""The command line: each command parses its options, calls one function and prints the result.

Results go to stdout, everything else to stderr. A command module defines `register(app)` and is listed in `_MODULES`.
`--help` and shell completion import every command module, so torch, faiss, transformers and datasets are imported
inside functions only. This is the top layer: it may import every package, and only `llm2comp.__main__` imports it.
"""

import atexit
import gc
import io
import logging
import os
import signal
import sys
import warnings
from contextlib import redirect_stderr
from types import FrameType, ModuleType
from typing import Annotated, NoReturn, TextIO, cast

import typer

from llm2comp import __version__
from llm2comp.cli import (
    analyze,
    bench,
    compare,
    demo,
    encode,
    evaluate,
    export,
    index,
    mcp,
    push,
    report,
    search,
    serve,
    train,
)
from llm2comp.cli.output import printable
from llm2comp.errors import LLM2CompError, SettingsError
from llm2comp.streams import LossyStream, on_terminal, open_missing_streams

__all__ = ["app", "main"]

_MODULES: tuple[ModuleType, ...] = (
    demo,
    index,
    encode,
    search,
    serve,
    mcp,
    evaluate,
    compare,
    report,
    train,
    bench,
    analyze,
    export,
    push,
)
_OUR_LOGGERS = ("llm2comp", "llm2comp_indexes", "llm2comp_benchmarks")

app = typer.Typer(
    name="llm2comp",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},  # commands inherit it
)
for _module in _MODULES:
    _module.register(app)


def _print_version(requested: bool) -> None:
    if requested:
        print(f"llm2comp {__version__}")
        raise typer.Exit


@app.callback()
def _configure(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log details, and show the traceback of an error.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Text embeddings from language models that learned to compress: train, encode, index, search, evaluate."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s") if verbose else _Plain())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in _OUR_LOGGERS:
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.INFO)
    if not verbose:
        warnings.simplefilter("ignore", FutureWarning)  # from one dependency about another: no user can fix it
    if not on_terminal():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers draws its bars into log files too


class _Plain(logging.Formatter):
    """Records for people: the message, after `warning:` or `error:` where it is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        mark = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return mark + super().format(record)


def main() -> None:
    """Runs the command line and exits: 0 done, 1 the work failed, 2 wrong usage, 130 interrupted.

    An error that the user can fix is one line on stderr; `--verbose` adds its traceback. Any other exception is a bug
    in llm2comp and keeps its traceback.
    """
    open_missing_streams()
    atexit.register(gc.freeze)  # or Python would walk all objects at exit, which takes a sixth of a search's time
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a text may have characters that the encoding lacks
    with redirect_stderr(cast("TextIO", LossyStream(sys.stderr))):  # a lost message is no reason to stop the work
        _run()


def _run() -> None:
    try:
        app(prog_name="llm2comp")
    except LLM2CompError as error:
        _fail(str(error), error)
    except MemoryError as error:
        _fail("out of memory; give the command smaller batches, a smaller corpus or a machine with more memory", error)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error), error)
    except SystemExit as stop:
        if stop.code == 130:
            print("llm2comp: interrupted", file=sys.stderr)
        raise


def _terminate(signal_number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signal_number)  # an exception, so that everything half-written is cleaned up on the way out


def _fail(message: str, error: BaseException) -> NoReturn:
    logging.getLogger("llm2comp").debug("traceback", exc_info=error)
    problems = error.problems if isinstance(error, SettingsError) else ()
    if len(problems) > 1:
        print(f"llm2comp: error: {len(problems)} mistakes", file=sys.stderr)
        for problem in problems:
            print(f"  {printable(problem)}", file=sys.stderr)
    else:
        print(f"llm2comp: error: {printable(message)}", file=sys.stderr)
    sys.exit(1)
