"""A document of a corpus on its way to an index."""

from typing import NamedTuple

from llm2comp.corpus.documents import Document
from llm2comp.corpus.files.stamp import Stamp

__all__ = ["Entry"]


class Entry(NamedTuple):
    """A document of a corpus.

    Attributes:
        document: With its id.
        earlier_id: The id that version 0.1.0 made for it; None: the corpus gives its id.
        source: Name of its source.
        stamp: Size and time of the file that it is; None: it is a row, or the file has to be read again.
    """

    document: Document
    earlier_id: str | None
    source: str = ""
    stamp: Stamp | None = None
