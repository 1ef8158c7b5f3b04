"""Sources of training text: whether the files that settings name exist, and which documents may be trained on."""

from collections.abc import Collection, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from llm2comp.corpus.documents import Document
from llm2comp.corpus.python_docs import is_held_out
from llm2comp.corpus.read import read_corpus
from llm2comp.errors import SettingsError

__all__ = ["SOURCE_FIELDS", "check_sources", "training_documents"]

SOURCE_FIELDS = ("articles", "corpora", "docstrings", "excluded", "heldout", "pairs", "ready")
"""Fields of settings that name texts."""
_DOCSTRINGS = "python-docs:"
_NOT_FILES = ("hub:", _DOCSTRINGS)


def check_sources(settings: Any, *, made: Collection[str] = ()) -> None:
    """Checks that every file and folder of texts named by settings, nested settings included, exists.

    Args:
        settings: Settings of a stage or a recipe.
        made: Sources that an earlier stage will write; they need not exist yet.

    Raises:
        SettingsError: Naming the first field whose file or folder is missing.
    """
    for field, source in _sources(settings, ""):
        path = source.removeprefix("pairs:")
        if path not in made and not path.startswith(_NOT_FILES) and not Path(path).exists():
            raise SettingsError(f"{field}: no file or folder {path!r}")


def training_documents(source: str) -> Iterator[Document]:
    """Documents of a corpus that may be trained on: of docstrings, the held-out part is left out.

    Stages 0 to 2 read their corpora through this function, so that none is trained on a held-out docstring.

    Args:
        source: A corpus that `read_corpus` understands.

    Raises:
        CorpusError: As `read_corpus`, when the first document is asked for.
    """
    for document in read_corpus(source, csv_strings=True):
        if not (source.startswith(_DOCSTRINGS) and is_held_out(document.text)):
            yield document


def _sources(settings: Any, prefix: str) -> Iterator[tuple[str, str]]:
    """Names and values of all source fields, such as `heldout`, `corpora[0]` or `compression.corpora[0]`."""
    for field in fields(settings):
        value, name = getattr(settings, field.name), f"{prefix}{field.name}"
        if is_dataclass(value):
            yield from _sources(value, f"{name}.")
        elif field.name in SOURCE_FIELDS and isinstance(value, str):
            yield name, value
        elif field.name in SOURCE_FIELDS and value:
            yield from ((f"{name}[{place}]", entry) for place, entry in enumerate(value))
