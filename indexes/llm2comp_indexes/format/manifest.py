"""The manifest of an index: the file that names all others. Every field is checked before it is used."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llm2comp.atomic import write_file
from llm2comp.bundled_models import find_bundled
from llm2comp.checked_json import JsonFormat, check_checksum, signed, take, take_count, take_optional
from llm2comp.corpus.column_types import ColumnType
from llm2comp.corpus.fields import FieldNames
from llm2comp.corpus.sources import Source
from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import IndexFolderError, SettingsError, quote_path
from llm2comp_indexes.format.chunks import CHUNK_FIELDS, CHUNK_FIELDS_0_1, ChunkFields
from llm2comp_indexes.format.documents import ROW_BYTES
from llm2comp_indexes.format.files import FileRecord, check_size, parse_records
from llm2comp_indexes.format.ids import ID_BYTES
from llm2comp_indexes.format.origins import ORIGIN_BYTES
from llm2comp_indexes.format.vectors import storage_bytes
from llm2comp_indexes.options import IndexOptions

__all__ = [
    "MANIFEST",
    "PREVIOUS",
    "Manifest",
    "Names",
    "Segment",
    "check_folders",
    "manifest_state",
    "parse_encoder",
    "parse_sources",
    "read_manifest",
    "read_manifest_alone",
    "read_previous",
    "segment_folder",
    "write_manifest",
]

MANIFEST = "manifest.json"
PREVIOUS = "manifest.previous.json"
"""The manifest of the commit before, if its files are kept."""
_METRIC = "inner_product"
_FORMAT = JsonFormat("index manifest", IndexFolderError, "build the index again in a new folder", version=2)
_MOST_DIMENSIONS = 1 << 16
_MOST_ROWS = (1 << 32) - 1  # of a segment, whose id table holds rows in four bytes
_MOST_COMMITS = 1 << 40
_READ_TRIES = 20


class Names:
    """Names of files in a segment's folder."""

    VECTORS = "vectors.faiss"
    STRUCTURE = "index.faiss"
    DOCUMENTS = "documents.jsonl"
    OFFSETS = "documents.offsets"
    IDS = "documents.ids"
    METADATA = "metadata.arrow"
    REPORT = "report.json"
    QUERIES = "queries.npy"
    LEXICAL = "bm25"
    JOURNAL = "journal.jsonl"
    """Only in an unfinished segment."""
    ALWAYS = frozenset({VECTORS, DOCUMENTS, OFFSETS, IDS})

    @staticmethod
    def deleted(commit: int) -> str:
        """The bitmap of deleted rows that the commit of this number wrote."""
        return f"deleted-{commit:06d}"

    @staticmethod
    def origins(commit: int = 0) -> str:
        """The origins of rows that the commit of this number wrote for the segment; 0: with the segment."""
        return f"origins-{commit:06d}"

    @staticmethod
    def report(commit: int) -> str:
        """The report that the commit of this number wrote, with new measurements of an old segment."""
        return f"report-{commit:06d}.json"

    @staticmethod
    def queries(commit: int) -> str:
        """The queries of these measurements."""
        return f"queries-{commit:06d}.npy"


_SEGMENT_NAME = re.compile(r"[0-9]{6}")
_OPTIONAL = re.compile(
    "|".join(map(re.escape, (Names.STRUCTURE, Names.METADATA, Names.REPORT, Names.QUERIES)))
    + r"|(?:deleted|origins)-[0-9]{6,13}|report-[0-9]{6,13}\.json|queries-[0-9]{6,13}\.npy"
    + rf"|{Names.LEXICAL}/[A-Za-z0-9_][\w.]{{0,99}}",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Segment:
    """One folder under `segments/`.

    Attributes:
        name: Six digits.
        rows: Number of vectors and of documents (or chunks of documents) in its files, deleted ones included.
        deleted: Number of deleted rows.
        documents: Number of documents that are not deleted; fewer than rows where documents are split into chunks.
        type: FAISS factory string of its structure. `Flat` has no structure: all vectors are compared.
        files: Records by file name, relative to the folder.
    """

    name: str
    rows: int
    deleted: int
    documents: int
    type: str
    files: Mapping[str, FileRecord]

    @property
    def deleted_file(self) -> str | None:
        """Name of the bitmap of deleted rows."""
        return next((name for name in self.files if name.startswith("deleted-")), None)

    @property
    def report_file(self) -> str | None:
        """Name of the file of measurements."""
        return self._one_of("report")

    @property
    def queries_file(self) -> str | None:
        """Name of the file of the queries of these measurements."""
        return self._one_of("queries")

    def _one_of(self, kind: str) -> str | None:
        return next((name for name in self.files if name.startswith((f"{kind}.", f"{kind}-"))), None)

    @property
    def origins_file(self) -> str | None:
        """Name of the file of origins; None: older versions, and builds of vectors, recorded none."""
        return next((name for name in self.files if name.startswith("origins-")), None)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One commit of an index.

    Attributes:
        commit: Its number, counted from 1.
        model: Name of a bundled model, absolute path of a folder, or Hub id; None: the model was given as an object, or
            the vectors were made elsewhere.
        fingerprint: The model's fingerprint; only a model with the same one may search. Empty for vectors without one.
        dimension: Length of a vector; 0 in an index without documents, until the first vectors are added.
        options: The options that the index was built with.
        segments: In the order of their documents.
        created_by: Versions of the software that wrote it.
        chunk_fields: Names of the fields in the metadata of chunks.
        sources: Corpora that the documents came from; None: version 0.1.0 wrote the manifest, and recorded none.
        unlisted: Whether documents may be left from additions that recorded no source, with ids made by version 0.1.0.
        encoder: Options that change vectors, where they are not the defaults of the model.
    """

    commit: int
    model: str | None
    fingerprint: str
    dimension: int
    options: IndexOptions
    segments: tuple[Segment, ...]
    created_by: Mapping[str, str]
    chunk_fields: ChunkFields = CHUNK_FIELDS
    sources: tuple[Source, ...] | None = ()
    unlisted: bool = False
    encoder: EncoderOptions = EncoderOptions()

    @property
    def documents(self) -> int:
        """Number of documents in all segments, without deleted ones."""
        return sum(segment.documents for segment in self.segments)

    @property
    def rows(self) -> int:
        """Number of rows in all segments, without deleted ones."""
        return sum(segment.rows - segment.deleted for segment in self.segments)

    @property
    def bytes(self) -> int:
        """Size of all files of all segments, in bytes."""
        return sum(record.bytes for segment in self.segments for record in segment.files.values())


def segment_folder(folder: Path, segment: Segment | str) -> Path:
    """The folder of the segment's files."""
    return folder / "segments" / (segment if isinstance(segment, str) else segment.name)


def manifest_state(folder: Path) -> tuple[int, ...] | None:
    """Device, inode, size and time of the manifest, which differ after every commit; None if there is none."""
    try:
        status = (folder / MANIFEST).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Commits the manifest, atomically and durably. The files that it names must be durable already."""
    content: dict[str, Any] = {
        "format": _FORMAT.version,
        "created_by": dict(manifest.created_by),
        "commit": manifest.commit,
        "model": {"name": manifest.model, "fingerprint": manifest.fingerprint},
        "dimension": manifest.dimension,
        "metric": _METRIC,
        "options": manifest.options.to_json(),
        "documents": manifest.documents,
        "sources": [asdict(source) for source in manifest.sources or ()],
        "unlisted": manifest.unlisted,
        "segments": [asdict(segment) for segment in manifest.segments],
    }
    if encoder := manifest.encoder.to_json():
        content["encoder"] = encoder
    if manifest.options.chunk_tokens is not None and manifest.chunk_fields != CHUNK_FIELDS_0_1:
        content["chunk_fields"] = list(manifest.chunk_fields)
    text = _to_text(signed(content))
    if len(text) > _FORMAT.most_bytes:
        raise IndexFolderError(
            f"{folder}: {len(manifest.segments):,} segments are more than a manifest can hold; merge them: "
            f"llm2comp index merge {quote_path(folder)}"
        )
    write_file(folder / MANIFEST, [text], draft=f"{MANIFEST}.new")


def _to_text(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode()  # no line break at the end, so that every missing byte is noticed


def read_manifest(folder: Path) -> Manifest:
    """The checked manifest; every file that it names is a plain file of the recorded size.

    Raises:
        IndexFolderError: There is no index, or it is of another format, incomplete or altered.
    """
    for _ in range(_READ_TRIES):
        content = _load(folder)
        try:
            return _check(folder, content)
        except IndexFolderError:
            if _load(folder) == content:
                raise  # else a writer committed and removed old files meanwhile
    return _check(folder, _load(folder))


def read_previous(folder: Path, manifest: Manifest) -> Manifest | None:
    """The commit before the one of this manifest; None: it is not kept, or some of its files are gone."""
    path = folder / PREVIOUS
    if not path.is_file() or path.is_symlink():
        return None
    try:
        previous = _check(folder, _FORMAT.read(path))
    except IndexFolderError:
        return None
    return previous if previous.commit == manifest.commit - 1 else None  # else a killed run left it


def read_manifest_alone(folder: Path) -> Manifest:
    """The manifest, checked to the last byte, white space included. The files that it names are not checked.

    Raises:
        IndexFolderError: As `read_manifest`, or a byte differs from what was written.
    """
    content = _load(folder)
    manifest = _check_content(folder, content)
    if _FORMAT.read_bytes(folder / MANIFEST) != _to_text(content) and _load(folder) == content:
        raise IndexFolderError(
            f"{folder / MANIFEST}: altered (same content, but not the bytes that were written); build the index again"
        )
    return manifest


def _check(folder: Path, content: dict[str, Any]) -> Manifest:
    manifest = _check_content(folder, content)
    for segment in manifest.segments:
        check_folders(folder, segment)
        for name, record in segment.files.items():
            check_size(segment_folder(folder, segment) / name, record)
    return manifest


def _check_content(folder: Path, content: dict[str, Any]) -> Manifest:
    _FORMAT.check_version(content, folder / MANIFEST)
    with _FORMAT.parsing(folder / MANIFEST):
        return _parse(content)


def check_folders(folder: Path, segment: Segment) -> None:
    """Raises IndexFolderError if a folder of the segment is a link."""
    inside = segment_folder(folder, segment)
    for parent in (inside.parent, inside, inside / Names.LEXICAL):
        if parent.is_symlink():
            raise IndexFolderError(f"{parent}: a link, expected a folder; copy the index with the files it links to")


def _load(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if folder.exists() and not folder.is_dir():
        raise IndexFolderError(
            f"{folder}: a file, expected the folder of an index; to make one of it: llm2comp index build "
            f"{quote_path(folder)} -o FOLDER"
        )
    if not folder.is_dir():
        raise IndexFolderError(
            f"{folder}: no such index folder; build one with: llm2comp index build CORPUS -o {quote_path(folder)}"
        )
    if not path.is_file() or path.is_symlink():
        raise IndexFolderError(_format_missing(folder, path))
    return _FORMAT.read(path)


def _format_missing(folder: Path, path: Path) -> str:
    """Error message for a folder without a manifest: what it holds instead."""
    if os.path.lexists(path):
        return f"{path}: not a plain file; build the index again"
    if any(folder.glob(f"segments/*/{Names.JOURNAL}")):
        return f"{folder}: holds no finished index, only an unfinished build; run its command again to continue it"
    if any(folder.glob(f"segments/*/{Names.VECTORS}")):
        return f"{path}: missing, though files of an index are there; build the index again in a new folder"
    return f"{folder}: holds no index (no {MANIFEST}); build one with: llm2comp index build CORPUS -o FOLDER"


def _parse(content: dict[str, Any]) -> Manifest:
    check_checksum(content)
    if content.get("metric") != _METRIC:
        raise ValueError(f'metric {content.get("metric")!r}, expected "{_METRIC}"')
    model = take(content, "model", dict)
    dimension = take_count(content, "dimension", 1 if content.get("segments") else 0, _MOST_DIMENSIONS)
    options = IndexOptions.from_json(take(content, "options", dict))
    segments = tuple(_parse_segment(segment, dimension, options) for segment in take(content, "segments", list))
    if len({segment.name for segment in segments}) != len(segments):
        raise ValueError("two segments have the same name")
    commit, fingerprint = take_count(content, "commit", 1, _MOST_COMMITS), take(model, "fingerprint", str)
    manifest = Manifest(
        commit,
        take_optional(model, "name", str) or find_bundled(fingerprint),  # 0.1.0 left bundled models without a name
        fingerprint,
        dimension,
        options,
        segments,
        take(content, "created_by", dict),
        _parse_chunk_fields(content, options),
        parse_sources(content),
        take(content, "unlisted", bool) if "sources" in content else True,
        parse_encoder(content),
    )
    if take_count(content, "documents", 0, 1 << 50) != manifest.documents:
        raise ValueError("the number of documents is not the sum of its segments")
    return manifest


def _parse_chunk_fields(content: dict[str, Any], options: IndexOptions) -> ChunkFields:
    """Names of the fields of chunks, which version 0.1.0 did not record."""
    if "chunk_fields" not in content:
        return CHUNK_FIELDS if options.chunk_tokens is None else CHUNK_FIELDS_0_1
    if content["chunk_fields"] != list(CHUNK_FIELDS):
        raise ValueError(f"chunk_fields {content['chunk_fields']!r:.80}, expected {list(CHUNK_FIELDS)}")
    return CHUNK_FIELDS


def parse_encoder(content: Mapping[str, Any]) -> EncoderOptions:
    """The options of the encoder in a manifest or a shard, which older versions did not record.

    Raises:
        ValueError: They are malformed.
    """
    return EncoderOptions.from_json(take(content, "encoder", dict)) if "encoder" in content else EncoderOptions()


def parse_sources(content: Mapping[str, Any]) -> tuple[Source, ...] | None:
    """The sources of a manifest or a shard; None: version 0.1.0 wrote it.

    Raises:
        ValueError: The list is malformed, or two sources have the same name.
    """
    if "sources" not in content:
        return None
    entries = take(content, "sources", list)
    if not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("a source is not an object")
    sources = tuple(
        Source(
            take(entry, "name", str),
            take_optional(entry, "root", str),
            take(entry, "positions", bool),
            take(entry, "paths", bool) if "paths" in entry else True,  # unknown: they may be
            _parse_fields(take(entry, "fields", dict)) if "fields" in entry else FieldNames(),
            take(entry, "strings", bool) if "strings" in entry else True,  # before types were kept
            _parse_columns(take(entry, "columns", list)) if "columns" in entry else (),
            take(entry, "files", bool) if "files" in entry else False,
        )
        for entry in entries
    )
    if len({source.name for source in sources}) != len(sources):
        raise ValueError("two sources have the same name")
    return sources


def _parse_fields(content: dict[str, Any]) -> FieldNames:
    """The fields of a source's rows.

    Raises:
        ValueError: They are malformed.
    """
    text, metadata = take(content, "text", list), take_optional(content, "metadata", list)
    if not all(isinstance(name, str) for name in (*text, *(metadata or ()))):
        raise ValueError("the name of a field is no string")
    try:
        return FieldNames(
            take_optional(content, "id", str),
            take_optional(content, "title", str),
            tuple(text),
            None if metadata is None else tuple(metadata),
        )
    except SettingsError as error:
        raise ValueError(str(error)) from None


def _parse_columns(content: list[Any]) -> tuple[tuple[str, str], ...]:
    """Names and types of a source's columns.

    Raises:
        ValueError: They are malformed.
    """
    types = frozenset(ColumnType)
    if not all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and pair[1] in types for pair in content
    ):
        raise ValueError("the columns of a source are no pairs of a name and a type")
    return tuple((name, type_) for name, type_ in content)


def _parse_segment(content: Any, dimension: int, options: IndexOptions) -> Segment:
    if not isinstance(content, dict) or not _SEGMENT_NAME.fullmatch(take(content, "name", str)):
        raise ValueError("a segment's name is not six digits")
    name = content["name"]
    rows = take_count(content, "rows", 1, _MOST_ROWS)
    deleted = take_count(content, "deleted", 0, rows)
    documents = take_count(content, "documents", 0, rows - deleted)
    files = parse_records(content)
    for file in files:
        if file not in Names.ALWAYS and not _OPTIONAL.fullmatch(file):
            raise ValueError(f"segment {name} has a file {file[:80]!r}, which no segment has")
    segment = Segment(name, rows, deleted, documents, take(content, "type", str), files)
    if missing := Names.ALWAYS - set(files):
        raise ValueError(f"segment {name} is without {', '.join(sorted(missing))}")
    if (segment.type == "Flat") == (Names.STRUCTURE in files):
        raise ValueError(f"segment {name} is of type {segment.type[:80]!r}, which does not fit its files")
    _check_sizes(
        segment,
        {
            Names.VECTORS: storage_bytes(rows, dimension, options.store),
            Names.OFFSETS: ROW_BYTES * rows,
            Names.IDS: ID_BYTES * rows,
        },
    )
    if (deleted > 0) != (segment.deleted_file is not None) or sum(file.startswith("deleted-") for file in files) > 1:
        raise ValueError(f"segment {name} has {deleted} deleted rows, which does not fit its files")
    if segment.deleted_file:
        _check_sizes(segment, {segment.deleted_file: -(-rows // 8)})
    if sum(file.startswith("origins-") for file in files) > 1:
        raise ValueError(f"segment {name} has two files of origins")
    for kind in ("report", "queries"):
        if sum(file.startswith((f"{kind}.", f"{kind}-")) for file in files) > 1:
            raise ValueError(f"segment {name} has two files of {kind}")
    if (origins := segment.origins_file) and files[origins].bytes not in [size * rows for size in ORIGIN_BYTES]:
        raise ValueError(f"{origins} of segment {name} has {files[origins].bytes:,} bytes, which does not fit its rows")
    return segment


def _check_sizes(segment: Segment, expected: Mapping[str, int]) -> None:
    for name, size in expected.items():
        if segment.files[name].bytes != size:
            raise ValueError(
                f"{name} of segment {segment.name} has {segment.files[name].bytes:,} bytes, which does not fit "
                f"{segment.rows:,} rows"
            )
