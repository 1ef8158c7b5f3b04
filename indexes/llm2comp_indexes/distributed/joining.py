"""Documents of all parts as one stream: in the order of the corpus, each id once."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count, groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp.corpus.id_set import IdSet
from llm2comp.errors import IndexFolderError
from llm2comp_indexes.distributed.blocks import ReadTask
from llm2comp_indexes.distributed.parts import Part, part_path, read_facts, read_part
from llm2comp_indexes.format.chunks import CHUNK_FIELDS
from llm2comp_indexes.format.documents import document_line, parse_line

__all__ = ["JoinedBlock", "JoinedParts", "ordered_parts"]

_BLOCK = 2048


class JoinedBlock(NamedTuple):
    """Rows of a number of documents, and their vectors (rows, dimension)."""

    rows: list[Document]
    documents: int
    vectors: NDArray[np.float32]


class _Group(NamedTuple):
    """The rows of one document."""

    rows: list[Document]
    document: Document
    vectors: NDArray[np.float32]
    made_id: bool


def ordered_parts(folder: Path, tasks: Sequence[ReadTask]) -> Iterator[Path]:
    """The parts of all blocks of the tasks, in the order of the corpora.

    Raises:
        IndexFolderError: One is missing, which is reported before any is used.
    """
    paths = list[Path]()
    for task in tasks:
        for number in count():
            path = part_path(folder, f"{task.number:06d}/{number:06d}")
            if (facts := read_facts(path)) is None:
                raise IndexFolderError(f"{path}: missing or unreadable; run this again to encode its documents again")
            paths.append(path)
            if facts.last:
                break
    return iter(paths)


class JoinedParts:
    """Blocks of documents from parts, with a count and a digest of the documents.

    Attributes:
        documents: Number of documents so far.
        repeated: Number of documents left out so far because an equal one came before.

    Args:
        parts: The parts, in order.
        dimension: Length of a vector.
        on_duplicate: Called with the message about an id that occurs twice, whose second document is left out; None:
            a document equal to the first one is left out, and another one is an error.
    """

    def __init__(self, parts: Iterable[Path], dimension: int, on_duplicate: Callable[[str], None] | None) -> None:
        self.documents = self.repeated = 0
        self._parts, self._dimension, self._on_duplicate = parts, dimension, on_duplicate
        self._digest, self._ids, self._lines = hashlib.sha256(), IdSet(), IdSet()
        self._repeats: dict[str, int] = {}

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the lines of all documents so far."""
        return self._digest.hexdigest()

    def blocks(self) -> Iterator[JoinedBlock]:
        """Blocks of 2,048 documents, as an undivided encoding makes them.

        Raises:
            IndexFolderError: A part was altered, or two different documents have the same id.
        """
        held = list[_Group]()
        for path in self._parts:
            for group in map(self._unique, _groups(read_part(path))):
                if group is None:
                    continue
                held.append(group)
                self.documents += 1
                self._digest.update(document_line(group.document))
                if len(held) == _BLOCK:
                    yield self._block(held)
                    held = []
        if held:
            yield self._block(held)

    def _block(self, groups: Sequence[_Group]) -> JoinedBlock:
        rows = [row for group in groups for row in group.rows]
        return JoinedBlock(rows, len(groups), np.concatenate([group.vectors for group in groups]))

    def _unique(self, group: _Group) -> _Group | None:
        """The document's rows, under another id if it was made of the content and an equal one came before."""
        identifier = group.document.id
        if self._on_duplicate is None:
            fresh = self._lines.add(hashlib.sha256(document_line(group.document)).hexdigest())
            if not fresh:
                self.repeated += 1
                return None
        if self._ids.add(identifier):
            return group
        if self._on_duplicate is None:
            raise IndexFolderError(
                f'id "{identifier[:80]}" belongs to two different documents; give each an id of its own, and run this '
                "again with --overwrite (overwrite=True)"
            )
        if group.made_id:
            return self._renamed(group)
        self._on_duplicate(
            f'id "{identifier[:80]}" occurs twice in the corpus; ids must be unique (on_error="skip", --on-error skip: '
            "the first stays)"
        )
        return None

    def _renamed(self, group: _Group) -> _Group:
        source, _, digest = group.document.id.rpartition("#")
        base = f"{source}#{digest.partition('-')[0]}"
        number = self._repeats.get(base, 1)
        while not self._ids.add(identifier := f"{base}-{(number := number + 1)}"):
            pass
        self._repeats[base] = number
        rows = [_with_document(row, group.document.id, identifier) for row in group.rows]
        return group._replace(rows=rows, document=replace(group.document, id=identifier))


def _with_document(row: Document, before: str, identifier: str) -> Document:
    """The row of a document whose id is another one now."""
    metadata = row.metadata
    if metadata.get(CHUNK_FIELDS.document) == before:
        metadata = {**metadata, CHUNK_FIELDS.document: identifier}
    return replace(row, id=identifier + row.id.removeprefix(before), metadata=metadata)


def _groups(part: Part) -> Iterator[_Group]:
    """The documents of a part with their rows."""
    numbers = np.cumsum([row.document is not None for row in part.rows]).tolist()
    for _, places in groupby(range(len(part.rows)), key=numbers.__getitem__):
        chosen = list(places)
        rows = [part.rows[place] for place in chosen]
        document = Document(*parse_line(rows[0].document or b""))
        single = len(rows) == 1 and rows[0].line == rows[0].document
        documents = [document] if single else [Document(*parse_line(row.line)) for row in rows]
        yield _Group(documents, document, part.vectors[chosen[0] : chosen[-1] + 1], rows[0].made_id)
