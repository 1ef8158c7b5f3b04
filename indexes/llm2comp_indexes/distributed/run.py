"""One run on a cluster: the model is looked at, the folder of parts is opened, and the missing parts are made."""

import gc
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llm2comp.corpus.id_set import IdSet
from llm2comp.corpus.report import SkipCounter
from llm2comp.errors import CorpusError
from llm2comp_indexes.builder.chunks import make_splitter
from llm2comp_indexes.builder.new_segment import segment_header
from llm2comp_indexes.distributed.capacity import plan_actors
from llm2comp_indexes.distributed.cluster import connected, free_nodes, spilled_bytes
from llm2comp_indexes.distributed.job import Job, open_parts
from llm2comp_indexes.distributed.outputs import MadeWith
from llm2comp_indexes.distributed.parts import list_parts
from llm2comp_indexes.distributed.pipeline import Record, encode_blocks
from llm2comp_indexes.distributed.request import Request
from llm2comp_indexes.distributed.table import Table, prepare_table, table_header
from llm2comp_indexes.encoder import RowEncoder, load_encoder, options_of
from llm2comp_indexes.format.lock import LOCK_FILES, sole_writer
from llm2comp_indexes.progress import Phase, Progress

__all__ = [
    "PARTS",
    "Counts",
    "look_at_model",
    "make_parts",
    "parts_folder",
    "prepare",
]

PARTS = ".parts"
"""Folder of the parts, in that of the output; it is removed once they are joined."""
_BASE_MEMORY = 700 << 20
"""Bytes of memory that a process needs beside the weights of its model."""
_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Counts:
    """What a run has done so far, by what its actors told.

    Attributes:
        documents: Number of documents in the parts.
        encoded: Number of rows encoded by this run.
        seconds: Seconds of encoding, summed over the actors.
        start: Seconds until the first block was there; 0: none was.
        empty: Number of rows without title and text.
        cut: Number of words, rows of tables and lines of code that were cut for chunks.
        processes: Ids of the processes that encoded.
        spilled: Bytes spilled by Ray meanwhile; None: unknown.
        truncated: Number of texts, number of them that were cut to the model's maximum, and that maximum.
        notes: What was logged while the corpora were read.
        actors: Number of actors.
    """

    documents: int = 0
    encoded: int = 0
    seconds: float = 0.0
    start: float = 0.0
    empty: int = 0
    cut: int = 0
    processes: set[int] = field(default_factory=set)
    spilled: int | None = None
    truncated: tuple[int, int, int] = (0, 0, 0)
    notes: dict[str, None] = field(default_factory=dict)
    actors: int = 0

    def add(self, record: Record, skips: SkipCounter) -> None:
        """Adds a block."""
        facts = record.facts
        self.documents += facts.documents
        self.encoded += record.encoded
        self.seconds += record.seconds
        self.empty += facts.empty
        self.cut += facts.cut
        self.processes.add(record.process)
        texts, cut, tokens = facts.truncated
        self.truncated = (self.truncated[0] + texts, self.truncated[1] + cut, tokens or self.truncated[2])
        for message in facts.skipped:
            skips(message)
        for note in facts.notes:
            if note not in self.notes:
                self.notes[note] = None
                _logger.warning("%s", note)


def look_at_model(request: Request) -> tuple[MadeWith, int]:
    """What the vectors will be made with, and the bytes of memory that a process with this model needs.

    The model is loaded on the CPU and let go again: GPUs belong to the actors.

    Raises:
        LLM2CompError: There is no such model, or it cannot do what is asked.
    """
    options = request.encoder
    loaded, name = load_encoder(request.model, replace(options, device="cpu"))
    dimension = RowEncoder(loaded).dimension
    make_splitter(request.options, loaded)  # it may lack what chunks need
    parameters = getattr(loaded, "parameters", None)
    weights = sum(one.nbytes for one in parameters()) if parameters else 0
    made_with = MadeWith(name, loaded.fingerprint, dimension, options_of(loaded, options), request.options)
    del loaded, parameters
    gc.collect()
    return made_with, _BASE_MEMORY + 2 * weights  # weights are there twice while they are loaded


def prepare(request: Request, made_with: MadeWith, *, skipping: bool) -> Table | None:
    """The table that actors write to, after what it does not fit is refused; None: they write to none.

    Args:
        request: What the run is to do.
        made_with: What the vectors will be made with.
        skipping: Whether a document may be left out because another one has its id. Its chunks are known at the end
            only, so then actors write none.

    Raises:
        SettingsError, StoreError: As `prepare_table`.
    """
    if request.to is None:
        return None
    name, fingerprint, dimension, recorded, options = made_with
    header = table_header(fingerprint, name, dimension, options, recorded)
    return prepare_table(request.to, header, by_actors=not (skipping and header.chunked))


@contextmanager
def parts_folder(output: Path, *, overwrite: bool) -> Iterator[Path]:
    """The locked folder of the parts; after an error before the first part, folders that were made are removed."""
    folder = output / PARTS
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with sole_writer(folder):
            if overwrite:
                _clear(folder)
            yield folder
    finally:
        if folder.exists() and next(list_parts(folder), None) is None:
            shutil.rmtree(folder, ignore_errors=True)
            for path in made[1:]:
                with suppress(OSError):
                    path.rmdir()


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in LOCK_FILES:
            path.unlink()


def make_parts(
    folder: Path,
    request: Request,
    made_with: MadeWith,
    memory: int,
    blocks: Callable[[], Any],
    *,
    kind: str,
    spare_cpus: float,
    table: Table | None,
    done: str | None,
    skips: SkipCounter,
    unique: bool,
    progress: Progress,
) -> Counts:
    """What was done, once every block has its part.

    Args:
        folder: Folder of the parts.
        request: What the run is to do.
        made_with: What the vectors are made with.
        memory: Bytes of memory that an actor needs.
        blocks: Returns the dataset of blocks.
        kind: What is read, which parts keep.
        spare_cpus: CPUs that reading needs.
        table: The table that actors write to as well.
        done: File of the documents that earlier runs encoded.
        skips: Receives messages about rows that were left out.
        unique: Whether an id that occurs twice is an error.
        progress: Called with the number of documents done.

    Raises:
        LLM2CompError: Reading or encoding failed, or the cluster cannot give what was asked.
    """
    header: Mapping[str, Any] = {
        "kind": kind,
        **segment_header(made_with.fingerprint, made_with.dimension, made_with.options, made_with.recorded),
    }
    token = open_parts(folder, header)
    name = made_with.name if request.model is not None else None
    model = (str(folder.resolve()), token, name, made_with.fingerprint, made_with.dimension)
    job = Job(*model, made_with.options, request.encoder, table, done)
    counts, ids, start = Counts(), IdSet(), time.perf_counter()
    cluster = request.cluster
    with connected(cluster.address, object_store=cluster.object_store) as ray:
        plan = plan_actors(free_nodes(ray), cluster.actors, cluster.gpus_per_actor, memory, spare_cpus)
        counts.actors, before = plan.actors, spilled_bytes(ray)
        for record in encode_blocks(blocks(), job, plan, cluster.block_tokens):
            counts.start = counts.start or time.perf_counter() - start
            counts.add(record, skips)
            if unique:
                _check_unique(record, ids)
            progress(Phase.DOCUMENTS, counts.documents)
        after = spilled_bytes(ray)
        counts.spilled = None if before is None or after is None else after - before
    return counts


def _check_unique(record: Record, ids: IdSet) -> None:
    """Raises CorpusError at the first id that occurs twice, before more is encoded in vain."""
    for identifier in record.ids:
        if not ids.add(identifier):
            raise CorpusError(
                f'id "{identifier[:80]}" occurs twice in the corpus; ids must be unique (on_error="skip", --on-error '
                "skip: the first stays)"
            )
