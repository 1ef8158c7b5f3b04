"""Opening and searching an index."""

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import IndexFolderError, SettingsError
from llm2comp_indexes.encoder import (
    Encoder,
    load_encoder,
)
from llm2comp_indexes.format.manifest import MANIFEST, Manifest, read_manifest
from llm2comp_indexes.format.vectors import Neighbors
from llm2comp_indexes.search.answers import answer, chunks_around, fetch_hit
from llm2comp_indexes.search.checks import check_model, check_pickles, check_vectors, commit_digest
from llm2comp_indexes.search.hits import Hit
from llm2comp_indexes.search.opened import (
    LazyModel,
    OpenedCommit,
    load_model,
    open_segments,
    parse_filter,
    search_on_gpus,
)
from llm2comp_indexes.search.options import SearchOptions, check_k, check_queries
from llm2comp_indexes.search.ranking import rank_by_vectors
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
            search_on_gpus(new, required=self._device == "cuda")
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

    def use_gpus(self, *, required: bool = True) -> None:
        """Copies the index to all GPUs that FAISS sees and searches there; scores still come from the stored vectors.

        Args:
            required: Whether a segment of a type that FAISS does not support on GPUs is an error; otherwise the CPU
                searches it, and a warning is logged.

        Raises:
            SettingsError: A segment's type is not supported, or the GPUs have too little memory.
        """
        self._device = "cuda" if required else "auto"
        search_on_gpus(self.segments, required=required)

    @property
    def model(self) -> Encoder:
        """The model that encodes the queries, loaded at first use.

        Raises:
            IndexFolderError: The model cannot be loaded, or is not the one that the index was built with.
        """
        return load_model(self._opened, self.folder)

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
            IndexFolderError: `vectors` has another shape, or is not finite; or the model cannot be loaded.
        """
        check_queries(queries)
        if vectors is not None:
            check_vectors(vectors, self.manifest.dimension, len(queries))
        chosen = options or _DEFAULTS
        if rescore is not None:
            chosen = replace(chosen, rescore=rescore)
        if candidates is not None:
            chosen = replace(chosen, candidates=candidates)
        hits: list[list[Hit]] = []
        opened, encoding = self._opened, 0.0  # one commit, whatever `refresh` does meanwhile
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            block = slice(start, start + _QUERIES_AT_ONCE)
            its_vectors = None if vectors is None else vectors[block]
            answers = answer(opened, self.folder, list(queries[block]), k, chosen, its_vectors)
            hits, encoding = hits + answers.hits, encoding + answers.encoding
        self._spent.encoding = encoding
        return hits

    def search_vectors(
        self, vectors: NDArray[np.float32], k: int = 10, *, options: SearchOptions | None = None
    ) -> Neighbors:
        """Scores and rows, both (queries, min(k, rows)), best first, for query vectors (queries, dimension).

        Rows are numbered through all segments, deleted rows included. Missing rows are -1 with a score of -inf.

        Raises:
            SettingsError: k is not from 1 to 1,000, the mode is not `dense`, the filter cannot be parsed, or `rescore`
                is given.
            IndexFolderError: The vectors have another dimension, or are not finite.
        """
        check_k(k)
        check_vectors(vectors, self.manifest.dimension)
        chosen = options or _DEFAULTS
        if chosen.mode != "dense":
            raise SettingsError(f"mode is {chosen.mode!r}, which needs the queries' words: use search, or mode dense")
        if chosen.rescore is not None:
            raise SettingsError(f"rescore is {chosen.rescore!r}, which needs the queries themselves: use search")
        opened = self._opened
        where = parse_filter(chosen.where, opened.segments)
        return rank_by_vectors(opened, vectors, min(k, opened.starts[-1]), chosen, where)

    @property
    def encode_seconds(self) -> float:
        """Seconds that this thread's last `search` has spent in encoding its queries."""
        return getattr(self._spent, "encoding", 0.0)

    def fetch(self, row: int, score: float) -> Hit:
        """The document of a row that `search_vectors` returned, as a hit with this score."""
        return fetch_hit(self._opened, row, score)

    def surrounding(self, hit: Hit, chunks: int = 1) -> list[Hit]:
        """The chunk with up to `chunks` before and after it, in the order of the document; those have the score 0.

        A document that is one row has no others. Overlaps are in both chunks.

        Raises:
            SettingsError: `chunks` is below 0.
        """
        return chunks_around(self._opened, hit, chunks)


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
