"""Searching a table of a store as one searches an index: the same questions, filters and hits."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import LLM2CompError, SettingsError, StoreError
from llm2comp_indexes.encoder import Encoder, encode, load_encoder
from llm2comp_indexes.filters.parse import Where, parse_where
from llm2comp_indexes.format.columns import Kind
from llm2comp_indexes.search.hits import Hit, WholeDocument
from llm2comp_indexes.search.options import SearchOptions, check_k, check_queries
from llm2comp_indexes.stores.contract import Store
from llm2comp_indexes.stores.header import StoreHeader
from llm2comp_indexes.stores.open import open_store
from llm2comp_indexes.stores.url import StoreUrl, parse_store_url

__all__ = ["StoreIndex", "open_store_index"]

_DEFAULTS = SearchOptions()


def open_store_index(
    url: str | StoreUrl, *, model: str | Path | Encoder | None = None, encoder: EncoderOptions | None = None
) -> "StoreIndex":
    """The table at the address, ready to search.

    Args:
        url: Address, as of `parse_store_url`.
        model: The model of the vectors, or its name or folder, if it is not where the table says.
        encoder: Where the model runs, with which engine and in which precision.

    Raises:
        SettingsError: The address is of no store, or its client is not installed.
        StoreError: The store cannot be reached, has no such table, or the table is of another model.
    """
    parsed = parse_store_url(url) if isinstance(url, str) else url
    store = open_store(parsed)
    try:
        header = store.read_header()
        if header is None:
            raise StoreError(f"{parsed}: there is no such table; make it with: llm2comp index push DIR --to URL")
        return StoreIndex(store, header, model=model, encoder=encoder)
    except BaseException:
        store.close()
        raise


@dataclass(frozen=True)
class _Fields:
    """Types of metadata fields, as `Where.check` takes them of a segment."""

    fields: dict[str, frozenset[Kind]]
    left_out: bool = False
    blocks: tuple[Any, ...] = field(default=())


class StoreIndex:
    """A table of a store, open for searching; made by `open_store_index`. Any number of threads may search it.

    It shows what the table holds at the time of a search. A pickle contains the address, password included, and the
    name of the model.
    """

    def __init__(
        self,
        store: Store,
        header: StoreHeader,
        *,
        model: str | Path | Encoder | None = None,
        encoder: EncoderOptions | None = None,
    ) -> None:
        """Takes an open store.

        Args:
            store: The store.
            header: What its table holds.
            model: As for `open_store_index`.
            encoder: As for `open_store_index`.
        """
        self.url, self.header = store.url, header
        self._store = store
        self._given, self._options = model, encoder
        self._load_with = (encoder or EncoderOptions()).within(header.encoder, str(store.url), for_queries=True)
        self._spent = threading.local()
        self._loading = threading.Lock()
        self._encoder: Encoder | None = None
        if model is not None:
            self._encoder = self._load(model)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.url, self._given, self._options)

    def __len__(self) -> int:
        return self._store.count()

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.header.dimension

    def refresh(self) -> bool:
        """False: every search sees what the table holds."""
        return False

    def close(self) -> None:
        """Closes the connection; the next search opens it again."""
        self._store.close()

    @property
    def model(self) -> Encoder:
        """The model that encodes the queries, loaded at first use.

        Raises:
            StoreError: It cannot be loaded, or is not the one that made the vectors.
        """
        with self._loading:
            if self._encoder is None:
                if not self.header.fingerprint:
                    raise StoreError(
                        f"{self.url}: its vectors were made elsewhere, by a model it does not know; name it (--model)"
                    )
                self._encoder = self._load(self.header.model)
            return self._encoder

    def _load(self, model: str | Path | Encoder | None) -> Encoder:
        options = self._load_with if model is None or isinstance(model, str | Path) else self._options
        try:
            loaded, _ = load_encoder(model, options)
        except LLM2CompError as error:
            raise StoreError(f"{self.url}: its model cannot be loaded: {error}; say where it is (--model)") from error
        dimension, actual = loaded.get_embedding_dimension(), loaded.fingerprint
        if dimension != self.header.dimension:
            raise StoreError(
                f"{self.url}: holds vectors of dimension {self.header.dimension}, the model gives {dimension}; name "
                "the model it was made with (--model)"
            )
        if self.header.fingerprint and actual != self.header.fingerprint:
            raise StoreError(
                f"{self.url}: made with {self.header.model or 'another model'} (fingerprint "
                f"{self.header.fingerprint[:12]}), not with this model (fingerprint {actual[:12]}); name the one it "
                "was made with (--model)"
            )
        return loaded

    @property
    def encode_seconds(self) -> float:
        """Seconds that this thread's last `search` has spent in encoding its queries."""
        return getattr(self._spent, "encoding", 0.0)

    def search(
        self,
        queries: Sequence[str],
        k: int = 10,
        *,
        options: SearchOptions | None = None,
        vectors: NDArray[np.float32] | None = None,
    ) -> list[list[Hit]]:
        """The k best rows for each query, best first; fewer if fewer match.

        Args:
            queries: The queries.
            k: Number of rows per query.
            options: Filter, and whether chunks or documents are ranked. Of the effort, `ef_search` is used.
            vectors: Vectors (queries, dimension) of the queries; None: the model encodes them.

        Raises:
            SettingsError: k is not from 1 to 1,000, the filter cannot be parsed or the store cannot filter so, or an
                option is one that only an index on disk has.
            StoreError: The store cannot be reached, or refuses.
        """
        check_queries(queries)
        check_k(k)
        chosen = options or _DEFAULTS
        self._check(chosen)
        where = self._filter(chosen.where)
        self._spent.encoding = 0.0
        if vectors is None:
            vectors = self._encode(list(queries))
        if vectors.ndim != 2 or vectors.shape[1] != self.header.dimension:
            raise StoreError(f"query vectors of shape {vectors.shape}, expected (queries, {self.header.dimension})")
        depth = 4 * k if (grouped := chosen.by == "document" and self.header.chunked) else k
        while True:
            found = self._store.nearest(vectors, depth, where=where, effort=chosen.effort.ef_search)
            hits = [self._hits(rows, k, grouped=grouped) for rows in found]
            lacking = any(len(best) < k and len(rows) == depth for best, rows in zip(hits, found, strict=True))
            if not grouped or not lacking:
                return hits
            depth *= 4

    def _check(self, options: SearchOptions) -> None:
        if options.mode != "dense":
            raise SettingsError(
                f"mode is {options.mode!r}: a store is searched by vectors only; words are searched in the folder of "
                "an index (--hybrid)"
            )
        for name in ("nprobe", "rerank"):
            if getattr(options.effort, name) is not None:
                raise SettingsError(f"{name} is for an index on disk; of a store's search, ef_search can be set")
        if options.rescore is not None:
            raise SettingsError(
                f"rescore is {options.rescore!r}, but a table of a store holds one vector a row; search the folder of "
                "an index (--memory-vectors)"
            )
        if options.threads is not None:
            raise SettingsError("threads is for an index on disk: a store has threads of its own")

    def _filter(self, where: str | Where | None) -> Where | None:
        """The filter, which names no field and no type that no row has, if the table says which it has."""
        if where is None:
            return None
        parsed = parse_where(where) if isinstance(where, str) else where
        if (fields := self.known_fields) is not None:
            parsed.check([fields])
        return parsed

    @property
    def known_fields(self) -> Any:
        """Types of metadata fields, as `Where.find_unknown` takes them; None: the table does not say."""
        if self.header.fields is None:
            return None
        fields = {name: frozenset(kinds) for name, kinds in self.header.fields.items()}
        return _Fields(fields, left_out=not self.header.all_fields)

    def _encode(self, queries: list[str]) -> NDArray[np.float32]:
        model = self.model
        start = time.perf_counter()
        vectors = encode(model.encode_query, queries, self.header.dimension)
        self._spent.encoding = self.encode_seconds + time.perf_counter() - start
        return vectors

    def _hits(self, rows: list[Hit], k: int, *, grouped: bool) -> list[Hit]:
        if not self.header.chunked:
            return [WholeDocument(*hit) for hit in rows[:k]]
        if not grouped:
            return rows[:k]
        best: dict[str, Hit] = {}
        for hit in rows:
            best.setdefault(hit.document_id, hit)
        return list(best.values())[:k]


def _reopen(url: StoreUrl, model: str | Path | Encoder | None, encoder: EncoderOptions | None) -> StoreIndex:
    return open_store_index(url, model=model, encoder=encoder)
