"""What is asked of an index when it is built; kept in its manifest, so that adding and merging ask for the same."""

import re
from dataclasses import dataclass, field
from typing import Literal, get_args

from llm2comp.errors import SettingsError
from llm2comp_indexes.wishes import Wishes

__all__ = ["STORES", "IndexOptions", "Store", "parse_bytes"]

Store = Literal["float32", "float16", "int8"]
STORES: tuple[Store, ...] = get_args(Store)


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """Bytes meant by a size such as `500M` (10^6), `4G` (10^9), `4GiB` (2^30) or a plain number.

    Raises:
        SettingsError: It is none of these, or zero.
    """
    found = _SIZE.fullmatch(text.strip())
    if not found or not (size := _bytes(*found.groups())):
        raise SettingsError(f"memory is {text!r}, expected a size such as 500M, 4G or 16GiB")
    return size


def _bytes(number: str, unit: str, binary: str) -> int:
    power = "KMGT".find(unit.upper()) + 1 if unit else 0
    return int(float(number) * ((1024 if binary else 1000) ** power))


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How an index is made.

    Attributes:
        type: `auto` (chosen by measuring), `flat`, `hnsw`, `ivf`, `ivfpq`, or a FAISS factory string.
        store: Precision of the stored vectors, which every score is computed with.
        wishes: Memory, latency and recall: `auto` chooses by them, and every type is tuned to them.
        chunk_tokens: Split documents into chunks of at most so many tokens of the model; None: a document is one row.
        chunk_overlap: Tokens that neighbouring chunks share.
        hybrid: Keep a BM25 index beside the vectors.
    """

    type: str = "auto"
    store: Store = "float32"
    wishes: Wishes = field(default_factory=Wishes)
    chunk_tokens: int | None = None
    chunk_overlap: int = 0
    hybrid: bool = False

    def __post_init__(self) -> None:
        if self.store not in STORES:
            raise SettingsError(f"store is {self.store!r}, expected one of {', '.join(STORES)}")
        if self.chunk_tokens is None and self.chunk_overlap:
            raise SettingsError(f"chunk_overlap is {self.chunk_overlap} without chunk_tokens: give the size of a chunk too")
        if self.chunk_tokens is not None and self.chunk_tokens < 1:
            raise SettingsError(f"chunk_tokens is {self.chunk_tokens}, expected at least 1")
        if self.chunk_tokens is not None and not 0 <= self.chunk_overlap < self.chunk_tokens:
            raise SettingsError(f"chunk_overlap is {self.chunk_overlap} and chunk_tokens {self.chunk_tokens}: expected 0 <= overlap < tokens")
