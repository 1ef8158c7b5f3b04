"""Builds an index: documents are read, encoded and written in blocks, then the whole appears at once."""

import logging
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Literal

import llm2comp
from llm2comp.corpus import read_corpus
from llm2comp.documents import Document
from llm2comp.errors import CorpusError, IndexFolderError, SettingsError
from llm2comp.id_set import IdSet
from llm2comp_indexes.documents import DocumentWriter
from llm2comp_indexes.encoder import Encoder, encode, load_encoder
from llm2comp_indexes.manifest import DOCUMENTS, OFFSETS, VECTORS, Manifest, Segment, write_manifest
from llm2comp_indexes.staging import Staging, check_output, staged
from llm2comp_indexes.vectors import import_faiss, new_flat, write_flat

__all__ = ["BuildReport", "build_index"]

logger = logging.getLogger(__name__)

BLOCK = 2048
"""Documents that are read, then encoded together."""


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did.

    Attributes:
        documents: In the index.
        skipped: Malformed or duplicate rows left out (with `on_error="skip"`).
        dimension: Numbers in a vector.
        bytes: Size of the index on disk, without its manifest.
        seconds: The whole build, loading the model left out.
        encode_seconds: The encoding alone.
    """

    documents: int
    skipped: int
    dimension: int
    bytes: int
    seconds: float
    encode_seconds: float


def build_index(
    corpora: Sequence[str | Path],
    output: str | Path,
    *,
    model: str | Path | Encoder | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    overwrite: bool = False,
    on_skip: Callable[[str], None] | None = None,
    on_block: Callable[[int], None] | None = None,
) -> BuildReport:
    """Report of the exact index (inner product) written to the folder `output`.

    The folder appears when it is complete; an error, an interrupt or a full device leaves nothing behind, and an index
    that is being overwritten stays as it was until then.

    Args:
        corpora: Sources that `llm2comp.corpus.read_corpus` takes; an id must not occur in two of them.
        output: A folder that does not exist or is empty.
        model: A name or folder for `llm2comp.load`, a loaded model, or None for the bundled one.
        on_error: What a malformed row or a duplicate id does: raise, or be skipped and counted.
        overwrite: Replace the index that `output` holds; a folder with anything else in it is still refused.
        on_skip: Called with the message of each skipped row; left out, messages go to the log.
        on_block: Called with the number of documents encoded so far.

    Raises:
        CorpusError: A corpus is missing, empty or malformed, or an id occurs twice.
        IndexFolderError: `output` holds something, or cannot be written.
    """
    if isinstance(corpora, str | Path) or not corpora:
        raise SettingsError(f"corpora is {corpora!r}, expected a list of at least one corpus")
    import_faiss()
    target = Path(output).resolve()
    check_output(target, overwrite=overwrite)
    skipped = _Counter(on_skip or logger.warning)
    documents = _read(corpora, on_error, skipped)
    encoder, name = load_encoder(model)
    start = time.perf_counter()
    with staged(target, overwrite=overwrite) as staging, _SegmentWriter(staging, encoder) as writer:
        while block := list(islice(documents, BLOCK)):
            writer.add(block)
            if on_block:
                on_block(writer.documents)
        manifest = Manifest(name, encoder.fingerprint, writer.dimension, (writer.finish(),), _versions())
        write_manifest(staging.folder, manifest)
        staging.commit()
    return BuildReport(manifest.documents, skipped.count, manifest.dimension, manifest.bytes, time.perf_counter() - start, writer.encode_seconds)


class _Counter:
    """Passes messages on and counts them."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.count = 0
        self._report = report

    def __call__(self, message: str) -> None:
        self.count += 1
        self._report(message)


def _read(corpora: Sequence[str | Path], on_error: Literal["raise", "skip"], skip: _Counter) -> Iterator[Document]:
    """Documents of all corpora; each is opened now, so that a missing one is reported before anything is loaded."""
    streams = [(source, read_corpus(source, on_error=on_error, on_skip=skip)) for source in corpora]
    return streams[0][1] if len(streams) == 1 else _join(streams, on_error, skip)


def _join(streams: Sequence[tuple[str | Path, Iterator[Document]]], on_error: str, skip: _Counter) -> Iterator[Document]:
    seen = IdSet()
    for source, stream in streams:
        for document in stream:
            if seen.add(document.id):
                yield document
                continue
            message = f'{source}: id "{document.id}" occurs in an earlier corpus too; ids must be unique (on_error="skip", --on-error skip: the first stays)'
            if on_error == "raise":
                raise CorpusError(message)
            skip(message)


class _SegmentWriter:
    """Encodes and writes the documents of one segment."""

    def __init__(self, staging: Staging, encoder: Encoder) -> None:
        dimension = encoder.get_embedding_dimension()
        if dimension is None:
            raise IndexFolderError("the model does not state the dimension of its vectors; give one whose get_embedding_dimension() is a number")
        self.dimension = dimension
        self.documents = 0
        self.encode_seconds = 0.0
        self._staging = staging
        self._encoder = encoder
        self._index = new_flat(dimension)
        self._writer = DocumentWriter(staging.segment / DOCUMENTS, staging.segment / OFFSETS)

    def __enter__(self) -> "_SegmentWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.__exit__(*error)

    def add(self, documents: Sequence[Document]) -> None:
        start = time.perf_counter()
        vectors = encode(self._encoder.encode_document, [document.content for document in documents], self.dimension)
        self.encode_seconds += time.perf_counter() - start
        self._index.add(vectors)
        self._writer.add(documents)
        self.documents += len(documents)

    def finish(self) -> Segment:
        lines, offsets = self._writer.finish()
        vectors = write_flat(self._index, self._staging.segment / VECTORS)
        return Segment(self._staging.segment_name, self.documents, {VECTORS: vectors, DOCUMENTS: lines, OFFSETS: offsets})


def _versions() -> dict[str, str]:
    return {"llm2comp": llm2comp.__version__, "faiss": import_faiss().__version__, "numpy": version("numpy"), "python": platform.python_version()}
