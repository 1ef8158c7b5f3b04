"""Blocks of documents as rows of a Ray dataset: read by many tasks, each block then encoded by one actor."""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from llm2comp.corpus.documents import Document, Markup
from llm2comp.corpus.entry import Entry
from llm2comp.corpus.read import cut_corpus
from llm2comp.corpus.report import SkipCounter
from llm2comp.corpus.rows import Rows
from llm2comp.corpus.share import Share
from llm2comp.corpus.sources import Source, is_content_id, source_of
from llm2comp.corpus.table_format import TableFormat
from llm2comp_indexes.builder.corpora import open_corpora
from llm2comp_indexes.format.documents import document_line, parse_line

__all__ = [
    "TOKEN_BYTES",
    "Block",
    "BlockDocument",
    "Reading",
    "ReadTask",
    "cut_into_tasks",
    "read_rows_as_blocks",
    "read_task",
]

TOKEN_BYTES = 4
"""Bytes of text for which a token is counted."""
_DOCUMENTS = 2048
_TASK_BYTES = 32 << 20
_TASKS = 1024


class BlockDocument(NamedTuple):
    """A document of a block.

    Attributes:
        document: With its id.
        made_id: Whether the id was made of its content: an equal document elsewhere has the same.
        is_file: Whether it is a file, whose time of change is no part of the corpus's digest.
    """

    document: Document
    made_id: bool
    is_file: bool


class Block(NamedTuple):
    """Documents that are encoded at once, and what was left out before them.

    Attributes:
        key: Name of its part: numbers of its task and of the block in it, or its digest.
        documents: Documents in their order.
        last: Whether it is the last one of its task.
        skipped: Messages about rows that were left out.
        empty: Number of rows without title and text.
        notes: What was logged while it was read.
    """

    key: str
    documents: list[BlockDocument]
    last: bool = False
    skipped: tuple[str, ...] = ()
    empty: int = 0
    notes: tuple[str, ...] = ()

    def to_row(self) -> dict[str, list[Any]]:
        """The block as a batch of one row."""
        lines = b"".join(document_line(document) for document, _, _ in self.documents)
        facts = [
            [document.markup, list(document.pages), made_id, is_file] for document, made_id, is_file in self.documents
        ]
        digest = hashlib.sha256(lines + json.dumps(facts).encode()).hexdigest()
        rest = {"last": self.last, "skipped": self.skipped, "empty": self.empty, "notes": self.notes, "facts": facts}
        names = {"key": self.key or digest, "digest": digest}
        return {name: [value] for name, value in {**names, "lines": lines, "rest": json.dumps(rest)}.items()}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Block":
        """The block that `to_row` made a row of."""
        rest = json.loads(row["rest"])
        lines = bytes(row["lines"]).splitlines(keepends=True) if row["lines"] else []
        documents = [
            BlockDocument(Document(*parse_line(line), Markup(markup), tuple(pages)), made_id, is_file)
            for line, (markup, pages, made_id, is_file) in zip(lines, rest["facts"], strict=True)
        ]
        return cls(row["key"], documents, rest["last"], tuple(rest["skipped"]), rest["empty"], tuple(rest["notes"]))


class Reading(NamedTuple):
    """How the corpora are read, the same for all tasks."""

    corpora: Sequence[str | Path]
    sources: Sequence[Source]
    on_error: Literal["raise", "skip"]
    layout: TableFormat


class ReadTask(NamedTuple):
    """What one task reads: a share of one of the corpora."""

    number: int
    corpus: int
    share: Share


def cut_into_tasks(reading: Reading, task_bytes: int = _TASK_BYTES) -> list[ReadTask]:
    """The tasks that read the corpora, in their order.

    Raises:
        CorpusError: A corpus is missing, or cannot be listed.
    """
    pairs = enumerate(zip(reading.corpora, reading.sources, strict=True))
    shares = [
        (place, share) for place, (corpus, source) in pairs for share in cut_corpus(corpus, source, task_bytes, _TASKS)
    ]
    return [ReadTask(number, place, share) for number, (place, share) in enumerate(shares)]


def read_task(task: ReadTask, reading: Reading, tokens: int) -> Iterator[Block]:
    """The blocks of a task; the last one, which may be empty, is marked.

    Raises:
        CorpusError: The share cannot be read as asked.
    """
    corpus, source = reading.corpora[task.corpus], reading.sources[task.corpus]
    with _Notes() as notes:
        entries = open_corpora(
            [corpus],
            [source],
            reading.on_error,
            notes.skips,
            layout=reading.layout,
            known=reading.sources,
            share=task.share,
        )
        blocks = _cut(entries, [source], tokens, notes)
        held = next(blocks, None) or notes.block([])
        number = 0
        for block in blocks:
            yield held._replace(key=f"{task.number:06d}/{number:06d}")
            held, number = block, number + 1
        rest = notes.block([])
        yield held._replace(
            key=f"{task.number:06d}/{number:06d}",
            last=True,
            skipped=held.skipped + rest.skipped,
            empty=held.empty + rest.empty,
            notes=held.notes + rest.notes,
        )


def read_rows_as_blocks(table: Any, source: Source, on_error: Literal["raise", "skip"], tokens: int) -> Iterator[Block]:
    """The blocks of an Arrow table of rows; each is named by its digest. Equal rows without an id are one document."""
    with _Notes() as notes:
        layout = TableFormat(None, None, None, None)
        entries = open_corpora([Rows(table)], [source], on_error, notes.skips, layout=layout, share=Share())
        yield from _cut((entry for entry in entries if not _is_repeat(entry)), [source], tokens, notes)
        rest = notes.block([])
        if rest.skipped or rest.empty or rest.notes:
            yield rest


def _is_repeat(entry: Entry) -> bool:
    """Whether the id was made of the content, and numbered as another row of the table has the same."""
    made_id = entry.earlier_id is not None and is_content_id(entry.document.id)
    return made_id and "-" in entry.document.id.rpartition("#")[2]


def _cut(entries: Iterable[Entry], sources: Sequence[Source], tokens: int, notes: "_Notes") -> Iterator[Block]:
    files = {source.name for source in sources if source.files}
    documents, held = list[BlockDocument](), 0
    for entry in entries:
        document = entry.document
        is_file = entry.earlier_id is not None and source_of(document.id) in files
        made_id = entry.earlier_id is not None and is_content_id(document.id)
        documents.append(BlockDocument(document, made_id, is_file))
        held += len(document.content) // TOKEN_BYTES + 1
        if held >= tokens or len(documents) == _DOCUMENTS:
            yield notes.block(documents)
            documents, held = [], 0
    if documents:
        yield notes.block(documents)


class _Notes(logging.Handler):
    """Collects the messages of a task, whose own log nobody reads, for the blocks that it makes."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._messages: list[str] = []
        self._skipped: list[str] = []
        self._logger = logging.getLogger("llm2comp")
        self._indexes = logging.getLogger("llm2comp_indexes")
        self._empty = 0
        self.skips = SkipCounter(self._skipped.append)

    def __enter__(self) -> "_Notes":
        self._logger.addHandler(self)
        self._indexes.addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._logger.removeHandler(self)
        self._indexes.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps the message."""
        self._messages.append(record.getMessage())

    def block(self, documents: list[BlockDocument]) -> Block:
        """A block of the documents, with what was noted since the one before."""
        block = Block("", documents, False, tuple(self._skipped), self.skips.empty - self._empty, tuple(self._messages))
        self._empty = self.skips.empty
        self._skipped.clear()
        self._messages.clear()
        return block
