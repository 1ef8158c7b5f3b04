"""Progress of long calls: which phase they are in, and how much of it is done."""

from collections.abc import Callable
from enum import StrEnum

__all__ = ["Phase", "Progress", "silent"]


class Phase(StrEnum):
    """Phases of a build, an addition, a merge or an encoding. Each is a string that people can read."""

    LOADING = "loading the model"
    DOCUMENTS = "documents"
    DOCUMENTS_COMPARED = "documents compared"
    DOCUMENTS_READ = "documents read"
    SAMPLE_ENCODED = "rows of the sample encoded"
    ROWS_READ_FROM_MEMORY = "rows read from memory"
    ROWS_EXPORTED = "rows exported"
    ROWS_READ_BACK = "rows read back"
    ROWS_FOUND = "rows found in the store"
    ROWS_PUSHED = "rows pushed"
    ROWS_CHECKED = "rows compared"
    INDEXING = "the store makes its index"
    SHARDS_VERIFIED = "shards verified"
    ROWS_JOINED = "rows joined"
    FINISHING = "finishing"
    ROWS_WRITTEN = "rows written"
    """Passed once, with the number of all rows, which is the total of `STRUCTURE_ROWS`."""
    CHOOSING = "choosing the type"
    STRUCTURE_ROWS = "rows in the structure"
    MEASURING = "measuring"


Progress = Callable[[Phase, int], None]
"""Called with a phase and the number of its documents, rows or shards done; 0 for a phase that counts nothing."""


def silent(phase: Phase, done: int) -> None:
    """Shows nothing."""
