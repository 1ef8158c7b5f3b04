"""The manifest of an index: the file that names all others. Every field is checked before it is used."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llm2comp.atomic import write_file
from llm2comp.bundled_models import find_bundled
from llm2comp.checked_json import JsonFormat, check_checksum, signed, take, take_count, take_optional
from llm2comp.corpus.sources import Source
from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import IndexFolderError, quote_path
from llm2comp_indexes.format.chunks import CHUNK_FIELDS, CHUNK_FIELDS_0_1, ChunkFields
from llm2comp_indexes.format.files import check_size
from llm2comp_indexes.format.memory_vectors import MemoryForm
from llm2comp_indexes.format.segment import Names, Segment, check_folders, parse_segment, segment_folder
from llm2comp_indexes.format.source_list import parse_sources
from llm2comp_indexes.options import IndexOptions

__all__ = [
    "MANIFEST",
    "PREVIOUS",
    "Manifest",
    "manifest_state",
    "memory_form",
    "parse_encoder",
    "read_manifest",
    "read_manifest_alone",
    "read_previous",
    "write_manifest",
]

MANIFEST = "manifest.json"
PREVIOUS = "manifest.previous.json"
"""The manifest of the commit before, if its files are kept."""
_METRIC = "inner_product"
_FORMAT = JsonFormat("index manifest", IndexFolderError, "build the index again in a new folder", version=2)
_MOST_DIMENSIONS = 1 << 16
_MOST_COMMITS = 1 << 40
_MOST_MEMORY_TOKENS = 1 << 12
_READ_TRIES = 20


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
        memory_tokens: k, if the vectors of memory tokens are stored; else 0.
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
    memory_tokens: int = 0

    @property
    def memory(self) -> MemoryForm | None:
        """How the vectors of memory tokens are stored; None: they are not."""
        return memory_form(self.options, self.memory_tokens, self.dimension)

    @property
    def documents(self) -> int:
        """Number of documents in all segments, without deleted ones."""
        return sum(segment.documents for segment in self.segments)

    @property
    def rows(self) -> int:
        """Number of rows in all segments, without deleted ones."""
        return sum(segment.rows - segment.deleted for segment in self.segments)

    @property
    def memory_bytes(self) -> int:
        """Size of the files of vectors of memory tokens, in bytes."""
        files = (segment.files.get(Names.MEMORY) for segment in self.segments)
        return sum(record.bytes for record in files if record is not None)

    @property
    def bytes(self) -> int:
        """Size of all files of all segments, in bytes."""
        return sum(record.bytes for segment in self.segments for record in segment.files.values())


def memory_form(options: IndexOptions, tokens: int, dimension: int) -> MemoryForm | None:
    """How an index with these options stores the vectors of `tokens` memory tokens; None: it does not."""
    return None if options.memory_vectors is None else MemoryForm(options.memory_vectors, tokens, dimension)


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
    if manifest.options.memory_vectors is not None:
        content["memory_tokens"] = manifest.memory_tokens
    if encoder := manifest.encoder.to_json():
        content["encoder"] = encoder
    if manifest.options.has_chunks and manifest.chunk_fields != CHUNK_FIELDS_0_1:
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
    tokens = 0 if options.memory_vectors is None else take_count(content, "memory_tokens", 1, _MOST_MEMORY_TOKENS)
    memory = memory_form(options, tokens, dimension)
    segments = tuple(parse_segment(entry, dimension, options, memory) for entry in take(content, "segments", list))
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
        tokens,
    )
    if take_count(content, "documents", 0, 1 << 50) != manifest.documents:
        raise ValueError("the number of documents is not the sum of its segments")
    return manifest


def _parse_chunk_fields(content: dict[str, Any], options: IndexOptions) -> ChunkFields:
    """Names of the fields of chunks, which version 0.1.0 did not record."""
    if "chunk_fields" not in content:
        return CHUNK_FIELDS_0_1 if options.has_chunks else CHUNK_FIELDS
    if content["chunk_fields"] != list(CHUNK_FIELDS):
        raise ValueError(f"chunk_fields {content['chunk_fields']!r:.80}, expected {list(CHUNK_FIELDS)}")
    return CHUNK_FIELDS


def parse_encoder(content: Mapping[str, Any]) -> EncoderOptions:
    """The options of the encoder in a manifest or a shard, which older versions did not record.

    Raises:
        ValueError: They are malformed.
    """
    return EncoderOptions.from_json(take(content, "encoder", dict)) if "encoder" in content else EncoderOptions()
