"""Fields of metadata with values of several types, or names in several cases, which filters keep apart."""

import logging
from functools import cache
from typing import Any

from llm2comp.corpus.columns import normalise

__all__ = ["MixedTypes"]

_MOST_FIELDS = 1000  # as an index has columns for; some corpora use ids as names of fields
_TYPES = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", tuple: "list", dict: "object"}
_logger = logging.getLogger(__name__)


class MixedTypes:
    """Finds fields with values of more than one type, and those whose names differ in case alone.

    One line names each, where it shows first.

    Args:
        source: The corpus.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._types = dict[str, str]()
        self._spellings = dict[str, str]()  # the first name of each normalised one
        self._noted = set[str]()

    def check(self, metadata: dict[str, Any], place: str) -> None:
        """Notes the types of a document's metadata, which are JSON values; null is of every type."""
        for name, value in metadata.items():
            type_ = _TYPES.get(type(value))
            if type_ is None or name in self._noted:
                continue
            if name not in self._types:
                if len(self._types) < _MOST_FIELDS:
                    self._types[name] = type_
                    first = self._spellings.setdefault(normalise(name), name)
                    if first != name:
                        _note_spellings(self._place(place), name, first)
            elif self._types[name] != type_:
                self._noted.add(name)
                _note(self._place(place), name, type_, self._types[name])

    def _place(self, place: str) -> str:
        return place if place.startswith(self._source) else f"{self._source}: {place}"


@cache  # a corpus may be read several times
def _note_spellings(place: str, name: str, first: str) -> None:
    _logger.warning(
        '%s: the metadata "%.40s" and "%.40s" are two fields, and a filter finds the values of one; rename one',
        place,
        name,
        first,
    )


@cache
def _note(place: str, name: str, type_: str, before: str) -> None:
    _logger.warning(
        '%s: "%.40s" is of the type %s here, and %s before; a filter finds the values of one type alone',
        place,
        name,
        type_,
        before,
    )
