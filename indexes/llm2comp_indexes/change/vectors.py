"""Documents that come with their vectors: an index made empty, documents added or replaced, all of them removed."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llm2comp.corpus.documents import Document
from llm2comp.errors import IndexFolderError, SettingsError
from llm2comp_indexes.builder.drawn_queries import move_queries
from llm2comp_indexes.builder.finish_segment import SMALL, finish_segment, finish_unmeasured
from llm2comp_indexes.builder.new_segment import new_segment, segment_header
from llm2comp_indexes.change.compare import Deletions
from llm2comp_indexes.change.segments import before_change, without_rows
from llm2comp_indexes.change.small_segments import merge_small_segments
from llm2comp_indexes.format.commits import Change, change_index, create_index
from llm2comp_indexes.format.files import check_content
from llm2comp_indexes.format.ids import IdTable
from llm2comp_indexes.format.manifest import Manifest
from llm2comp_indexes.format.metadata import find_shared_name
from llm2comp_indexes.format.origins import Origin
from llm2comp_indexes.format.segment import Names, Segment, segment_folder
from llm2comp_indexes.options import IndexOptions, refuse_memory_vectors
from llm2comp_indexes.search.segment import OpenSegment

__all__ = ["clear_index", "create_empty_index", "upsert_vectors"]

_BLOCK = 4096
_MEASURED_WITH = 100


def create_empty_index(
    folder: str | Path,
    *,
    fingerprint: str,
    model: str | None = None,
    dimension: int = 0,
    options: IndexOptions | None = None,
) -> None:
    """Commits an index without documents.

    Args:
        folder: A folder that does not exist or is empty.
        fingerprint: What the vectors to come depend on; empty: unknown.
        model: Name by which `llm2comp.load` finds the model that encodes queries; None: it has none.
        dimension: Length of a vector; 0: that of the first vectors added.
        options: Options of the index.

    Raises:
        IndexFolderError: The folder holds something, or cannot be written.
        SettingsError: The options ask for chunks or for vectors of memory tokens, which only the builder makes.
    """
    chosen, target = options or IndexOptions(), Path(folder).resolve()
    if chosen.has_chunks:
        raise SettingsError(
            f"{chosen.chunk_size} is set, but documents that come with their vectors are not cut into chunks"
        )
    refuse_memory_vectors(chosen, "documents that come with their vectors have none of memory tokens")
    if any(target.glob("segments/*/*")):
        raise IndexFolderError(f"{folder}: holds an unfinished build; continue it, or name another folder")
    with create_index(target, overwrite=False) as change:
        change.commit(Manifest(0, model, fingerprint, dimension, chosen, (), {}), keep=False)


def upsert_vectors(
    folder: str | Path,
    documents: Sequence[Document],
    vectors: NDArray[np.float32],
    *,
    fingerprint: str = "",
    wait: float = 0.0,
) -> None:
    """Adds documents with their vectors, and replaces those that have the same ids, in one commit.

    Of documents with the same id the last one stays. Small segments are merged in the same commit.

    Args:
        folder: Folder of the index.
        documents: The documents.
        vectors: Their vectors (documents, dimension), which are scaled to unit length.
        fingerprint: What the vectors depend on; empty: unknown, and not checked.
        wait: Seconds to wait for another writer.

    Raises:
        IndexFolderError: The index is damaged, or still being written by another process.
        SettingsError: The vectors do not fit the index, or metadata has names that an index refuses.
    """
    unique = {document.id: place for place, document in enumerate(documents)}
    if not unique:
        return
    _check_names(documents)
    places = sorted(unique.values())
    rows, units = [documents[place] for place in places], _to_unit(vectors, documents)[places]
    with change_index(Path(folder), wait=wait) as change:
        manifest = _fitting(change, units.shape[1], fingerprint)
        kept = _without(change, manifest, [row.id for row in rows])
        # Given vectors may differ from those of a stopped run, which are therefore never taken up: a header of its own
        header = {
            "upsert": uuid.uuid4().hex,
            **segment_header(manifest.fingerprint, *_form(manifest), manifest.encoder),
        }
        with new_segment(change, *_form(manifest), header=header) as new:
            for start in range(0, len(rows), _BLOCK):
                block = slice(start, start + _BLOCK)
                unknown = [Origin()] * len(rows[block]) if manifest.sources else []  # of none of the sources
                new.rows.append(rows[block], units[block], unknown, resumable=False)
            if len(rows) <= SMALL:
                segment = finish_unmeasured(new)
            else:
                queries = move_queries(units[:: len(units) // _MEASURED_WITH][:_MEASURED_WITH])
                segment, _ = finish_segment(new, manifest.options, queries=queries, small_exact=True)
        change.commit(replace(manifest, segments=(*merge_small_segments(change, manifest, kept), segment)))


def clear_index(folder: str | Path, *, wait: float = 0.0) -> None:
    """Removes all documents, in one commit; options, model and dimension stay.

    Raises:
        IndexFolderError: The index is damaged, or still being written by another process.
    """
    with change_index(Path(folder), wait=wait) as change:
        before = before_change(change)
        if before.segments:
            change.commit(replace(before, segments=()), keep=False)  # to free the space at once


def _check_names(documents: Sequence[Document]) -> None:
    """Raises SettingsError if filters could not tell two fields of a document apart."""
    for document in documents:
        if name := find_shared_name(document.metadata):
            raise SettingsError(
                f'document "{document.id}": "{name}" names two fields, one of them within another; rename one'
            )


def _form(manifest: Manifest) -> tuple[int, IndexOptions]:
    return manifest.dimension, manifest.options


def _to_unit(vectors: NDArray[np.float32], documents: Sequence[Document]) -> NDArray[np.float32]:
    """The vectors, checked and scaled to unit length.

    Raises:
        SettingsError: They have another shape, or one is not finite.
    """
    array = np.asarray(vectors, dtype=np.float32)
    if array.ndim != 2 or len(array) != len(documents) or not array.shape[1]:
        raise SettingsError(f"vectors of shape {array.shape} for {len(documents):,} documents, expected one for each")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise SettingsError(f'the vector of document "{documents[int(np.argmin(finite))].id}" is not finite')
    norms = np.linalg.norm(array.astype(np.float64), axis=1, keepdims=True)
    units: NDArray[np.float32] = (array / np.where(norms > 0, norms, 1.0)).astype(np.float32)
    return units


def _fitting(change: Change, dimension: int, fingerprint: str) -> Manifest:
    """The commit before, with the dimension of the first vectors.

    Raises:
        IndexFolderError: The index is of another model, dimension or form.
    """
    before = before_change(change)
    if before.options.has_chunks:
        raise IndexFolderError(
            f"{change.folder}: an index of chunks, to which only `llm2comp index add` adds documents"
        )
    if before.options.memory_vectors is not None:
        raise IndexFolderError(
            f"{change.folder}: an index with vectors of memory tokens, to which only `llm2comp index add` adds "
            "documents"
        )
    if fingerprint and before.fingerprint and fingerprint != before.fingerprint:
        raise IndexFolderError(f"{change.folder}: replaced by an index of another model meanwhile; open it again")
    if before.dimension not in (0, dimension):
        raise IndexFolderError(
            f"{change.folder}: holds vectors of dimension {before.dimension}, these have {dimension}; embed with the "
            "model that the index was made with"
        )
    known = before.fingerprint or ("" if before.segments else fingerprint)
    return replace(before, dimension=dimension, fingerprint=known)


def _without(change: Change, manifest: Manifest, identifiers: list[str]) -> list[Segment]:
    """The segments without the documents of these ids."""
    kept = []
    for segment in manifest.segments:
        if not _may_hold(change.folder, segment, identifiers):
            kept.append(segment)
            continue
        with OpenSegment(change.folder, manifest, segment, searchable=False) as part:
            deletions = Deletions()
            for rows in filter(None, part.find_rows(identifiers)):
                deletions.add(rows)
            kept.append(without_rows(change, part, deletions))
    return kept


def _may_hold(folder: Path, segment: Segment, identifiers: list[str]) -> bool:
    """Whether the segment may hold one of the ids, by its table of ids alone."""
    path = segment_folder(folder, segment) / Names.IDS
    check_content(path, segment.files[Names.IDS])
    return any(len(rows) for rows in IdTable(path, segment.rows).find(identifiers))
