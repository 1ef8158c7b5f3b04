"""The beginning and the end of a run: what may be asked, and the report of what was done."""

import logging
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from llm2comp.corpus.report import SkipCounter, count_rows
from llm2comp.corpus.sources import Source
from llm2comp.errors import CorpusError, IndexFolderError
from llm2comp_indexes.builder.shard_file import SHARD, read_shard
from llm2comp_indexes.builder.shard_folder import check_shard_folder
from llm2comp_indexes.distributed.job import JOB
from llm2comp_indexes.distributed.joining import JoinedParts
from llm2comp_indexes.distributed.outputs import (
    VECTOR_FILES,
    VECTORS,
    WHOLE,
    MadeWith,
    Written,
    write_parquet,
    write_whole_shard,
)
from llm2comp_indexes.distributed.request import Request
from llm2comp_indexes.distributed.run import PARTS, Counts
from llm2comp_indexes.distributed.table import push_shard
from llm2comp_indexes.progress import Progress
from llm2comp_indexes.stores.transfer import PushReport

__all__ = [
    "ClusterReport",
    "check_not_empty",
    "check_output",
    "finish_run",
    "finish_table",
    "lacks_table",
    "push_result",
]

_logger = logging.getLogger(__name__)


class ClusterReport(NamedTuple):
    """Result of an encoding on a cluster.

    Attributes:
        folder: Folder of the shard, or of the Parquet files.
        documents: Number of documents.
        rows: Number of rows: documents, or chunks of them.
        dimension: Length of a vector.
        bytes: Size of the written files.
        skipped: Number of malformed or duplicate rows of the corpus that were left out.
        empty: Number of rows without title and text, which are not encoded.
        repeated: Number of rows of a dataset that were left out because an equal one came before.
        encoded: Number of rows encoded by this run; the parts of the others were there.
        actors: Number of actors.
        seconds: Duration of the run, without loading the model in this process.
        start_seconds: Of these, until the first block was encoded: the cluster, its processes, and their models.
        join_seconds: Of these, for joining the parts.
        encode_seconds: Seconds of encoding, summed over the actors.
        processes: Number of processes that encoded; more than `actors` if some ended and were begun again.
        spilled: Bytes that Ray wrote from its object stores to disk meanwhile; None: unknown.
        cut: Number of words, rows of tables and lines of code that had to be cut for chunks.
        pushed: Report of the table that got the rows too; None: none did.
    """

    folder: Path
    documents: int
    rows: int
    dimension: int
    bytes: int
    skipped: int
    empty: int
    repeated: int
    encoded: int
    actors: int
    seconds: float
    start_seconds: float
    join_seconds: float
    encode_seconds: float
    processes: int
    spilled: int | None
    cut: int
    pushed: PushReport | None = None


def check_output(request: Request) -> None:
    """Raises IndexFolderError if the folder of the result may not be written."""
    if request.format == "shards":
        check_shard_folder(request.output / WHOLE.folder, overwrite=request.overwrite)
        finished = (request.output / WHOLE.folder / SHARD).exists()
    else:
        finished = (request.output / VECTORS).exists()
        if not finished and not (request.output / PARTS).exists() and next(request.output.glob(VECTOR_FILES), None):
            raise IndexFolderError(
                f"{request.output}: holds files of vectors without {VECTORS}, and is kept; name another folder with -o"
            )
    if finished and not request.overwrite:
        raise IndexFolderError(
            f"{request.output}: already holds finished vectors; name another folder with -o, or --overwrite them"
        )


def check_not_empty(corpus: str, counts: Counts, skips: SkipCounter) -> None:
    """Raises CorpusError if the corpus had no document."""
    skips.empty = counts.empty
    if not counts.documents:
        raise CorpusError(f"{corpus}: an empty corpus: no document in it{skips.summary()}")


def finish_run(
    folder: Path,
    request: Request,
    parts: Callable[[], Iterable[Path]],
    on_duplicate: Callable[[str], None] | None,
    made_with: MadeWith,
    sources: list[Source],
    counts: Counts,
    skips: SkipCounter,
    start: float,
    progress: Progress,
) -> ClusterReport:
    """Joins the parts, compares the table with what they gave, removes them, and reports."""
    began = time.perf_counter()
    joined = JoinedParts(parts(), made_with.dimension, on_duplicate)
    written: Written
    if request.format == "shards":
        target = request.output / WHOLE.folder
        written = write_whole_shard(target, joined, made_with, sources, progress, overwrite=request.overwrite)
    else:
        written = write_parquet(request.output, parts(), joined, made_with, progress)
    joined_at = time.perf_counter()
    pushed = push_result(request, progress)
    shutil.rmtree(folder, ignore_errors=True)
    _note(counts)
    now = time.perf_counter()
    return ClusterReport(
        written.folder,
        written.documents,
        written.rows,
        made_with.dimension,
        written.bytes,
        skips.count,
        counts.empty,
        written.repeated,
        counts.encoded,
        counts.actors,
        now - start,
        counts.start,
        joined_at - began,
        counts.seconds,
        len(counts.processes),
        counts.spilled,
        counts.cut,
        pushed,
    )


def lacks_table(request: Request) -> bool:
    """Whether a run ended after its shard was finished, and before its table was."""
    if request.to is None or request.overwrite:
        return False
    return (request.output / WHOLE.folder / SHARD).exists() and (request.output / PARTS / JOB).exists()


def finish_table(request: Request, made_with: MadeWith, progress: Progress) -> ClusterReport:
    """Report of a run that only its table was lacking, which is written from the shard.

    Raises:
        IndexFolderError: The shard was made otherwise, or altered.
    """
    start, folder = time.perf_counter(), request.output / WHOLE.folder
    shard = read_shard(folder)
    made = (shard.fingerprint, shard.encoder, shard.options.store, shard.options.chunks)
    options = made_with.options
    if made != (made_with.fingerprint, made_with.recorded, options.store, options.chunks):
        raise IndexFolderError(
            f"{folder}: holds finished vectors of another model, encoding or chunking; name another folder with -o, or "
            "--overwrite them"
        )
    pushed = push_result(request, progress)
    shutil.rmtree(request.output / PARTS, ignore_errors=True)
    size = sum(record.bytes for record in shard.files.values())
    sizes = (folder, shard.documents, shard.rows, shard.dimension, size)
    return ClusterReport(*sizes, 0, 0, 0, 0, 0, time.perf_counter() - start, 0.0, 0.0, 0.0, 0, 0, 0, pushed)


def push_result(request: Request, progress: Progress) -> PushReport | None:
    """Report of the table, once it holds what the finished shard holds; None: the run fills none."""
    if request.to is None:
        return None
    return push_shard(request.output / WHOLE.folder, request.to, sync=request.sync, progress=progress)


def _note(counts: Counts) -> None:
    """Logs what a run in one process logs too."""
    texts, cut, tokens = counts.truncated
    if counts.empty:
        _logger.warning("%s without title and text: not indexed", count_rows(counts.empty))
    if cut:
        hint = "--chunk-tokens (chunk_tokens) makes several rows of longer ones"
        _logger.warning("%s of %s texts were cut to their first %d tokens; %s", f"{cut:,}", f"{texts:,}", tokens, hint)
