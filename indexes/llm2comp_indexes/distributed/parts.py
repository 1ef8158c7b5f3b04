"""Parts: a Parquet file for each encoded block, written whole by the actor that encoded it, in a folder all hosts see.

What lies there is what has been done: a later run encodes no block whose part is there.
"""

import json
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.atomic import write_file
from llm2comp.errors import IndexFolderError, one_line

__all__ = ["Part", "PartFacts", "PartRow", "list_parts", "part_path", "read_facts", "read_part", "write_part"]

_SUFFIX = ".parquet"
_FACTS = b"llm2comp"


@dataclass(frozen=True, slots=True)
class PartFacts:
    """What is known of a block beside its rows.

    Attributes:
        digest: SHA-256 of its documents.
        documents: Number of documents.
        rows: Number of rows: documents, or chunks of them.
        last: Whether it is the last block of its task.
        skipped: Messages about rows of the corpus that were left out before it.
        empty: Number of rows without title and text.
        notes: What was logged while it was read.
        cut: Number of words, rows of tables and lines of code that were cut for chunks.
        truncated: Number of texts encoded, number of them cut to the model's maximum, and that maximum in tokens.
    """

    digest: str
    documents: int
    rows: int
    last: bool
    skipped: tuple[str, ...]
    empty: int
    notes: tuple[str, ...]
    cut: int
    truncated: tuple[int, int, int]

    def to_json(self) -> str:
        """The facts as JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "PartFacts":
        """The facts that `to_json` gave."""
        values = json.loads(text)
        tuples = {name: tuple(values[name]) for name in ("skipped", "notes", "truncated")}
        return cls(**{**values, **tuples})


class PartRow(NamedTuple):
    """A row of a part.

    Attributes:
        line: The row as a line of a file of documents.
        document: Line of its document, in the first row of each document; equal to `line` if that is not a chunk.
        made_id: Whether the id of its document was made of the content.
    """

    line: bytes
    document: bytes | None
    made_id: bool


class Part(NamedTuple):
    """The rows of a part, and their vectors (rows, dimension)."""

    rows: list[PartRow]
    vectors: NDArray[np.float32]


def part_path(folder: Path, key: str) -> Path:
    """File of the part of a block; keys without a folder are spread over 256 of them."""
    name = key if "/" in key else f"{key[:2]}/{key}"
    return folder / f"{name}{_SUFFIX}"


def list_parts(folder: Path) -> Iterator[Path]:
    """All parts, in the order of their names."""
    for group in sorted(path for path in folder.iterdir() if path.is_dir()):
        yield from sorted(path for path in group.iterdir() if path.suffix == _SUFFIX and path.name[0] != ".")


def write_part(path: Path, rows: Sequence[PartRow], vectors: NDArray[np.float32], facts: PartFacts) -> None:
    """Writes the part, durable and whole on return; several processes may write the same one.

    Raises:
        IndexFolderError: It cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    size = vectors.shape[1]
    columns = {
        "line": pa.array([row.line for row in rows], pa.binary()),
        # the line of a document that is one row is not stored twice
        "document": pa.array([b"" if row.document == row.line else row.document for row in rows], pa.binary()),
        "made_id": pa.array([row.made_id for row in rows], pa.bool_()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), size),
    }
    table = pa.table(columns).replace_schema_metadata({_FACTS: facts.to_json().encode()})
    sink = pa.BufferOutputStream()
    compression = {"line": "zstd", "document": "zstd", "made_id": "none", "vector.list.element": "none"}
    parquet.write_table(table, sink, compression=compression, use_dictionary=False, write_page_checksum=True)
    try:
        path.parent.mkdir(exist_ok=True)
        write_file(path, [sink.getvalue()], draft=f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    except OSError as error:
        raise IndexFolderError(
            f"{path}: cannot be written ({error.strerror or one_line(error)}); what was encoded is kept: free some "
            "space and run this again"
        ) from error


def read_facts(path: Path) -> PartFacts | None:
    """The facts of a part; None if there is none that can be read."""
    from pyarrow import ArrowException, parquet

    try:
        with path.open("rb") as file:
            metadata = parquet.ParquetFile(file).schema_arrow.metadata
        return PartFacts.from_json(metadata[_FACTS])
    except (ArrowException, OSError, ValueError, LookupError, TypeError):
        return None


def read_part(path: Path) -> Part:
    """The rows of a part, compared with the checksums of its pages.

    Raises:
        IndexFolderError: It was altered; the file is removed, so that the next run makes it again.
    """
    from pyarrow import ArrowException, parquet

    try:
        with path.open("rb") as file:
            table = parquet.ParquetFile(file, page_checksum_verification=True).read()
        lines, documents, made = (table.column(name).to_pylist() for name in ("line", "document", "made_id"))
        vectors = table.column("vector").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    except (ArrowException, OSError, LookupError) as error:
        path.unlink(missing_ok=True)
        raise IndexFolderError(
            f"{path}: was altered ({one_line(error)}), and is removed; run this again to encode its documents again"
        ) from error
    rows = [
        PartRow(line, line if document == b"" else document, made_id)
        for line, document, made_id in zip(lines, documents, made, strict=True)
    ]
    size: Any = table.schema.field("vector").type.list_size
    return Part(rows, vectors.reshape(len(rows), size))
