"""Qdrant: a collection of a server, or of the client's local mode in a folder, which is made for development."""

import json
import logging
import os
import sqlite3
import threading
import uuid
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import SettingsError, StoreError, one_line
from llm2comp.optional import optional_import
from llm2comp_indexes.filters.parse import Where
from llm2comp_indexes.search.hits import Hit
from llm2comp_indexes.stores.contract import Scanned
from llm2comp_indexes.stores.header import StoreHeader, VectorType, parse_header
from llm2comp_indexes.stores.qdrant_filter import to_filter
from llm2comp_indexes.stores.refusals import check_dimension, require_header
from llm2comp_indexes.stores.rows import StoreRows, hash_vectors, in_groups
from llm2comp_indexes.stores.url import StoreUrl

__all__ = ["QdrantStore"]

_MOST_DIMENSIONS = 65_536
_LOCAL_ROWS = 20_000
_SCROLLED = 2_000
_PORT = 6333
_TIMEOUT = 120
_INDEXED_FROM = 10_000  # kilobytes of vectors in a segment; 0, as long as rows are written: not indexed
_NAMES = uuid.UUID("6e1c5a2e-4f0f-5a43-9d3c-6c6c6d32636f")
_logger = logging.getLogger(__name__)


class QdrantStore:
    """A collection of Qdrant, as `Store` describes.

    A point's id is the UUID of its row's id; its payload has id, title, text, metadata and a digest. The collection's
    metadata is the header, which needs Qdrant 1.16. Distances are inner products, so vectors are kept as they are.
    """

    rows_per_write = 1000
    typed = False

    def __init__(self, url: StoreUrl) -> None:
        self.url = url
        self._qdrant = optional_import(
            "qdrant_client", extra="qdrant", needed_by="a store in Qdrant", error_type=SettingsError
        )
        self._models = self._qdrant.models
        self._local = url.kind == "qdrant+file"
        self._lock = threading.RLock()
        self._open: Any = None
        self._answered = False
        self._header: StoreHeader | None = None

    def check_vectors(self, dimension: int, vector_type: VectorType) -> None:
        """As `Store`."""
        check_dimension(dimension, _MOST_DIMENSIONS, "Qdrant")

    def read_header(self) -> StoreHeader | None:
        """As `Store`."""
        if self._local and not Path(self.url.path, "meta.json").exists():
            return None
        with self._errors() as client:
            if not client.collection_exists(self.url.table):
                return None
            metadata = client.get_collection(self.url.table).config.metadata
        self._header = parse_header(json.dumps(metadata), str(self.url))
        return self._header

    def create(self, header: StoreHeader) -> None:
        """As `Store`."""
        models, there = self._models, self.read_header() is not None
        metadata = json.loads(header.to_json())
        with self._errors() as client:
            if there:
                client.update_collection(self.url.table, metadata=metadata)
            else:
                vectors = models.VectorParams(
                    size=header.dimension,
                    distance=models.Distance.DOT,
                    datatype=models.Datatype.FLOAT16 if header.vector_type == "float16" else None,
                )
                wait = None if self._local else models.OptimizersConfigDiff(indexing_threshold=0)
                client.create_collection(
                    self.url.table, vectors_config=vectors, optimizers_config=wait, metadata=metadata
                )
        try:
            self.read_header()
        except StoreError:
            raise StoreError(
                f"{self.url}: this Qdrant does not keep what a collection holds; it has to be 1.16 or newer"
            ) from None

    def write(self, parts: Iterable[StoreRows], *, new: bool = False) -> None:
        """As `Store`; each request is whole."""
        for rows in in_groups(parts, self.rows_per_write):
            payloads = [
                {
                    "id": row.id,
                    "title": row.title,
                    "text": row.text,
                    "metadata": json.loads(metadata),
                    "llm2comp_digest": digest,
                }
                for row, metadata, digest in zip(rows.rows, rows.metadata, rows.digests, strict=True)
            ]
            points = self._models.Batch(
                ids=[_point(row.id) for row in rows.rows],
                vectors=rows.vectors.astype(np.float32).tolist(),
                payloads=payloads,
            )
            with self._errors() as client:
                self._commit_quickly(client)
                client.upsert(self.url.table, points, wait=True)

    def _commit_quickly(self, client: Any) -> None:
        """Makes local mode, which commits each point, not wait for the device: what is written outlives the process."""
        try:
            connection = client._client.collections[self.url.table].storage.storage
        except (AttributeError, KeyError):
            return  # a server, or a client that keeps points otherwise
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    def delete(self, ids: Sequence[str]) -> None:
        """As `Store`."""
        points = self._models.PointIdsList(points=[_point(identifier) for identifier in ids])
        with self._errors() as client:
            client.delete(self.url.table, points_selector=points, wait=True)

    def scan(self, *, vectors: bool) -> Iterator[Scanned]:
        """As `Store`."""
        dtype = np.dtype(self._known_header().vector_type)
        place: Any = None
        step = _SCROLLED if not self._local else 1 << 30  # local mode sorts all points at each step
        while True:
            with self._errors() as client:
                points, place = client.scroll(
                    self.url.table,
                    limit=step,
                    offset=place,
                    with_payload=["id", "llm2comp_digest"],
                    with_vectors=vectors,
                )
            if points:
                ids = [point.payload["id"] for point in points]
                digests = [point.payload["llm2comp_digest"] for point in points]
                stored = np.array([point.vector for point in points], np.float32).astype(dtype) if vectors else None
                yield Scanned(ids, digests, None if stored is None else hash_vectors(stored))
            if place is None:
                return

    def _known_header(self) -> StoreHeader:
        return require_header(self._header or self.read_header(), self.url)

    def finish(self) -> bool:
        """As `Store`; a server indexes by itself, once it is told that all rows are there."""
        with self._errors() as client:
            if self._local:
                if (rows := client.count(self.url.table).count) > _LOCAL_ROWS:
                    _logger.warning(
                        "%s: %s rows are more than the %s that Qdrant's local mode is made for; run a server "
                        "(qdrant://HOST)",
                        self.url,
                        f"{rows:,}",
                        f"{_LOCAL_ROWS:,}",
                    )
                return False
            if client.get_collection(self.url.table).config.optimizer_config.indexing_threshold:
                return False
            threshold = self._models.OptimizersConfigDiff(indexing_threshold=_INDEXED_FROM)
            client.update_collection(self.url.table, optimizers_config=threshold)
        return True

    def count(self) -> int:
        """As `Store`."""
        with self._errors() as client:
            return int(client.count(self.url.table).count)

    def nearest(
        self, queries: NDArray[np.float32], k: int, *, where: Where | None = None, effort: int | None = None
    ) -> list[list[Hit]]:
        """As `Store`."""
        models = self._models
        condition = to_filter(where, self._known_header().fields, models) if where else None
        requests = [
            models.QueryRequest(
                query=vector,
                filter=condition,
                params=models.SearchParams(hnsw_ef=effort) if effort else None,
                limit=k,
                with_payload=True,
            )
            for vector in queries.tolist()
        ]
        with self._errors() as client:
            answers = client.query_batch_points(self.url.table, requests=requests)
        return [[_hit(point) for point in answer.points] for answer in answers]

    def close(self) -> None:
        """As `Store`."""
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None

    def _client(self) -> Any:
        with self._lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a key over plain http
            if self._open is None:
                if self._local:
                    self._open = self._qdrant.QdrantClient(
                        path=self.url.path, force_disable_check_same_thread=True, check_compatibility=False
                    )
                else:
                    parts = urlsplit(self.url.address)
                    key = unquote(parts.password or parts.username or "") or os.environ.get("QDRANT_API_KEY")
                    scheme = "https" if self.url.kind == "qdrant+https" else "http"
                    self._open = self._qdrant.QdrantClient(
                        url=f"{scheme}://{parts.hostname}:{parts.port or _PORT}{parts.path}",
                        api_key=key,
                        timeout=_TIMEOUT,
                        check_compatibility=False,
                    )
            return self._open

    @contextmanager
    def _errors(self) -> Iterator[Any]:
        """The client; its errors become one line each. Local mode is used by one thread at a time."""
        from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

        with self._lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                yield self._client()
                self._answered = True
            except UnexpectedResponse as error:
                if error.status_code in (401, 403):
                    raise StoreError(
                        f"{self.url}: the server refuses the key (status {error.status_code}); give it in "
                        "QDRANT_API_KEY, or as qdrant://:KEY@HOST"
                    ) from None
                reason = one_line(Exception(error.content.decode(errors="replace") or error.reason_phrase))
                raise StoreError(f"{self.url}: {self.url.scrub(reason)}") from None
            except sqlite3.Error as error:  # of local mode
                raise StoreError(
                    f"{self.url}: cannot be read or written ({one_line(error)}); what was written is kept: run this "
                    "again once that is mended"
                ) from error
            except OSError as error:
                if self._local:
                    raise StoreError(f"{self.url}: cannot be opened ({one_line(error)})") from error
                raise StoreError(f"{self.url}: cannot be reached ({one_line(error)})") from None
            except (ResponseHandlingException, ApiException) as error:
                again = "; what was written is kept: run this again" if self._answered else ""
                raise StoreError(f"{self.url}: cannot be reached ({self.url.scrub(one_line(error))}){again}") from None
            except (RuntimeError, ValueError) as error:
                if isinstance(error, StoreError | SettingsError):
                    raise
                if "already accessed" in str(error):
                    raise StoreError(f"{self.url}: another process has this folder open; wait until it ends") from error
                raise StoreError(f"{self.url}: {self.url.scrub(one_line(error))}") from error


def _point(identifier: str) -> str:
    return str(uuid.uuid5(_NAMES, identifier.encode("utf-8", "replace").decode()))


def _hit(point: Any) -> Hit:
    fields = point.payload
    return Hit(fields["id"], float(point.score), fields["title"], fields["text"], fields["metadata"])
