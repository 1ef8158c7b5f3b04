"""The manifest of an index: the one file that says what the folder holds. Nothing in it is believed before it is checked."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from llm2comp.errors import IndexFolderError
from llm2comp_indexes.checked_files import FileRecord, HashedFile, check_size
from llm2comp_indexes.documents import ROW_BYTES
from llm2comp_indexes.vectors import flat_file_bytes

__all__ = ["DOCUMENTS", "MANIFEST", "OFFSETS", "VECTORS", "Manifest", "Segment", "read_manifest", "write_manifest"]

MANIFEST = "manifest.json"
VECTORS = "vectors.faiss"
DOCUMENTS = "documents.jsonl"
OFFSETS = "documents.offsets"
_FORMAT = 1
_FACTORY = "Flat"
_METRIC = "inner_product"
_SEGMENT_NAME = re.compile(r"[0-9]{6}")
_MOST_BYTES = 16 << 20  # of the manifest itself
_MOST_DIMENSIONS = 1 << 16
_MOST_DOCUMENTS = 1 << 40
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Segment:
    """One folder under `segments/`: its name (six digits), how many documents, and the records of its files by name."""

    name: str
    documents: int
    files: Mapping[str, FileRecord]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an index folder holds.

    Attributes:
        model: Name or folder to load the model by; None: the bundled model, or one that was given as an object.
        fingerprint: The model's; only a model with the same one may search.
        dimension: Numbers in a vector.
        segments: In the order of their documents.
        created_by: Versions of the software that wrote it.
    """

    model: str | None
    fingerprint: str
    dimension: int
    segments: tuple[Segment, ...]
    created_by: Mapping[str, str]

    @property
    def documents(self) -> int:
        """Documents in all segments."""
        return sum(segment.documents for segment in self.segments)

    @property
    def bytes(self) -> int:
        """Size of all files of all segments."""
        return sum(record.bytes for segment in self.segments for record in segment.files.values())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes a new `manifest.json`, durable on return."""
    content: dict[str, Any] = {
        "format": _FORMAT,
        "created_by": dict(manifest.created_by),
        "model": {"name": manifest.model, "fingerprint": manifest.fingerprint},
        "dimension": manifest.dimension,
        "metric": _METRIC,
        "factory": _FACTORY,
        "documents": manifest.documents,
        "segments": [asdict(segment) for segment in manifest.segments],
    }
    content["checksum"] = _checksum(content)
    with HashedFile(folder / MANIFEST) as file:
        file.write(json.dumps(content, indent=1).encode())  # no line break at the end: each byte counts, so a cut one is noticed
        file.finish()


def read_manifest(folder: Path) -> Manifest:
    """The manifest, after it was checked and every file it names was found to be a plain file of the recorded size.

    Raises:
        IndexFolderError: No index there, one of a newer format, or one that is incomplete or altered.
    """
    content = _load(folder)
    if type(content.get("format")) is not int or content["format"] < 1:
        raise IndexFolderError(f"{folder / MANIFEST}: not the manifest of an index (no format number)")
    if content["format"] > _FORMAT:
        raise IndexFolderError(f"{folder}: index format {content['format']}, this llm2comp reads up to {_FORMAT}: pip install --upgrade llm2comp")
    try:
        manifest = _parse(content)
    except (ValueError, RecursionError) as error:
        raise IndexFolderError(f"{folder / MANIFEST}: damaged or altered: {error}; build the index again") from error
    for segment in manifest.segments:
        for name, record in segment.files.items():
            check_size(_segment_file(folder, segment, name), record)
    return manifest


def _segment_file(folder: Path, segment: Segment, name: str) -> Path:
    for parent in (folder / "segments", folder / "segments" / segment.name):
        if parent.is_symlink():
            raise IndexFolderError(f"{parent}: a link, expected a folder; copy the index with the files it links to")
    return folder / "segments" / segment.name / name


def _load(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not folder.is_dir():
        raise IndexFolderError(f"{folder}: no such index folder; build one with: llm2comp index build CORPUS -o {folder}")
    if not path.is_file() or path.is_symlink():
        raise IndexFolderError(f"{folder}: holds no index (no {MANIFEST}); build one with: llm2comp index build CORPUS -o FOLDER")
    if os.path.getsize(path) > _MOST_BYTES:
        raise IndexFolderError(f"{path}: larger than {_MOST_BYTES:,} bytes, so not a manifest of ours")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise IndexFolderError(f"{path}: not JSON ({error}); the file was cut or altered: build the index again") from error
    if not isinstance(content, dict):
        raise IndexFolderError(f"{path}: not the manifest of an index (not a JSON object)")
    return content


def _parse(content: dict[str, Any]) -> Manifest:
    if _take(content, "checksum", str) != _checksum(content):
        raise ValueError("its content does not match its checksum")
    if (content.get("factory"), content.get("metric")) != (_FACTORY, _METRIC):
        raise ValueError(f'index type {content.get("factory")!r} with metric {content.get("metric")!r}, expected "{_FACTORY}" with "{_METRIC}"')
    model = _take(content, "model", dict)
    name = model.get("name")
    if not isinstance(name, str | None):
        raise ValueError("the model's name is not a string")
    dimension = _count(content, "dimension", _MOST_DIMENSIONS)
    segments = tuple(_parse_segment(segment, dimension) for segment in _take(content, "segments", list))
    if len({segment.name for segment in segments}) != len(segments):
        raise ValueError("a segment is named twice")
    manifest = Manifest(name, _take(model, "fingerprint", str), dimension, segments, _take(content, "created_by", dict))
    if _count(content, "documents", _MOST_DOCUMENTS) != manifest.documents:
        raise ValueError("the number of documents is not the sum of its segments")
    return manifest


def _parse_segment(content: Any, dimension: int) -> Segment:
    if not isinstance(content, dict) or not _SEGMENT_NAME.fullmatch(_take(content, "name", str)):
        raise ValueError("a segment's name is not six digits")
    documents = _count(content, "documents", _MOST_DOCUMENTS)
    given = _take(content, "files", dict)
    if set(given) != {VECTORS, DOCUMENTS, OFFSETS}:
        raise ValueError(f"the files of segment {content['name']} are not {VECTORS}, {DOCUMENTS}, {OFFSETS}")
    files = {}
    for name in given:
        record = _take(given, name, dict)
        files[name] = FileRecord(_count(record, "bytes", 1 << 60), _take(record, "sha256", str))
    if (files[VECTORS].bytes, files[OFFSETS].bytes) != (flat_file_bytes(documents, dimension), ROW_BYTES * documents):
        raise ValueError(f"the file sizes of segment {content['name']} do not fit {documents:,} documents of dimension {dimension}")
    return Segment(content["name"], documents, files)


def _take(content: dict[str, Any], name: str, kind: type[_T]) -> _T:
    value = content.get(name)
    if type(value) is not kind:
        raise ValueError(f'"{name}" is not of type {kind.__name__}')
    return value


def _count(content: dict[str, Any], name: str, most: int) -> int:
    value = _take(content, name, int)
    if not 1 <= value <= most:
        raise ValueError(f'"{name}" is {value}, expected 1 to {most}')
    return value


def _checksum(content: dict[str, Any]) -> str:
    rest = {name: value for name, value in content.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
