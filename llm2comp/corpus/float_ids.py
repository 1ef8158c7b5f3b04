"""Ids in text files that pandas wrote as floats, as it does with whole numbers of a column that had a gap: 1.0 for 1.

JSON and parquet hold them as floats, whose text is 1. Text says nothing of a type: in a column where every id is a
whole number with .0 (or 1e+16, as large ones are written), ids are read as such floats, so that no two ids become one,
and 1.0 beside 1 or 1.10 stays.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from llm2comp.corpus.scalars import id_text

__all__ = ["drop_fraction", "find_float_ids", "note_float_ids"]

_WHOLE_FLOAT = re.compile(r"(?:0|-?[1-9][0-9]*)\.0|-?[1-9](?:\.[0-9]+)?e\+[0-9]{2,}")  # as Python and pandas write them
_logger = logging.getLogger(__name__)


def find_float_ids(rows: Iterable[Sequence[str]], positions: Iterable[int]) -> frozenset[int]:
    """Those of the positions at which all values but empty ones are whole floats, and at least one is.

    Reading stops when none is left, which is mostly at the first row.
    """
    possible, seen = set(positions), set[int]()
    for row in rows:
        for position in [position for position in possible if row[position]]:
            if _WHOLE_FLOAT.fullmatch(row[position]):
                seen.add(position)
            else:
                possible.discard(position)
        if not possible:
            break
    return frozenset(possible & seen)


def drop_fraction(identifier: str) -> str:
    """The whole number in an id of a column that `find_float_ids` found.

    Raises:
        ValueError: Several whole numbers may have been written so.
    """
    return id_text(float(identifier))


@cache  # a file may be read several times
def note_float_ids(path: Path, names: tuple[str, ...]) -> None:
    """Logs once that ids of these columns are read as whole numbers."""
    if names:
        _logger.warning(
            "%s: every id in %s is a whole number with .0, as pandas writes columns with gaps; 1.0 is read as 1",
            path,
            " and ".join(names),
        )
