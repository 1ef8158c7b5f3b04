"""The actor that encodes blocks and writes their parts, and their rows to the table of a store if there is one."""

import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp.errors import LLM2CompError, SettingsError
from llm2comp.truncation import count_truncated
from llm2comp_indexes.builder.chunks import make_row_encoder, make_splitter
from llm2comp_indexes.builder.corpora import without_file_time
from llm2comp_indexes.distributed.blocks import Block, BlockDocument
from llm2comp_indexes.distributed.done import DoneDocuments
from llm2comp_indexes.distributed.job import Job, check_seen
from llm2comp_indexes.distributed.parts import PartFacts, PartRow, part_path, read_facts, write_part
from llm2comp_indexes.encoder import load_encoder
from llm2comp_indexes.format.documents import document_line

__all__ = ["BlockEncoder"]

_PIECE = 256
"""Number of rows encoded at once; fixed, so that vectors do not depend on how blocks were dealt out."""


class BlockEncoder:
    """Encodes blocks with a model of its own, and writes a part for each.

    What is wrong with the host is raised with the first block: an error of a constructor would reach nobody as it is.
    """

    def __init__(self, job: Job, threads: int | None = None) -> None:
        self._fault: LLM2CompError | None = None
        try:
            self._prepare(job, threads)
        except LLM2CompError as error:
            self._fault = error

    def _prepare(self, job: Job, threads: int | None) -> None:
        check_seen(job, socket.gethostname())
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        loaded, _ = load_encoder(job.model, job.encoder)
        if loaded.fingerprint != job.fingerprint:
            raise SettingsError(
                f"the model {job.model or 'bundled'} has the fingerprint {loaded.fingerprint[:12]} on the host "
                f"{socket.gethostname()}, expected {job.fingerprint[:12]}; install the same version of llm2comp and "
                "the same model on all hosts"
            )
        self._folder = Path(job.folder)
        self._table = job.table
        self._done = DoneDocuments(Path(job.done)) if job.done else None
        self._encode = make_row_encoder(job.options, loaded, job.encoder.batch_size)
        self._split = make_splitter(job.options, loaded)
        self._at_once = max(_PIECE, job.encoder.batch_size or 0)

    def __call__(self, batch: Any) -> Any:
        """An Arrow table with a row about the block that is the only row of the batch: the fields of a `Record`.

        Raises:
            IndexFolderError: The host does not see the folder of the parts, or the part cannot be written.
            SettingsError: The host's model is another one, or it has no client of the store.
            StoreError: The store cannot be reached from the host, or refuses.
        """
        import pyarrow as pa

        if self._fault is not None:
            raise self._fault
        [row] = batch.to_pylist()
        path = part_path(self._folder, row["key"])
        block = Block.from_row(row)
        facts, encoded, seconds = read_facts(path), 0, 0.0
        if facts is None or facts.digest != row["digest"]:
            rows, start = self._encode.rows, self._encode.seconds
            facts = self._make(path, block, row["digest"])
            encoded, seconds = self._encode.rows - rows, self._encode.seconds - start
        ids = [document.id for document, made_id, _ in block.documents if not made_id]
        numbers = {"encoded": encoded, "seconds": seconds, "process": os.getpid(), "time": time.time()}
        record = {"key": row["key"], "facts": facts.to_json(), "ids": ids, **numbers}
        columns = {name: [value] for name, value in record.items()}
        return pa.table({**columns, "ids": pa.array([ids], pa.list_(pa.string()))})

    def _make(self, path: Path, block: Block, digest: str) -> PartFacts:
        cut = self._split.cut
        rows, texts = list[PartRow](), list[Document]()
        documents = 0
        for entry in block.documents:
            if self._done is None or entry.document.id not in self._done:
                made = self._split(entry.document)
                texts += made
                rows += _to_rows(entry, made)
                documents += 1
        with count_truncated() as count:
            vectors = self._vectors(texts)
        facts = PartFacts(
            digest,
            documents,
            len(rows),
            block.last,
            block.skipped,
            block.empty,
            block.notes,
            self._split.cut - cut,
            (count.texts, count.cut, count.tokens),
        )
        write_part(path, rows, vectors, facts)
        if self._table is not None:  # after the part: rows that are not sent are written at the end of the run
            self._table.write(texts, vectors)
        return facts

    def _vectors(self, rows: Sequence[Document]) -> NDArray[np.float32]:
        pieces = [
            self._encode(rows[first : first + self._at_once]).vectors for first in range(0, len(rows), self._at_once)
        ]
        return np.concatenate(pieces) if pieces else np.empty((0, self._encode.dimension), np.float32)


def _to_rows(entry: BlockDocument, rows: Sequence[Document]) -> list[PartRow]:
    plain = without_file_time(entry.document) if entry.is_file else entry.document
    document = document_line(plain)
    return [PartRow(document_line(row), None if number else document, entry.made_id) for number, row in enumerate(rows)]
