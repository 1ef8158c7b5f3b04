"""From queries to the hits of one commit: encoded, ranked, fetched, grouped, and with the chunks around them."""

import time
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import SettingsError
from llm2comp_indexes.encoder import RowVectors, encode, encode_memory
from llm2comp_indexes.search.checks import check_lexical, check_memory
from llm2comp_indexes.search.hits import Hit, WholeDocument
from llm2comp_indexes.search.opened import OpenedCommit, load_model, parse_filter
from llm2comp_indexes.search.options import SearchOptions, check_k, count_candidates
from llm2comp_indexes.search.ranking import rank, rescore_by_maxsim

__all__ = ["Answers", "answer", "chunks_around", "fetch_hit"]


class Answers(NamedTuple):
    """The hits of several queries.

    Attributes:
        hits: Those of each query, best first.
        encoding: Seconds spent in encoding the queries.
    """

    hits: list[list[Hit]]
    encoding: float


def answer(
    opened: OpenedCommit,
    folder: Path,
    queries: list[str],
    k: int,
    options: SearchOptions,
    vectors: NDArray[np.float32] | None,
) -> Answers:
    """The k best hits of each query in this commit.

    Args:
        opened: The commit.
        folder: Folder of the index, which errors name.
        queries: The queries.
        k: Number of hits per query.
        options: Mode, filter and more.
        vectors: Vectors (queries, dimension) of the queries; None: the model encodes them, if the mode uses vectors.

    Raises:
        SettingsError, IndexFolderError: As `Index.search`.
    """
    check_k(k)
    if not opened.manifest.rows:
        return Answers([[] for _ in queries], 0.0)
    where = parse_filter(options.where, opened.segments)
    if options.mode != "dense":
        check_lexical(opened.manifest, opened.segments, folder)  # before the model is loaded
    memory, encoding = None, 0.0
    if options.rescore is not None:
        check_memory(opened.manifest, folder)  # before the model is loaded
        check_memory(opened.manifest, folder, load_model(opened, folder))
        made, encoding = _encode(opened, folder, queries, memory=True)
        vectors, memory = made.vectors if vectors is None else vectors, made.memory
    if options.mode == "bm25":
        vectors = None
    elif vectors is None:
        made, encoding = _encode(opened, folder, queries)
        vectors = made.vectors
    grouped = options.by == "document" and opened.manifest.options.has_chunks
    depth = count_candidates(options, k) if memory is not None else 4 * k if grouped else k
    depth = min(depth, opened.starts[-1])
    while True:
        best = rank(opened, queries, vectors, depth, options, where)
        if memory is not None:
            best = rescore_by_maxsim(opened, memory, best)
        hits = [
            _fetch_hits(opened, scores, rows, k, grouped=grouped)
            for scores, rows in zip(best.scores.tolist(), best.rows.tolist(), strict=True)
        ]
        too_few = any(len(its) < k and row >= 0 for its, row in zip(hits, best.rows[:, -1], strict=True))
        if not grouped or depth >= opened.starts[-1] or not too_few:
            return Answers(hits, encoding)
        depth = min(4 * depth, opened.starts[-1])


def _encode(
    opened: OpenedCommit, folder: Path, queries: list[str], *, memory: bool = False
) -> tuple[RowVectors, float]:
    """Vectors of the queries, with those of their memory tokens if they are wanted, and the seconds they took."""
    # The model is loaded here at first, which is no part of encoding
    model, dimension = load_model(opened, folder), opened.manifest.dimension
    start = time.perf_counter()
    if memory:
        vectors = encode_memory(model, queries, dimension, task="query")
    else:
        vectors = RowVectors(encode(model.encode_query, queries, dimension))
    return vectors, time.perf_counter() - start


def fetch_hit(opened: OpenedCommit, row: int, score: float) -> Hit:
    """The document of a row as a hit with this score."""
    place = bisect_right(opened.starts, row) - 1
    identifier, title, text, metadata = opened.segments[place].documents.fields(row - opened.starts[place])
    hit_type = Hit if opened.manifest.options.has_chunks else WholeDocument
    return hit_type(identifier, score, title, text, metadata)


def _fetch_hits(
    opened: OpenedCommit, scores: Sequence[float], rows: Sequence[int], k: int, *, grouped: bool
) -> list[Hit]:
    """The first k hits; with `grouped`, of the chunks of a document only the best one."""
    hits: list[Hit] = []
    seen: set[str] = set()
    for score, row in zip(scores, rows, strict=True):
        if row < 0 or len(hits) == k:
            break
        hit = fetch_hit(opened, row, score)
        if grouped and hit.document_id in seen:
            continue
        seen.add(hit.document_id)
        hits.append(hit)
    return hits


def chunks_around(opened: OpenedCommit, hit: Hit, chunks: int) -> list[Hit]:
    """The chunk with up to `chunks` before and after it, in the order of the document; those have the score 0.

    Raises:
        SettingsError: `chunks` is below 0.
    """
    if chunks < 0:
        raise SettingsError(f"chunks is {chunks}, expected 0 or more")
    segments = opened.segments if chunks and hit.document_id != hit.id else []
    for start, segment in zip(opened.starts, segments, strict=False):
        [rows] = segment.find_rows([hit.document_id])
        around = [fetch_hit(opened, start + row, 0.0) for row in rows]
        place = next((place for place, chunk in enumerate(around) if chunk.id == hit.id), None)
        if place is not None:
            return [*around[max(0, place - chunks) : place], hit, *around[place + 1 : place + 1 + chunks]]
    return [hit]
