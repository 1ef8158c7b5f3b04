"""Metadata of a segment's documents as columns of a mapped Arrow file, for filters. Checked before it is used."""

import io
import logging
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Self, get_args

from llm2comp.corpus.documents import Document
from llm2comp.corpus.scalars import is_same
from llm2comp.errors import IndexFolderError, one_line
from llm2comp_indexes.format.columns import Kind, encodable, to_kinds
from llm2comp_indexes.format.files import FileRecord, HashedFile
from llm2comp_indexes.format.mapping import Bytes, map_file

__all__ = [
    "MOST_COLUMNS",
    "Block",
    "Metadata",
    "MetadataWriter",
    "find_shared_name",
    "open_metadata",
]

logger = logging.getLogger(__name__)

MOST_COLUMNS = 1000
"""Maximum number of columns. Fields beyond it cannot be filtered by (some corpora use ids as field names)."""

_MOST_LEVELS = 8  # of nested objects
_BATCH_ROWS = 1 << 14
_BATCH_CHARACTERS = 1 << 24
_LEFT_OUT = b"left out"
_MAGIC, _END_MAGIC = b"ARROW1\0\0", b"ARROW1"


class MetadataWriter:
    """Writes metadata into a new Arrow IPC file (uncompressed; pyarrow, polars and DuckDB read it too).

    Values of a field may be of several types, so a column is named by type and field, such as `integer:year` or
    `text:year`: whole numbers of 64 bits, other numbers (double), whole numbers that neither holds (`large`, as
    hexadecimal text), truth values, texts, and lists of texts, of numbers and of truth values. Dates are texts (ISO).
    A list of several types, or with a whole number that no double holds, is kept in order too (`items`, a text for each
    item). An object is the list of its names; its values are fields `outer.inner`, down to 8 levels. Null and NaN are
    left out; what else a list holds (nulls, objects, lists) is a null in its list of truth values.

    Memory does not grow with rows: batches of 16,384 documents are kept in a temporary file beside `path` until all
    columns are known.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._spool_path = path.with_name(path.name + ".spool")
        self._spool: IO[bytes] = self._spool_path.open("w+b")
        self._columns: dict[str, None] = {}
        self._left_out = False
        self._batch = _Batch()
        self._batches: list[int] = []  # number of rows of each

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._spool.close()
        self._spool_path.unlink(missing_ok=True)

    def add(self, documents: Iterable[Document]) -> None:
        """Appends the documents' metadata, one row each."""
        for document in documents:
            self._batch.add(document.metadata)
            if self._batch.rows >= _BATCH_ROWS or self._batch.characters >= _BATCH_CHARACTERS:
                self._flush()

    def finish(self) -> FileRecord | None:
        """Record of the file, after it is on the device; None, and no file, if no document has metadata."""
        with self:
            self._flush()
            return self._write() if self._columns else None

    def _flush(self) -> None:
        import pyarrow as pa

        names = [name for name in self._batch.columns if self._keep(name)]
        batch = pa.record_batch([self._batch.to_array(name) for name in names], names=names)
        with pa.ipc.new_stream(self._spool, batch.schema) as stream:
            stream.write_batch(batch)
        self._batches.append(self._batch.rows)
        self._batch = _Batch()

    def _keep(self, name: str) -> bool:
        """Whether the column is kept; a new one is while there are fewer than MOST_COLUMNS."""
        if name not in self._columns and len(self._columns) >= MOST_COLUMNS:
            if not self._left_out:
                logger.warning(
                    'metadata has more than %d fields; from "%s" on, new ones cannot be filtered by',
                    MOST_COLUMNS,
                    name.partition(":")[2],
                )
            self._left_out = True
            return False
        self._columns.setdefault(name)
        return True

    def _write(self) -> FileRecord:
        import pyarrow as pa

        schema = pa.schema(
            [(name, _to_type(name)) for name in self._columns], metadata={_LEFT_OUT: b"1"} if self._left_out else None
        )
        self._spool.seek(0)
        with HashedFile(self._path) as file:
            with pa.ipc.new_file(_Sink(file), schema) as target:
                for rows in self._batches:
                    batches = pa.ipc.open_stream(self._spool).read_all().to_batches()
                    present = {name: batches[0].column(name) for name in batches[0].schema.names} if batches else {}
                    columns = [present.get(name) for name in self._columns]
                    filled = [
                        pa.nulls(rows, field.type) if column is None else column
                        for field, column in zip(schema, columns, strict=True)
                    ]
                    target.write_batch(pa.record_batch(filled, schema=schema))
            return file.finish()


class _Batch:
    """Values of some documents: by column, then by row."""

    def __init__(self) -> None:
        self.rows = 0
        self.characters = 0
        self.columns: dict[str, dict[int, Any]] = {}

    def add(self, metadata: dict[str, Any]) -> None:
        for field, value in _flatten(metadata):
            for kind, content in to_kinds(value):
                self.columns.setdefault(f"{kind}:{encodable(field)}", {})[self.rows] = content
                self.characters += _count_characters(kind, content)
        self.rows += 1

    def to_array(self, name: str) -> Any:
        import pyarrow as pa

        values: list[Any] = [None] * self.rows
        for row, value in self.columns[name].items():
            values[row] = value
        return pa.array(values, type=_to_type(name))


def _count_characters(kind: Kind, content: Any) -> int:
    if kind in ("text", "large"):
        return len(content)
    return sum(map(len, content)) if kind in ("texts", "items", "object") else 0


def _flatten(metadata: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Fields with their values, objects included, and the fields within them."""
    pending = [("", metadata, 1)]
    while pending:
        prefix, fields, depth = pending.pop()
        for name, value in fields.items():
            yield f"{prefix}{name}", value
            if isinstance(value, dict) and depth < _MOST_LEVELS:
                pending.append((f"{prefix}{name}.", value, depth + 1))


def find_shared_name(metadata: dict[str, Any]) -> str | None:
    """A name under which filters would see two values of the document, such as `a.b` beside `b` within `a`."""
    if not any(isinstance(value, dict) for value in metadata.values()):
        return None
    values: dict[str, Any] = {}
    for name, value in _flatten(metadata):
        if value is None:
            continue
        if name in values and not is_same(values[name], value):
            return name
        values[name] = value
    return None


def _to_type(name: str) -> Any:
    """The Arrow type of the column."""
    import pyarrow as pa

    kind = name.partition(":")[0]
    types = {"integer": pa.int64(), "number": pa.float64(), "flag": pa.bool_(), "text": pa.string()}
    types |= {"large": pa.string(), "numbers": pa.list_(pa.float64()), "flags": pa.list_(pa.bool_())}
    return types.get(kind) or pa.list_(pa.string())


class _Sink(io.RawIOBase):
    """A stream through which Arrow writes into a hashed file."""

    def __init__(self, file: HashedFile) -> None:
        self._file = file
        self._end = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._end

    def write(self, data: Any, /) -> int:
        self._file.write(content := bytes(data))
        self._end += len(content)
        return len(content)


def open_metadata(path: Path, rows: int, *, content: Bytes | None = None) -> "Metadata":
    """The mapped metadata that `MetadataWriter` wrote.

    The schema, every batch's layout and the number of rows are checked here; each column's contents are validated when
    they are first used.

    Args:
        path: The file.
        rows: Number of rows that it must have.
        content: Its bytes, if the caller has mapped it already.

    Raises:
        IndexFolderError: The file is missing, altered, compressed, or has other columns or another number of rows.
    """
    try:
        return Metadata(path, rows, content)
    except Exception as error:  # pyarrow raises a dozen types for a file that is not Arrow
        if isinstance(error, IndexFolderError):
            raise
        raise _damage(path, one_line(error)) from error


def _damage(path: Path, what: str) -> IndexFolderError:
    return IndexFolderError(f"{path}: {what}; the file was cut or altered: build the index again")


class Block:
    """Consecutive rows of the metadata."""

    def __init__(self, path: Path, batch: Any) -> None:
        self.rows: int = batch.num_rows
        self._path = path
        self._batch = batch
        self._valid: set[str] = set()

    def column(self, kind: Kind, field: str) -> Any:
        """The field's values of that type, an Arrow array (rows,).

        Null where the document has none; None if no document has one.

        Raises:
            IndexFolderError: The column's contents are not valid.
        """
        name = f"{kind}:{field}"
        if (place := self._batch.schema.get_field_index(name)) < 0:
            return None
        column = self._batch.column(place)
        if name not in self._valid:
            try:
                column.validate(full=True)
                if kind == "large":
                    _check_digits(column)
            except Exception as error:  # of several types, as above
                raise _damage(self._path, f'the field "{field}": {error}') from error
            self._valid.add(name)
        return column


def _check_digits(column: Any) -> None:
    import pyarrow.compute as pc

    if pc.any(pc.invert(pc.match_substring_regex(column, r"^-?[0-9a-f]+$"))).as_py():
        raise ValueError("a whole number that is none")


class Metadata:
    """The mapped metadata of a segment, as `open_metadata` returns it.

    Attributes:
        rows: Number of documents.
        fields: Types by field name.
        left_out: Whether there were more than MOST_COLUMNS, so that some are missing.
        blocks: All rows, in order.
    """

    def __init__(self, path: Path, rows: int, content: Bytes | None = None) -> None:
        import pyarrow as pa

        source = pa.BufferReader(pa.py_buffer(map_file(path) if content is None else content))
        if (
            source.size() < 2 * len(_MAGIC)
            or source.read(len(_MAGIC)) != _MAGIC
            or source.read_at(6, source.size() - 6) != _END_MAGIC
        ):
            raise _damage(path, "not an Arrow file")
        source.seek(len(_MAGIC))
        # The file is read as the stream that it contains. Its footer, which lists the same batches again, is not used.
        messages = pa.ipc.MessageReader.open_stream(source)
        schema = pa.ipc.read_schema(_check_message(path, messages.read_next_message(), "schema"))
        self.rows = rows
        self.fields = _read_fields(path, schema)
        self.left_out = bool(schema.metadata and _LEFT_OUT in schema.metadata)
        self.blocks = tuple(_read_blocks(path, messages, schema))
        if (total := sum(block.rows for block in self.blocks)) != rows:
            raise _damage(path, f"{total:,} rows, expected {rows:,}")


def _read_fields(path: Path, schema: Any) -> dict[str, frozenset[Kind]]:
    fields: dict[str, frozenset[Kind]] = {}
    if len(schema) > MOST_COLUMNS or len(set(schema.names)) != len(schema):
        raise _damage(path, f"{len(schema)} columns, expected up to {MOST_COLUMNS} different ones")
    for column in schema:
        kind, _, field = column.name.partition(":")
        if kind not in get_args(Kind) or not column.type.equals(_to_type(column.name)):
            raise _damage(path, f'a column "{column.name}" of type {column.type}')
        fields[field] = fields.get(field, frozenset()) | {kind}
    return fields


def _read_blocks(path: Path, messages: Any, schema: Any) -> Iterator[Block]:
    import pyarrow as pa

    for message in messages:
        batch = pa.ipc.read_record_batch(_check_message(path, message, "record batch"), schema)
        batch.validate()
        yield Block(path, batch)


def _check_message(path: Path, message: Any, kind: str) -> Any:
    if message.type != kind:
        raise _damage(path, f"a {message.type} where a {kind} was expected")
    if kind == "record batch" and _is_compressed(memoryview(message.metadata)):
        raise _damage(path, "compressed, which files of this package never are")
    return message


def _is_compressed(message: memoryview) -> bool:
    """Whether a record batch's message (a flatbuffer) names a compression.

    This must be known before pyarrow unpacks it, as the result may be huge.
    """

    def find(table: int, field: int) -> int:
        """Offset of the table's field; 0 if it has none."""
        vtable = table - struct.unpack_from("<i", message, table)[0]
        slots = (struct.unpack_from("<H", message, vtable)[0] - 4) // 2
        offset: int = struct.unpack_from("<H", message, vtable + 4 + 2 * field)[0] if field < slots else 0
        return offset and table + offset

    # Fields of a Message: version, header_type, header. Of a RecordBatch: length, nodes, buffers, compression.
    header = find(struct.unpack_from("<I", message, 0)[0], 2)
    return bool(find(header + struct.unpack_from("<I", message, header)[0], 3))
