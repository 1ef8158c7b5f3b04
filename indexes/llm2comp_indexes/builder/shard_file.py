"""Shards: vectors of a part of a corpus, each made on one of several hosts or GPUs.

A shard is a folder with `shard.json` and the files of its rows.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from llm2comp.atomic import write_file
from llm2comp.bundled_models import find_bundled
from llm2comp.checked_json import JsonFormat, check_checksum, signed, take, take_count, take_digest, take_optional
from llm2comp.corpus.sources import Source
from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import IndexFolderError, SettingsError
from llm2comp_indexes.format.documents import ROW_BYTES
from llm2comp_indexes.format.files import FileRecord, check_size, parse_records
from llm2comp_indexes.format.ids import ID_BYTES
from llm2comp_indexes.format.manifest import parse_encoder
from llm2comp_indexes.format.segment import Names
from llm2comp_indexes.format.segment_writer import JOURNAL
from llm2comp_indexes.format.source_list import parse_sources
from llm2comp_indexes.format.vectors import storage_bytes
from llm2comp_indexes.options import IndexOptions, read_chunks

__all__ = ["ROWS", "SHARD", "Part", "Shard", "find_shards", "parse_part", "read_shard", "write_shard"]

SHARD = "shard.json"
ROWS = "rows"
"""Name of the folder with the files of a shard's rows."""
_FORMAT = JsonFormat(
    "shard manifest",
    IndexFolderError,
    "make the shard again with llm2comp encode --overwrite",
    most_bytes=1 << 20,
    version=1,
)
_MOST_SHARDS = 1 << 20
_MOST_ROWS = (1 << 32) - 1
_FOLDER = re.compile(r"shard-([0-9]{1,7})-of-([0-9]{1,7})", re.ASCII)
_MOST_NAMED = 8
"""Maximum number of missing shards that a message names."""


class Part(NamedTuple):
    """A part of a corpus, shard I of N: the documents whose number (from 0) modulo N is I - 1."""

    shard: int
    shards: int

    def __str__(self) -> str:
        return f"shard {self.shard} of {self.shards}"

    @property
    def folder(self) -> str:
        """Name of the folder of the shard."""
        return f"shard-{self.shard}-of-{self.shards}"

    def documents_of(self, total: int) -> int:
        """Number of documents in the part, of `total` documents."""
        return len(range(self.shard - 1, total, self.shards))


def parse_part(text: str) -> Part:
    """The part that `I/N` names, such as 2/3: the second of three.

    Raises:
        SettingsError: The text has another form, or I is not from 1 to N.
    """
    match = re.fullmatch(r"([0-9]{1,7})/([0-9]{1,7})", text.strip(), re.ASCII)
    if not match or not 1 <= int(match[1]) <= int(match[2]) <= _MOST_SHARDS:
        raise SettingsError(
            f"shard is {text[:40]!r}, expected I/N with I from 1 to N, such as 1/4, 2/4, 3/4 and 4/4 on four hosts"
        )
    return Part(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class Shard:
    """Content of `shard.json`.

    Attributes:
        part: Which part of the corpus.
        model: Name of a bundled model, absolute path of a folder on the host that made the shard, or Hub id; None: the
            model was given as an object.
        fingerprint: The model's fingerprint.
        dimension: Length of a vector.
        options: Store and chunking; other options are not used.
        rows: Number of vectors in the shard.
        documents: Number of documents in the shard.
        corpus_documents: Number of documents in the whole corpus.
        corpus_sha256: SHA-256 of the lines of all documents of the corpus, equal for all its shards.
        files: Records by file name.
        created_by: Versions of the software that wrote it.
        sources: Corpora that were read; None: version 0.1.0 wrote it.
        encoder: Options that change vectors, where they are not the defaults of the model.
    """

    part: Part
    model: str | None
    fingerprint: str
    dimension: int
    options: IndexOptions
    rows: int
    documents: int
    corpus_documents: int
    corpus_sha256: str
    files: Mapping[str, FileRecord]
    created_by: Mapping[str, str]
    sources: tuple[Source, ...] | None = ()
    encoder: EncoderOptions = EncoderOptions()


def write_shard(folder: Path, shard: Shard) -> None:
    """Finishes the shard, atomically and durably. The files that it names must be durable already."""
    content: dict[str, Any] = {
        "format": _FORMAT.version,
        "created_by": dict(shard.created_by),
        "shard": shard.part.shard,
        "shards": shard.part.shards,
        "model": {"name": shard.model, "fingerprint": shard.fingerprint},
        "dimension": shard.dimension,
        "store": shard.options.store,
        "chunk_tokens": shard.options.chunk_tokens,
        "chunk_overlap": shard.options.chunk_overlap,
        **shard.options.chunk_json(),
        "rows": shard.rows,
        "documents": shard.documents,
        "corpus": {"documents": shard.corpus_documents, "sha256": shard.corpus_sha256},
        "sources": [asdict(source) for source in shard.sources or ()],
        "files": {name: asdict(record) for name, record in shard.files.items()},
    }
    if encoder := shard.encoder.to_json():
        content["encoder"] = encoder
    write_file(folder / SHARD, [json.dumps(signed(content), indent=1)], draft=f"{SHARD}.new")


def read_shard(folder: Path) -> Shard:
    """The checked shard in the folder; every file that it names is a plain file of the recorded size.

    Raises:
        IndexFolderError: There is no finished shard, or it is incomplete, altered, or of another format.
    """
    path = folder / SHARD
    if path.is_symlink():
        raise IndexFolderError(f"{path}: a link, expected a plain file; copy the shard with the files it links to")
    if not path.is_file():
        raise IndexFolderError(f"{folder}: {_format_unfinished(folder)}")
    content = _FORMAT.read(path)
    _FORMAT.check_version(content, path)
    with _FORMAT.parsing(path):
        shard = _parse(content)
    if (folder / ROWS).is_symlink():
        raise IndexFolderError(f"{folder / ROWS}: a link, expected a folder; copy the shard with the files it links to")
    for name, record in shard.files.items():
        check_size(folder / ROWS / name, record)
    return shard


def _format_unfinished(folder: Path) -> str:
    if (folder / ROWS / JOURNAL).is_file():
        return "an unfinished shard; run its llm2comp encode command again to continue it"
    if (folder / ".parts").is_dir():
        return "an unfinished encoding on a cluster; run its llm2comp encode command again to continue it"
    if (folder / "vectors.json").is_file():
        return "holds Parquet files of vectors, not a shard; encode without --format parquet for an index"
    return f"holds no shard (no {SHARD}); make shards with: llm2comp encode CORPUS --shard I/N -o DIR"


def _parse(content: dict[str, Any]) -> Shard:
    check_checksum(content)
    part = Part(
        shard := take_count(content, "shard", 1, _MOST_SHARDS), take_count(content, "shards", shard, _MOST_SHARDS)
    )
    model, corpus, versions = (take(content, name, dict) for name in ("model", "corpus", "created_by"))
    store: Any = take(content, "store", str)  # of a literal type, which IndexOptions checks
    options = IndexOptions(store=store, **read_chunks(content))
    rows, total = take_count(content, "rows", 0, _MOST_ROWS), take_count(corpus, "documents", 1, 1 << 50)
    documents, dimension = take_count(content, "documents", 0, rows), take_count(content, "dimension", 1, 1 << 16)
    if (
        documents != part.documents_of(total)
        or (not options.has_chunks and rows != documents)
        or bool(rows) != bool(documents)
    ):
        raise ValueError(f"{documents:,} documents in {rows:,} rows cannot be {part} of {total:,} documents")
    digest, fingerprint = take_digest(corpus, "sha256"), take(model, "fingerprint", str)
    if not fingerprint:
        raise ValueError("its model has no fingerprint")
    files = parse_records(content)
    _check_files(
        files,
        {
            Names.VECTORS: storage_bytes(rows, dimension, options.store),
            Names.OFFSETS: ROW_BYTES * rows,
            Names.IDS: ID_BYTES * rows,
        },
    )
    return Shard(
        part,
        take_optional(model, "name", str) or find_bundled(fingerprint),
        fingerprint,
        dimension,
        options,
        rows,
        documents,
        total,
        digest,
        files,
        versions,
        parse_sources(content),
        parse_encoder(content),
    )


def _check_files(files: Mapping[str, FileRecord], expected: Mapping[str, int]) -> None:
    if missing := Names.ALWAYS - set(files):
        raise ValueError(f"it is without {', '.join(sorted(missing))}")
    if others := set(files) - Names.ALWAYS - {Names.METADATA}:
        raise ValueError(f"it names a file {min(others)[:80]!r}, which no shard has")
    for name, size in expected.items():
        if files[name].bytes != size:
            raise ValueError(f"{name} of {files[name].bytes:,} bytes does not fit its rows")


def find_shards(paths: Iterable[Path]) -> list[tuple[Path, Shard]]:
    """All shards of a corpus with their folders, in order.

    Args:
        paths: Folders of shards, or folders that contain them.

    Raises:
        IndexFolderError: A shard is missing, unfinished, given twice, altered, or of another model, store, chunking or
            corpus than the others.
    """
    shards = [(folder, read_shard(folder)) for path in paths for folder in _shard_folders(path)]
    if not shards:
        raise IndexFolderError(
            "no folder of shards is given; make shards with: llm2comp encode CORPUS --shard I/N -o DIR"
        )
    shards.sort(key=lambda entry: entry[1].part)
    _check_alike(shards)
    total = shards[0][1].part.shards
    for (folder, shard), (other, following) in zip(shards, shards[1:], strict=False):
        if shard.part == following.part:
            raise IndexFolderError(f"{folder} and {other}: both are {shard.part}; give each shard once")
    if missing := sorted(set(range(1, total + 1)) - {shard.part.shard for _, shard in shards}):
        named = ", ".join(map(str, missing[:_MOST_NAMED])) + (
            f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        )
        plural = len(missing) > 1
        raise IndexFolderError(
            f"shard{'s' * plural} {named} of {total} {'are' if plural else 'is'} missing; make "
            f"{'them' if plural else 'it'} with llm2comp encode CORPUS --shard {missing[0]}/{total}, or name the "
            "folder too"
        )
    return shards


def _shard_folders(path: Path) -> list[Path]:
    if not path.is_dir():
        raise IndexFolderError(
            f"{path}: no such folder; expected a shard, or a folder of shards, that llm2comp encode wrote"
        )
    if (path / SHARD).exists() or _FOLDER.fullmatch(path.name):
        return [path]
    folders = [folder for folder in sorted(path.iterdir()) if _FOLDER.fullmatch(folder.name)]
    for folder in folders:
        if folder.is_symlink() or not folder.is_dir():
            raise IndexFolderError(
                f"{folder}: a link or a file, expected the folder of a shard; name the folder itself if it lies "
                "elsewhere"
            )
    if not folders:
        raise IndexFolderError(f"{path}: {_format_unfinished(path)}")
    return folders


def _check_alike(shards: Sequence[tuple[Path, Shard]]) -> None:
    """Raises IndexFolderError unless all shards are parts of the same vectors."""
    base_folder, base = shards[0]
    expected = _traits(base)
    for folder, shard in shards[1:]:
        for name, value in _traits(shard).items():
            if value != expected[name]:
                raise IndexFolderError(
                    f"{base_folder} and {folder}: shards of another {name} ({expected[name]} and {value}) do not fit "
                    "together; make them again alike"
                )


def _traits(shard: Shard) -> dict[str, str]:
    options = shard.options
    return {
        "split": f"in {shard.part.shards}",
        "model": f"fingerprint {shard.fingerprint[:80]}",
        "dimension": str(shard.dimension),
        "encoding": shard.encoder.describe() or "the model's own",
        "store": options.store,
        "chunking": options.describe_chunks() or "none",
        "corpus": f"{shard.corpus_documents:,} documents, SHA-256 {shard.corpus_sha256}",
    }
