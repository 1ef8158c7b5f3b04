"""Sources of training text: whether the files that settings name exist, and which documents may be trained on."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llm2comp.corpus.documents import Document
from llm2comp.corpus.python_docs import is_held_out
from llm2comp.corpus.read import read_corpus
from llm2comp.errors import SettingsError

__all__ = ["SOURCE_FIELDS", "check_sources", "missing_sources", "training_documents"]

SOURCE_FIELDS = (
    "articles",
    "corpora",
    "docstrings",
    "excluded",
    "heldout",
    "packages",
    "pairs",
    "questions",
    "ready",
    "wordnet",
)
"""Fields of settings that name texts."""
_DOCSTRINGS = "python-docs:"
_NAMED = 3
_NOT_FILES = ("hub:", _DOCSTRINGS)


def check_sources(settings: Any, *, made: Collection[str] = ()) -> None:
    """Checks that every file and folder of texts named by settings, nested settings included, exists.

    Args:
        settings: Settings of a stage or a recipe.
        made: Sources that an earlier stage will write; they need not exist yet.

    Raises:
        SettingsError: Naming the first field whose file or folder is missing, and the other missing ones.
    """
    if problem := missing_sources(asdict(settings), made=made):
        raise SettingsError(problem)


def missing_sources(values: Mapping[str, Any], *, made: Iterable[str] = ()) -> str:
    """Message about the files and folders of texts that do not exist, for plain values; empty if all exist."""
    exempt, missing = set(made), dict[str, str]()
    for field, source in _sources(values, ""):
        path = source.removeprefix("pairs:")
        if path not in exempt and not path.startswith(_NOT_FILES) and not Path(path).exists():
            missing.setdefault(path, field)
    if not missing:
        return ""
    (first, field), *others = missing.items()
    named = ", ".join(repr(path) for path, _ in others[:_NAMED])
    more = f", and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    return f"{field}: no file or folder {first!r}" + (f"; also missing: {named}{more}" if others else "")


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


def _sources(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """Names and values of all source fields, such as `heldout`, `corpora[0]` or `compression.corpora[0]`."""
    for field, value in values.items():
        name = f"{prefix}{field}"
        if isinstance(value, Mapping):
            yield from _sources(value, f"{name}.")
        elif field in SOURCE_FIELDS and isinstance(value, str):
            yield name, value
        elif field in SOURCE_FIELDS and isinstance(value, (list, tuple)):
            yield from ((f"{name}[{place}]", entry) for place, entry in enumerate(value) if isinstance(entry, str))
