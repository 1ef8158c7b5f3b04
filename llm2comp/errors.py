"""Errors that a user can act on; a message names the input, what was expected, and what fixes it."""

__all__ = [
    "BackboneError",
    "CorpusError",
    "IndexFolderError",
    "LLM2CompError",
    "ModelFolderError",
    "SettingsError",
    "TrainingError",
    "one_line",
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


class SettingsError(LLM2CompError, ValueError):
    """Settings that contradict each other or the data; the message names the fields."""


class TrainingError(LLM2CompError):
    """Training that had to stop, such as at a loss that is not finite; the message names the step and the texts."""


def one_line(error: BaseException, *, limit: int = 300) -> str:
    """The message of an error on one line of at most `limit` characters; the name of its class if it has none."""
    return " ".join(str(error).split())[:limit] or type(error).__name__
