"""Standard streams that may be missing: daemons, `2>&-` and pythonw leave `sys.stderr` None, which Python allows."""

import os
import sys
from contextlib import suppress
from typing import Any

__all__ = ["LossyStream", "on_terminal", "open_missing_streams"]


def on_terminal() -> bool:
    """Whether standard error is a terminal, on which progress bars are drawn; False where it is missing or closed."""
    try:
        return sys.stderr.isatty()
    except (AttributeError, OSError, ValueError):
        return False


def open_missing_streams() -> None:
    """Opens the null device for each standard stream that is missing: what is written there is lost, and nothing fails.

    The descriptors 0 to 2 are taken too; else the next file that is opened would get one of them, and with it what
    native libraries print.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)  # for child processes, as standard streams are
    os.close(descriptor)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8", errors="backslashreplace"))  # noqa: SIM115


class LossyStream:
    """A stream that loses what cannot be written: a terminal that is gone, a full disk, a stream that is closed.

    The descriptor is then pointed at the null device, so that nothing later fails for it either.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes the text and returns its length."""
        try:
            if not self._stream.closed:
                self._stream.write(text)
        except OSError:
            self._give_up()
        return len(text)

    def flush(self) -> None:
        """Writes what is buffered."""
        try:
            if not self._stream.closed:
                self._stream.flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
