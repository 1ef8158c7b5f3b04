"""Questions of earlier sessions, brought back by the arrow keys."""

import atexit
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["keep_history"]

_MOST_LINES = 1000


def keep_history() -> None:
    """Reads the history that earlier sessions kept, and keeps that of this one when the process ends.

    It lies in `$XDG_STATE_HOME/llm2comp/search-history` (`~/.local/state` if that is not set). Where it cannot be read
    or written, or Python has no readline (Windows), there is none.
    """
    try:
        import readline

        file = _history_file()
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists():
            readline.read_history_file(file)
    except (ImportError, OSError, RuntimeError):  # RuntimeError: there is no home folder
        return
    readline.set_history_length(_MOST_LINES)
    atexit.register(_write, file)


def _history_file() -> Path:
    state = os.environ.get("XDG_STATE_HOME")
    return Path(state or Path.home() / ".local" / "state") / "llm2comp" / "search-history"


def _write(file: Path) -> None:
    import readline

    with suppress(OSError):
        readline.write_history_file(file)
