"""Fields of metadata that have values of several types, which an index keeps and filters compare apart."""

import logging
from functools import cache
from typing import Any

__all__ = ["MixedTypes"]

_MOST_FIELDS = 1000  # as an index has columns for; some corpora use ids as names of fields
_TYPES = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", tuple: "list", dict: "object"}
_logger = logging.getLogger(__name__)


class MixedTypes:
    """Finds fields that have values of more than one type in a corpus; one line names each, where it shows first.

    Args:
        source: The corpus.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._types = dict[str, str]()
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
            elif self._types[name] != type_:
                self._noted.add(name)
                _note(self._source, name, type_, self._types[name], place)


@cache  # a corpus may be read several times
def _note(source: str, name: str, type_: str, before: str, place: str) -> None:
    _logger.warning(
        '%s: "%.40s" is of the type %s here, and %s before; a filter finds the values of one type alone',
        place if place.startswith(source) else f"{source}: {place}",
        name,
        type_,
        before,
    )
