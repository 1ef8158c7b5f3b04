"""Errors that a user can act on; a message names the input, what was expected, and what fixes it."""

import os
import shlex
import sys

__all__ = [
    "BackboneError",
    "ClusterError",
    "CorpusError",
    "IndexFolderError",
    "LLM2CompError",
    "ModelFolderError",
    "ServerError",
    "SettingsError",
    "StoreError",
    "TrainingError",
    "one_line",
    "quote_path",
]


class LLM2CompError(Exception):
    """Root of every error this package raises on purpose; the command line prints it as one line and exits with 1."""


class CorpusError(LLM2CompError):
    """A corpus, queries or judgements file that cannot be read as asked. The message names file and line."""


class BackboneError(LLM2CompError):
    """A language model that cannot serve as a backbone, or does not match the adapter trained on it."""


class ModelFolderError(LLM2CompError):
    """A model folder that is missing, incomplete, altered, or written by a newer version."""


class IndexFolderError(LLM2CompError):
    """An index folder that is missing, incomplete, altered, or made with another model."""


class ServerError(LLM2CompError):
    """A server that cannot be reached, or that refuses a request; the message names its address."""


class StoreError(LLM2CompError):
    """A database that cannot be reached, refuses, or holds something else; the message names its address."""


class ClusterError(LLM2CompError):
    """A cluster that cannot be reached, cannot give what was asked, or failed; the message has the numbers."""


class SettingsError(LLM2CompError, ValueError):
    """Settings that contradict each other or the data; the message names the fields.

    Args:
        problems: All that is wrong, one sentence each; the command line prints several on a line each.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class TrainingError(LLM2CompError):
    """Training that had to stop, such as at a loss that is not finite; the message names the step and the texts."""


def one_line(error: BaseException, *, limit: int = 300) -> str:
    """The message of an error on one line of at most `limit` characters; the name of its class if it has none."""
    return " ".join(str(error).split())[:limit] or type(error).__name__


def quote_path(path: str | os.PathLike[str]) -> str:
    """The path as one word of a shell, to be pasted; if it cannot be printed, in `$'…'` with its bytes escaped."""
    name = os.fspath(path)
    name = f"./{name}" if name.startswith("-") else name  # not an option
    try:
        name.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
        printable = name.isprintable()
    except UnicodeEncodeError:
        printable = False
    if printable:
        return shlex.quote(name)
    plain = set(range(0x20, 0x7F)) - set(b"'\\")
    return "$'" + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in os.fsencode(name)) + "'"
