"""Opening and searching an index."""

import logging
import threading
import time
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import IndexFolderError, LLM2CompError, SettingsError, quote_path
from llm2comp_indexes.encoder import (
    Encoder,
    RowVectors,
    encode,
    encode_memory,
    load_encoder,
)
from llm2comp_indexes.filters.parse import Where, parse_where
from llm2comp_indexes.format.manifest import MANIFEST, Manifest, read_manifest
from llm2comp_indexes.format.vectors import Neighbors
from llm2comp_indexes.search.checks import check_memory, check_model, check_pickles, commit_digest
from llm2comp_indexes.search.hits import Hit, WholeDocument
from llm2comp_indexes.search.opened import LazyModel, OpenedCommit, open_segments
from llm2comp_indexes.search.options import SearchOptions, check_k, check_queries, count_candidates
from llm2comp_indexes.search.ranking import rank, rank_by_vectors, rescore_by_maxsim
from llm2comp_indexes.search.segment import OpenSegment
from llm2comp_indexes.structures.gpu import resolve_device

if TYPE_CHECKING:
    from llm2comp_indexes.change.sync import SyncReport

__all__ = ["Index", "open_index", "open_last_commit"]

_QUERIES_AT_ONCE = 1024
_OPEN_TRIES = 20
_logger = logging.getLogger(__name__)


_DEFAULTS = SearchOptions()


def open_index(
    folder: str | Path,
    *,
    model: str | Path | Encoder | None = None,
    device: str = "cpu",
    encoder: EncoderOptions | None = None,
) -> "Index":
    """The last commit of the index in the folder, ready to search; it does not change while the index is written.

    Args:
        folder: Folder written by `build_index`.
        model: The model that the index was built with, or its name or folder, if it is not where the index says.
        device: `cpu`; `cuda` to search on a copy on all GPUs that FAISS sees; `auto` to do so if there are GPUs and
            FAISS supports the type on them.
        encoder: Where the model runs, with which engine and in which precision. None: the CPU or a GPU, and what the
            index was built with.

    Raises:
        IndexFolderError: There is no index, or it is of a newer format, incomplete, altered, or of another model.
        SettingsError: `cuda` without a GPU that FAISS can use, with too little GPU memory, or with a type that FAISS
            does not support on GPUs; or the length or truncation in `encoder` is not that of the index.
    """
    on_gpus = resolve_device(device) == "cuda"
    index = open_last_commit(Path(folder), model, encoder)
    if on_gpus:
        index.use_gpus(required=device == "cuda")
    return index


def open_last_commit(
    folder: Path,
    model: str | Path | Encoder | None = None,
    encoder: EncoderOptions | None = None,
    *,
    searchable: bool = True,
    known: Sequence[OpenSegment] = (),
) -> "Index":
    """The last commit; with `searchable=False`, to compare with: without the files that only searching needs.

    Raises:
        IndexFolderError: As `open_index`.
    """
    settings: dict[str, Any] = {"model": model, "encoder": encoder, "known": known}
    settings |= {"searchable": searchable, "for_queries": searchable}
    manifest = read_manifest(folder)
    for _ in range(_OPEN_TRIES):
        try:
            return Index(folder, manifest, **settings)
        except (IndexFolderError, OSError):
            if (latest := read_manifest(folder)) == manifest:
                raise
            manifest = latest  # a writer committed and removed old files while they were being opened
    return Index(folder, manifest, **settings)


class Index:
    """An open index; made by `open_index`. It shows one commit until `refresh`; any number of threads may search it.

    Its files are closed by `close`, at the end of a `with` block, or when the object is garbage-collected.

    A pickle contains the path of the folder and the name of the model (the model itself if it was given as an object),
    and no files: they are opened again where it is loaded, at the last commit. A copy does the same and shares the
    model. If there was another commit meanwhile, the log says so; if the folder is gone, or holds an index of another
    model, that is an IndexFolderError.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        *,
        model: str | Path | Encoder | None = None,
        encoder: EncoderOptions | None = None,
        searchable: bool = True,
        for_queries: bool = False,
        known: Sequence[OpenSegment] = (),
    ) -> None:
        """Opens the commit.

        Args:
            folder: Folder of the index.
            manifest: The commit.
            model: As for `open_index`.
            encoder: As for `open_index`.
            searchable: Whether to open the files that only searching needs.
            for_queries: Whether the model encodes nothing but queries, and so may run with another dtype or engine.
            known: Open segments, of which those that the commit has too are used.
        """
        self.folder = folder
        self._place = folder.absolute()
        self._spent = threading.local()
        self._device = "cpu"
        self._model: str | Encoder | None = None  # its name or, if it was given as an object, that object
        self._options = encoder
        kept = (encoder or EncoderOptions()).within(manifest.encoder, str(folder), for_queries=for_queries)
        self._opened = OpenedCommit(manifest, [], [], LazyModel(), kept)
        if model is not None:
            loaded, name = load_encoder(model, kept if isinstance(model, str | Path) else encoder)
            self._opened.model.encoder, self._model = check_model(loaded, self.manifest, self.folder), name or loaded
        segments = open_segments(folder, manifest, known, searchable=searchable)
        starts = list(accumulate((segment.rows for segment in segments), initial=0))
        self._opened = self._opened._replace(segments=segments, starts=starts)

    @property
    def manifest(self) -> Manifest:
        """The commit that the index shows."""
        return self._opened.manifest

    @property
    def dimension(self) -> int:
        """Length of a vector; 0 in an index without documents."""
        return self.manifest.dimension

    @property
    def segments(self) -> list[OpenSegment]:
        """The open segments of the commit; none after `close`."""
        return self._opened.segments

    @property
    def _starts(self) -> list[int]:
        return self._opened.starts

    @property
    def _hit_type(self) -> type[Hit]:
        return Hit if self.manifest.options.has_chunks else WholeDocument

    def __len__(self) -> int:
        return self.manifest.documents

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """What a pickle contains.

        Raises:
            TypeError: The model was given as an object that cannot be pickled.
        """
        check_pickles(self._model)
        state = (self.manifest.fingerprint, commit_digest(self.manifest), self._options)
        return _reopen, (str(self._place), self._model, self._device, *state)

    def __copy__(self) -> "Index":
        loaded = self._opened.model.encoder
        model = self._model if loaded is None else loaded
        options = self._options if model is None or isinstance(model, str) else None
        state = (self.manifest.fingerprint, commit_digest(self.manifest), options)
        return _reopen(str(self._place), model, self._device, *state)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Index":
        return self.__copy__()

    def close(self) -> None:
        """Closes the files of the index, which can then no longer be searched."""
        segments, self._opened = self.segments, self._opened._replace(segments=[])
        for segment in segments:
            segment.close()

    def refresh(self) -> bool:
        """Shows the last commit from now on; whether it was another one.

        The model stays loaded, and files that both commits have stay open. Searches of other threads that began before
        end with the commit that they began with. Rows that `search_vectors` returned before are not those of `fetch`
        any more.

        Raises:
            IndexFolderError: The index is gone, damaged, or was built again with another model, while the model was
                given to `open_index`.
        """
        if read_manifest(self._place) == self.manifest:
            return False
        latest = open_last_commit(self._place, None, self._options, known=self.segments)
        opened, before = latest._opened, self._opened
        if (opened.manifest.fingerprint, opened.manifest.encoder) == (
            before.manifest.fingerprint,
            before.manifest.encoder,
        ):
            opened = opened._replace(model=before.model, load_with=before.load_with)
        elif self._model is not None:
            raise IndexFolderError(
                f"{self.folder}: built again with another model than the one that it was opened with; open it again "
                "(open_index)"
            )
        if self._device != "cpu":
            new = [segment for segment in opened.segments if segment not in before.segments]
            _use_gpus(new, required=self._device == "cuda")
        self._opened = opened  # at once; the old files are closed when the last search that uses them has ended
        return True

    def sync(self, corpora: str | Path | Iterable[Any] = (), **options: Any) -> "SyncReport":
        """Makes the index hold what its sources hold now, in one commit, and shows that commit from now on.

        Args:
            corpora: Sources of the index; empty: all that can be read again.
            options: As for `sync_index`.

        Raises:
            CorpusError, IndexFolderError: As `sync_index`.
        """
        from llm2comp_indexes.change.sync import sync_index

        report = sync_index(self._place, corpora, **{"model": self._opened.model.encoder or self._model, **options})
        self.refresh()
        return report

    def _pinned(self) -> "Index":
        """This index at its present commit, whatever `refresh` does meanwhile."""
        pinned = object.__new__(type(self))
        pinned.__dict__.update(self.__dict__)
        return pinned

    def use_gpus(self, *, required: bool = True) -> None:
        """Copies the index to all GPUs that FAISS sees and searches there; scores still come from the stored vectors.

        Args:
            required: Whether a segment of a type that FAISS does not support on GPUs is an error; otherwise the CPU
                searches it, and a warning is logged.

        Raises:
            SettingsError: A segment's type is not supported, or the GPUs have too little memory.
        """
        self._device = "cuda" if required else "auto"
        _use_gpus(self.segments, required=required)

    @property
    def model(self) -> Encoder:
        """The model that encodes the queries, loaded at first use.

        Raises:
            IndexFolderError: The model cannot be loaded, or is not the one that the index was built with.
        """
        opened = self._opened
        if opened.model.encoder is None:
            if not self.manifest.fingerprint:
                raise IndexFolderError(
                    f"{self.folder}: its vectors were made elsewhere, by a model it does not know; name the model "
                    "(--model), or search_vectors"
                )
            try:
                encoder = load_encoder(opened.manifest.model, opened.load_with)[0]
            except LLM2CompError as error:
                raise IndexFolderError(
                    f"{self.folder}: its model cannot be loaded: {error}; say where it lies now (--model)"
                ) from error
            opened.model.encoder = check_model(encoder, self.manifest, self.folder)
        return opened.model.encoder

    def search(
        self,
        queries: Sequence[str],
        k: int = 10,
        *,
        options: SearchOptions | None = None,
        vectors: NDArray[np.float32] | None = None,
        rescore: Literal["maxsim"] | None = None,
        candidates: int | None = None,
    ) -> list[list[Hit]]:
        """The k best documents for each query, best first, equal scores in index order; fewer if fewer match.

        Args:
            queries: The queries.
            k: Number of documents per query.
            options: Mode, filter and more.
            vectors: Vectors (queries, dimension) of the queries; None: the model of the index encodes them.
            rescore: That field of `options`, for short.
            candidates: That field of `options`, for short.

        Raises:
            SettingsError: k is not from 1 to 1,000, `queries` is not a list of strings, the filter cannot be parsed,
                the mode needs a BM25 index and there is none, or rescoring needs vectors of memory tokens that the
                index or its model does not have.
        """
        check_queries(queries)
        chosen = options or _DEFAULTS
        if rescore is not None:
            chosen = replace(chosen, rescore=rescore)
        if candidates is not None:
            chosen = replace(chosen, candidates=candidates)
        self._spent.encoding = 0.0
        hits: list[list[Hit]] = []
        pinned = self._pinned()
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            block = slice(start, start + _QUERIES_AT_ONCE)
            hits += pinned._search_block(list(queries[block]), k, chosen, None if vectors is None else vectors[block])
        return hits

    def search_vectors(
        self, vectors: NDArray[np.float32], k: int = 10, *, options: SearchOptions | None = None
    ) -> Neighbors:
        """Scores and rows, both (queries, min(k, rows)), best first, for query vectors (queries, dimension).

        Rows are numbered through all segments, deleted rows included. Missing rows are -1 with a score of -inf.

        Raises:
            SettingsError: k is not from 1 to 1,000, the mode is not `dense`, the filter cannot be parsed, or `rescore`
                is given.
            IndexFolderError: The vectors have another dimension.
        """
        check_k(k)
        if vectors.ndim != 2 or self.manifest.dimension not in (0, vectors.shape[1]):
            raise IndexFolderError(
                f"query vectors of shape {vectors.shape}, expected (queries, {self.manifest.dimension})"
            )
        chosen = options or _DEFAULTS
        if chosen.mode != "dense":
            raise SettingsError(f"mode is {chosen.mode!r}, which needs the queries' words: use search, or mode dense")
        if chosen.rescore is not None:
            raise SettingsError(f"rescore is {chosen.rescore!r}, which needs the queries themselves: use search")
        pinned = self._pinned()
        return rank_by_vectors(
            pinned._opened, vectors, min(k, pinned._starts[-1]), chosen, pinned._filter(chosen.where)
        )

    @property
    def encode_seconds(self) -> float:
        """Seconds that this thread's last `search` has spent in encoding its queries."""
        return getattr(self._spent, "encoding", 0.0)

    def fetch(self, row: int, score: float) -> Hit:
        """The document of a row that `search_vectors` returned, as a hit with this score."""
        opened = self._opened
        place = bisect_right(opened.starts, row) - 1
        identifier, title, text, metadata = opened.segments[place].documents.fields(row - opened.starts[place])
        return self._hit_type(identifier, score, title, text, metadata)

    def surrounding(self, hit: Hit, chunks: int = 1) -> list[Hit]:
        """The chunk with up to `chunks` before and after it, in the order of the document; those have the score 0.

        A document that is one row has no others. Overlaps are in both chunks.

        Raises:
            SettingsError: `chunks` is below 0.
        """
        if chunks < 0:
            raise SettingsError(f"chunks is {chunks}, expected 0 or more")
        pinned = self._pinned()
        segments = pinned.segments if chunks and hit.document_id != hit.id else []
        for start, segment in zip(pinned._starts, segments, strict=False):
            [rows] = segment.find_rows([hit.document_id])
            around = [pinned.fetch(start + row, 0.0) for row in rows]
            place = next((place for place, chunk in enumerate(around) if chunk.id == hit.id), None)
            if place is not None:
                return [*around[max(0, place - chunks) : place], hit, *around[place + 1 : place + 1 + chunks]]
        return [hit]

    def _search_block(
        self, queries: list[str], k: int, options: SearchOptions, vectors: NDArray[np.float32] | None
    ) -> list[list[Hit]]:
        check_k(k)
        if not self.manifest.rows:
            return [[] for _ in queries]
        where = self._filter(options.where)
        if options.mode != "dense":
            self._check_lexical()  # before the model is loaded
        memory = None
        if options.rescore is not None:
            check_memory(self.manifest, self.folder)  # before the model is loaded
            check_memory(self.manifest, self.folder, self.model)
            made = self._encode(queries, memory=True)
            vectors, memory = made.vectors if vectors is None else vectors, made.memory
        if options.mode == "bm25":
            vectors = None
        elif vectors is None:
            vectors = self._encode(queries).vectors
        grouped = options.by == "document" and self.manifest.options.has_chunks
        depth = count_candidates(options, k) if memory is not None else 4 * k if grouped else k
        depth = min(depth, self._starts[-1])
        while True:
            best = rank(self._opened, queries, vectors, depth, options, where)
            if memory is not None:
                best = rescore_by_maxsim(self._opened, memory, best)
            hits = [
                self._hits(scores, rows, k, grouped)
                for scores, rows in zip(best.scores.tolist(), best.rows.tolist(), strict=True)
            ]
            too_few = any(len(answers) < k and row >= 0 for answers, row in zip(hits, best.rows[:, -1], strict=True))
            if not grouped or depth >= self._starts[-1] or not too_few:
                return hits
            depth = min(4 * depth, self._starts[-1])

    def _encode(self, queries: list[str], *, memory: bool = False) -> RowVectors:
        """Vectors of the queries, with those of their memory tokens if they are wanted."""
        model, dimension = self.model, self.manifest.dimension  # loaded here at first, which is no part of encoding
        start = time.perf_counter()
        if memory:
            vectors = encode_memory(model, queries, dimension, task="query")
        else:
            vectors = RowVectors(encode(model.encode_query, queries, dimension))
        self._spent.encoding = self.encode_seconds + time.perf_counter() - start
        return vectors

    def _filter(self, where: str | Where | None) -> Where | None:
        """The filter, which names no field and no type that no document has."""
        if where is None:
            return None
        parsed = parse_where(where) if isinstance(where, str) else where
        parsed.check(segment.metadata for segment in self.segments)
        return parsed

    def _check_lexical(self) -> None:
        if not self.manifest.options.hybrid or not all(segment.lexical for segment in self.segments):
            raise SettingsError(
                f"{self.folder}: holds no BM25 index; add one with `llm2comp index merge {quote_path(self.folder)} "
                "--hybrid`, build with --hybrid (IndexOptions(hybrid=True)), or search with mode dense"
            )

    def _hits(self, scores: list[float], rows: list[int], k: int, grouped: bool) -> list[Hit]:
        hits: list[Hit] = []
        seen: set[str] = set()
        for score, row in zip(scores, rows, strict=True):
            if row < 0 or len(hits) == k:
                break
            hit = self.fetch(row, score)
            if grouped and hit.document_id in seen:
                continue
            seen.add(hit.document_id)
            hits.append(hit)
        return hits


def _use_gpus(segments: Sequence[OpenSegment], *, required: bool) -> None:
    for segment in segments:
        try:
            segment.use_gpus()
        except SettingsError as error:
            if required:
                raise
            _logger.warning("segment %s is searched by the CPU: %s", segment.segment.name, error)


def _reopen(
    folder: str,
    model: str | Encoder | None,
    device: str,
    fingerprint: str,
    state: str,
    encoder: EncoderOptions | None = None,
) -> Index:
    """The index in the folder, for one that was opened there before it was copied or pickled.

    Raises:
        IndexFolderError: The folder is gone, holds an index of another model, or `open_index` raises it.
    """
    if not (Path(folder) / MANIFEST).is_file():
        raise IndexFolderError(
            f"{folder}: no index lies there any more; a copied or pickled index opens its folder again, so move it "
            "back, or open it where it lies now and pickle that (open_index)"
        )
    index = open_index(folder, model=model, device=device, encoder=encoder)
    if index.manifest.fingerprint != fingerprint:
        raise IndexFolderError(
            f"{folder}: built again with another model since this index was copied or pickled; open it (open_index)"
        )
    if commit_digest(index.manifest) != state:
        _logger.warning(
            "%s: was changed after this index was pickled; now open at its last commit, %d",
            folder,
            index.manifest.commit,
        )
    return index
