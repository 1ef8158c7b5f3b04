"""Runs a command on a pseudo-terminal, as a person types it."""

import os
import select
import signal
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

__all__ = ["Terminal"]

_COLUMNS = 100
_SECONDS = 120
"""Time for importing torch and loading a model on a busy machine."""

STAND_IN = """
import sys, time
import llm2comp
from llm2comp.bundled_models import DEFAULT_MODEL
from llm2comp.cli import main
from tests.word_encoder import WordEncoder

class Encoder(WordEncoder):
    def encode_query(self, inputs, /, **options):
        if "slowly" in inputs[0]:
            print("encoding", flush=True)
            time.sleep(60)
        return super().encode_query(inputs, **options)

vars(llm2comp)["load"] = lambda name=None, **_: Encoder(fingerprint="words" if name in (None, DEFAULT_MODEL) else name)
main()
"""
"""The command line with a model that needs no torch, and a minute for questions with the word "slowly"."""


class Terminal:
    """A command on a terminal of 100 columns; a context manager that ends it.

    Attributes:
        output: All that it has printed, as text.
        code: Its exit status; None while it runs.
    """

    def __init__(self, *arguments: object, code: str = STAND_IN, environment: Mapping[str, str] | None = None) -> None:
        import fcntl
        import pty
        import struct
        import termios

        self.output = ""
        self.code: int | None = None
        self._pid, self._file = pty.fork()
        if not self._pid:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where tests run in the background
            fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, _COLUMNS, 0, 0))
            inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
            given = {"TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUTF8": "1", **(environment or {})}
            os.execve(sys.executable, [sys.executable, "-c", code, *map(str, arguments)], {**inherited, **given})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.code is None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._file)

    def type(self, keys: str | bytes) -> None:
        """Types the keys; `\\x03` is Ctrl-C, `\\x04` Ctrl-D, `\\x1b[A` the arrow up."""
        os.write(self._file, keys.encode() if isinstance(keys, str) else keys)

    def read_until(self, mark: str) -> str:
        """What is printed up to the mark, the mark included.

        Raises:
            AssertionError: It is not printed within two minutes, or before the command ends.
        """
        printed, end = b"", time.monotonic() + _SECONDS
        while mark not in (text := printed.decode(errors="replace")):
            assert time.monotonic() < end, f"no {mark!r} in {text!r}"
            chunk = self._read()
            assert chunk, f"no {mark!r} in {text!r}"
            printed += chunk
        self.output += text
        return text

    def ask(self, line: str | bytes) -> str:
        """What is printed after the line is typed, up to the next prompt."""
        self.type(line if isinstance(line, bytes) else line + "\n")
        return self.read_until("\r\n> ").removesuffix("\r\n> ")

    def wait(self) -> int:
        """The exit status, once the command has ended."""
        while chunk := self._read():
            self.output += chunk.decode(errors="replace")
        self.code = code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return code

    def _read(self) -> bytes:
        ready, _, _ = select.select([self._file], [], [], _SECONDS)
        assert ready, f"nothing more after {self.output!r}"
        try:
            return os.read(self._file, 1 << 16)
        except OSError:  # Linux, at the end
            return b""
