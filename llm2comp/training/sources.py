"""Whether the files that settings name are there, asked before hours of work depend on them."""

from collections.abc import Collection, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from llm2comp.errors import SettingsError

__all__ = ["SOURCE_FIELDS", "check_sources"]

SOURCE_FIELDS = ("articles", "corpora", "docstrings", "excluded", "heldout", "pairs", "ready")
"""Fields of settings that name texts."""
_ELSEWHERE = ("hub:", "python-docs:")


def check_sources(settings: Any, *, made: Collection[str] = ()) -> None:
    """Looks for every file and folder of texts that settings, or the settings within them, name.

    Args:
        settings: A settings object of a stage or a recipe.
        made: Sources that an earlier stage will make.

    Raises:
        SettingsError: Naming the first field whose file or folder is missing.
    """
    for field, source in _sources(settings, ""):
        path = source.removeprefix("pairs:")
        if path not in made and not path.startswith(_ELSEWHERE) and not Path(path).exists():
            raise SettingsError(f"{field}: no file or folder {path!r}")


def _sources(settings: Any, prefix: str) -> Iterator[tuple[str, str]]:
    for field in fields(settings):
        value, name = getattr(settings, field.name), f"{prefix}{field.name}"
        if is_dataclass(value):
            yield from _sources(value, f"{name}.")
        elif field.name in SOURCE_FIELDS and value:
            entries = (
                {name: value}
                if isinstance(value, str)
                else {f"{name}[{place}]": entry for place, entry in enumerate(value)}
            )
            yield from entries.items()
