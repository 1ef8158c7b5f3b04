"""What the parts are joined into: a shard for `index build --vectors`, or Parquet files."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llm2comp.atomic import sync_folder, write_file
from llm2comp.checked_json import signed
from llm2comp.corpus.documents import Document
from llm2comp.corpus.sources import Source
from llm2comp.encoder_options import EncoderOptions
from llm2comp_indexes.builder.new_segment import segment_header
from llm2comp_indexes.builder.shard_file import ROWS, Part, Shard, write_shard
from llm2comp_indexes.builder.shard_folder import check_shard_folder, clear_shard, writing_shard
from llm2comp_indexes.distributed.joining import JoinedParts
from llm2comp_indexes.distributed.parts import read_part
from llm2comp_indexes.export.arrow import MetadataTypes, make_schema, to_batches
from llm2comp_indexes.export.rows import Block
from llm2comp_indexes.format.commits import versions
from llm2comp_indexes.format.documents import parse_line
from llm2comp_indexes.format.files import FileRecord
from llm2comp_indexes.format.segment_writer import JOURNAL, SegmentWriter
from llm2comp_indexes.options import IndexOptions
from llm2comp_indexes.progress import Phase, Progress

__all__ = ["VECTORS", "VECTOR_FILES", "WHOLE", "MadeWith", "Written", "write_parquet", "write_whole_shard"]

WHOLE = Part(1, 1)
VECTORS = "vectors.json"
VECTOR_FILES = "vectors-[0-9][0-9][0-9][0-9][0-9].parquet"
_FILE_ROWS = 1 << 18


class MadeWith(NamedTuple):
    """The model's name and fingerprint, its dimension, the options that change vectors, and those of the rows."""

    name: str | None
    fingerprint: str
    dimension: int
    recorded: EncoderOptions
    options: IndexOptions


class Written(NamedTuple):
    """Folder of the result, its numbers of documents and rows, its size in bytes, and the documents left out."""

    folder: Path
    documents: int
    rows: int
    bytes: int
    repeated: int


def write_whole_shard(
    folder: Path,
    joined: JoinedParts,
    made_with: MadeWith,
    sources: Sequence[Source],
    progress: Progress,
    *,
    overwrite: bool,
) -> Written:
    """Writes the one shard of a corpus, as `encode_shard` does. A killed run goes on from its last block.

    Raises:
        IndexFolderError: The folder holds something else, or cannot be written.
    """
    options, recorded = made_with.options, made_with.recorded
    header = segment_header(made_with.fingerprint, made_with.dimension, options, recorded)
    header["shard"] = list(WHOLE)
    with writing_shard(folder):
        check_shard_folder(folder, overwrite=overwrite)
        if overwrite:
            clear_shard(folder)
        (folder / ROWS).mkdir(exist_ok=True)
        with SegmentWriter(folder / ROWS, made_with.dimension, options.store, header=header) as writer:
            for block in joined.blocks():
                if not writer.has(block.rows):
                    writer.append(block.rows, block.vectors)
                progress(Phase.ROWS_JOINED, writer.rows)
            files = writer.finish()
        counts = (writer.rows, joined.documents, joined.documents, joined.sha256)
        made = (files, versions(), tuple(dict.fromkeys(sources)), recorded)
        name, fingerprint, dimension, _, _ = made_with
        write_shard(folder, Shard(WHOLE, name, fingerprint, dimension, options, *counts, *made))
        (folder / ROWS / JOURNAL).unlink()
    size = sum(record.bytes for record in files.values())
    return Written(folder, joined.documents, writer.rows, size, joined.repeated)


def write_parquet(
    folder: Path, parts: Iterable[Path], joined: JoinedParts, made_with: MadeWith, progress: Progress
) -> Written:
    """Writes files of up to 262,144 rows of id, vector and metadata, and at last `vectors.json`, which describes them.

    Args:
        folder: Where they are written; an earlier result there is replaced.
        parts: The parts, for the types of their metadata.
        joined: Their documents.
        made_with: What the vectors were made with; they are stored as float32 or float16.
        progress: Called with the number of rows written.
    """
    types, rows = MetadataTypes(), 0
    for path in parts:
        types.add(Document(*parse_line(row.line)) for row in read_part(path).rows)
    schema = make_schema(types, made_with.dimension)
    _remove_earlier(folder)
    files = dict[str, FileRecord]()
    for number, batches in enumerate(_files(joined, schema)):
        name = f"vectors-{number:05d}.parquet"
        files[name], written = _write_file(folder / name, batches, made_with.options.store)
        rows += written
        progress(Phase.ROWS_JOINED, rows)
    _write_description(folder, joined, made_with, rows, files)
    return Written(folder, joined.documents, rows, sum(record.bytes for record in files.values()), joined.repeated)


def _remove_earlier(folder: Path) -> None:
    """Removes the description first, so that it never names files that are gone."""
    (folder / VECTORS).unlink(missing_ok=True)
    sync_folder(folder)
    for path in folder.glob(VECTOR_FILES):
        path.unlink()


def _files(parts: JoinedParts, schema: Any) -> Iterator[Iterator[Any]]:
    """Batches of all rows, divided into files."""
    batches = to_batches((Block(block.rows, block.vectors) for block in parts.blocks()), schema)
    for first in batches:
        yield _one_file(first, batches)


def _one_file(first: Any, others: Iterator[Any]) -> Iterator[Any]:
    rows = 0
    for batch in chain([first], others):
        yield batch
        rows += batch.num_rows
        if rows >= _FILE_ROWS:
            return


def _write_file(path: Path, batches: Iterator[Any], store: str) -> tuple[FileRecord, int]:
    """Record of the file and the number of its rows; it is there once it is whole."""
    from pyarrow import parquet

    draft, rows, writer = path.with_name(f".{path.name}.part"), 0, None
    with draft.open("wb") as file:
        for batch in batches:
            chosen = _columns(batch, store)
            if writer is None:
                writer = parquet.ParquetWriter(file, chosen.schema, compression="zstd", use_dictionary=False)
            writer.write_batch(chosen)
            rows += batch.num_rows
        if writer is not None:
            writer.close()
        file.flush()
        os.fsync(file.fileno())
    with draft.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    record = FileRecord(draft.stat().st_size, digest)
    os.replace(draft, path)
    sync_folder(path.parent)
    return record, rows


def _columns(batch: Any, store: str) -> Any:
    """Id, vector and metadata of a batch, the vectors in the precision that they are stored in."""
    import pyarrow as pa

    names = [name for name in ("id", "vector", "metadata") if name in batch.schema.names]
    chosen = batch.select(names)
    if store == "float32":
        return chosen
    place = names.index("vector")
    vectors = chosen.column("vector")
    values = vectors.flatten().to_numpy(zero_copy_only=False).astype(np.float16)
    halves = pa.FixedSizeListArray.from_arrays(pa.array(values), vectors.type.list_size)
    return chosen.set_column(place, "vector", halves)


def _write_description(
    folder: Path, parts: JoinedParts, made_with: MadeWith, rows: int, files: dict[str, FileRecord]
) -> None:
    options = made_with.options
    content: dict[str, Any] = {
        "format": 1,
        "created_by": versions(),
        "model": {"name": made_with.name, "fingerprint": made_with.fingerprint},
        "encoder": made_with.recorded.to_json(),
        "dimension": made_with.dimension,
        "store": options.store,
        "chunk_tokens": options.chunk_tokens,
        "chunk_overlap": options.chunk_overlap,
        **options.chunk_json(),
        "rows": rows,
        "corpus": {"documents": parts.documents, "sha256": parts.sha256},
        "files": {name: asdict(record) for name, record in files.items()},
    }
    write_file(folder / VECTORS, [json.dumps(signed(content), indent=1)])
