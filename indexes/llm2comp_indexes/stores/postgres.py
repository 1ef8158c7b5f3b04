"""PostgreSQL with pgvector: rows by binary COPY, an HNSW index after the load, `halfvec` for float16."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import SettingsError, StoreError, one_line
from llm2comp.optional import optional_import
from llm2comp_indexes.filters.parse import Where
from llm2comp_indexes.search.hits import Hit
from llm2comp_indexes.stores.contract import Scanned
from llm2comp_indexes.stores.header import StoreHeader, VectorType, parse_header
from llm2comp_indexes.stores.postgres_filter import Sql, to_sql
from llm2comp_indexes.stores.postgres_rows import BEGIN, COPIED_COLUMNS, END, encode_rows
from llm2comp_indexes.stores.refusals import require_header
from llm2comp_indexes.stores.rows import StoreRows, in_groups
from llm2comp_indexes.stores.url import StoreUrl

__all__ = ["PostgresStore"]

_TYPES: dict[VectorType, str] = {"float32": "vector", "float16": "halfvec"}
_MOST_DIMENSIONS: dict[VectorType, int] = {"float32": 2000, "float16": 4000}
_ROWS_AT_ONCE = 10_000
_MOST_EFFORT = 1000
_EFFORT = 100
_BUILD_MEMORY = 1 << 20  # kilobytes
_ITERATIVE_SCAN = (0, 8)  # since this version of pgvector
_COMPARED_ROWS = 10_000
"""If at most this many rows pass a filter, all are compared: the graph's order is poor far from the question."""
_HASH = "('x' || left(md5(substr({send}(embedding), 5)), 16))::bit(64)::bigint"


class PostgresStore:
    """A table of PostgreSQL, as `Store` describes.

    Its columns are id (primary key), title, text, metadata (`jsonb`), embedding (`vector` or `halfvec`) and a digest;
    its comment is the header.
    """

    rows_per_write = 1 << 14
    typed = False

    def __init__(self, url: StoreUrl) -> None:
        self.url = url
        self._psycopg = optional_import(
            "psycopg", extra="postgres", needed_by="a store in PostgreSQL", error_type=SettingsError
        )
        optional_import("psycopg.sql", extra="postgres", needed_by="a store in PostgreSQL", error_type=SettingsError)
        self._lock = threading.RLock()
        self._open: Any = None
        self._version: tuple[int, ...] = ()
        schema, _, name = url.table.rpartition(".")
        self._name = name
        self._table = self._psycopg.sql.Identifier(*filter(None, (schema, name)))

    def check_vectors(self, dimension: int, vector_type: VectorType) -> None:
        """As `Store`."""
        most = _MOST_DIMENSIONS[vector_type]
        if dimension > most:
            other = (
                f", or push them as float16 (--float16), of which it indexes {_MOST_DIMENSIONS['float16']:,}"
                if vector_type == "float32" and dimension <= _MOST_DIMENSIONS["float16"]
                else ""
            )
            raise SettingsError(
                f"vectors of dimension {dimension:,}: pgvector indexes at most {most:,} numbers of {vector_type}; "
                f"keep the first of each vector with --truncate-dim {most}{other}"
            )

    def read_header(self) -> StoreHeader | None:
        """As `Store`."""
        with self._errors():
            row = self._execute(
                "SELECT obj_description(c.oid, 'pg_class'), c.relkind FROM pg_class c WHERE c.oid = to_regclass(%s)",
                [self._table.as_string()],
            ).fetchone()
        if row is None:
            return None
        return parse_header(row[0] if row[1] in "rp" else None, str(self.url))

    def create(self, header: StoreHeader) -> None:
        """As `Store`."""
        sql = self._psycopg.sql
        statement = sql.SQL(
            'CREATE TABLE IF NOT EXISTS {} (id text COLLATE "C" PRIMARY KEY, title text NOT NULL, text text NOT NULL, '
            "metadata jsonb NOT NULL, embedding {}({}) NOT NULL, llm2comp_digest bigint NOT NULL)"
        ).format(self._table, sql.SQL(_TYPES[header.vector_type]), sql.Literal(header.dimension))
        comment = sql.SQL("COMMENT ON TABLE {} IS {}").format(self._table, sql.Literal(header.to_json()))
        with self._errors():
            self._make_extension()
            with self._alone():
                if self.read_header() is None:
                    self._execute(statement)
                self._execute(comment)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """A transaction that other processes which make this table or its index wait for."""
        with self._connection().transaction():
            self._execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"llm2comp {self.url.table}"])
            yield

    def _make_extension(self) -> None:
        if self._find_version():
            return
        try:
            self._execute("CREATE EXTENSION IF NOT EXISTS vector")
        except (self._psycopg.errors.FeatureNotSupported, self._psycopg.errors.UndefinedFile) as error:
            raise StoreError(f"{self.url}: this server has no pgvector; install it there (package pgvector)") from error
        except self._psycopg.errors.InsufficientPrivilege as error:
            raise StoreError(
                f"{self.url}: pgvector is not enabled in this database, and this user may not do it; an owner of the "
                "database runs: CREATE EXTENSION vector"
            ) from error
        except self._psycopg.errors.UniqueViolation:
            pass  # another process made it meanwhile

    def _find_version(self) -> tuple[int, ...]:
        """The version of pgvector in this database; empty: there is none."""
        if not self._version:
            row = self._execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
            self._version = tuple(int(part) for part in row[0].split(".")[:2]) if row else ()
        return self._version

    def write(self, parts: Iterable[StoreRows], *, new: bool = False) -> None:
        """As `Store`; rows go to the server while the next ones are made, and are committed in groups."""
        source = iter(parts)
        with self._errors():
            if not new:
                for rows in in_groups(source, self.rows_per_write):
                    self._upsert([rows])
                return
            while (first := next(source, None)) is not None:
                sent: list[StoreRows] = []
                try:
                    self._copy(self._table, self._group(first, source, sent))
                except self._psycopg.errors.UniqueViolation:
                    self._upsert(sent)  # another process wrote some of them meanwhile

    def _group(self, first: StoreRows, source: Iterator[StoreRows], sent: list[StoreRows]) -> Iterator[StoreRows]:
        """The parts of one transaction, noted as they are sent."""
        part: StoreRows | None = first
        rows = 0
        while part is not None:
            sent.append(part)
            yield part
            rows += len(part.rows)
            part = next(source, None) if rows < self.rows_per_write else None

    def _upsert(self, parts: Sequence[StoreRows]) -> None:
        sql = self._psycopg.sql
        draft = sql.Identifier("pg_temp", "llm2comp_draft")
        names = sql.SQL(", ").join(map(sql.Identifier, COPIED_COLUMNS))
        changes = sql.SQL(", ").join(
            sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(n)) for n in COPIED_COLUMNS[1:]
        )
        with self._connection().transaction():
            self._execute(sql.SQL("CREATE TEMPORARY TABLE llm2comp_draft (LIKE {}) ON COMMIT DROP").format(self._table))
            self._copy(draft, parts)
            self._execute(
                sql.SQL(
                    "INSERT INTO {} AS stored ({}) SELECT {} FROM {} ORDER BY id ON CONFLICT (id) DO UPDATE SET {} "
                    "WHERE stored.llm2comp_digest <> EXCLUDED.llm2comp_digest"
                ).format(self._table, names, names, draft, changes)
            )

    def _copy(self, table: Any, parts: Iterable[StoreRows]) -> None:
        sql = self._psycopg.sql
        names = sql.SQL(", ").join(map(sql.Identifier, COPIED_COLUMNS))
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(table, names)
        with self._connection().cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(BEGIN)
            for rows in parts:
                for piece in encode_rows(rows):
                    copy.write(piece)
            copy.write(END)

    def delete(self, ids: Sequence[str]) -> None:
        """As `Store`."""
        statement = self._psycopg.sql.SQL("DELETE FROM {} WHERE id = ANY(%s)").format(self._table)
        with self._errors():
            self._execute(statement, [list(ids)])

    def scan(self, *, vectors: bool) -> Iterator[Scanned]:
        """As `Store`; PostgreSQL itself computes the hashes."""
        sql = self._psycopg.sql
        send = f"{_TYPES[self._vector_type()]}_send"
        column = sql.SQL(_HASH.format(send=send) if vectors else "0")
        query = sql.SQL("SELECT id, llm2comp_digest, {} FROM {}").format(column, self._table)
        with (
            self._errors(),
            self._lock,
            self._connection().transaction(),
            self._connection().cursor("llm2comp_scan", binary=True) as cursor,
        ):
            cursor.execute(query)
            while batch := cursor.fetchmany(_ROWS_AT_ONCE):
                ids, digests, hashes = map(list, zip(*batch, strict=True))
                yield Scanned(ids, digests, hashes if vectors else None)

    def _vector_type(self) -> VectorType:
        return require_header(self.read_header(), self.url).vector_type

    def finish(self) -> bool:
        """As `Store`. The graph of the index is built in memory as far as `maintenance_work_mem` allows."""
        sql, header = self._psycopg.sql, self.read_header()
        if header is None:
            return False
        with self._errors():
            statement = sql.SQL("CREATE INDEX {} ON {} USING hnsw (embedding {}_ip_ops)").format(
                self._index_name(), self._table, sql.SQL(_TYPES[header.vector_type])
            )
            try:
                made = self._build(statement)
            except (self._psycopg.errors.DiskFull, self._psycopg.errors.OutOfMemory):
                # a container's /dev/shm is often 64 MB, too small for several workers
                made = self._build(statement, "SET LOCAL max_parallel_maintenance_workers = 0")
            if made:
                self._execute(sql.SQL("ANALYZE {}").format(self._table))
        return made

    def _index_name(self) -> Any:
        """Name of the index; empty, so that PostgreSQL chooses, if a renamed table has an index of this name still."""
        name = f"{self._name}_embedding_hnsw"
        taken = (
            "SELECT 1 FROM pg_class t JOIN pg_class i ON i.relnamespace = t.relnamespace "
            "WHERE t.oid = to_regclass(%s) AND i.relname = %s"
        )
        if self._execute(taken, [self._table.as_string(), name]).fetchone():
            return self._psycopg.sql.SQL("")
        return self._psycopg.sql.Identifier(name)

    def _build(self, statement: Any, *settings: str) -> bool:
        """Makes the index unless there is one; whether it was made."""
        known = (
            "SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam "
            "WHERE i.indrelid = to_regclass(%s) AND a.amname = 'hnsw'"
        )
        with self._alone():
            if self._execute(known, [self._table.as_string()]).fetchone():
                return False
            self._execute(
                "SELECT set_config('maintenance_work_mem', greatest(setting::bigint, least(%s, "
                "pg_total_relation_size(to_regclass(%s)) / 512))::text, true) FROM pg_settings "
                "WHERE name = 'maintenance_work_mem'",
                [_BUILD_MEMORY, self._table.as_string()],
            )
            for setting in settings:
                self._execute(setting)
            self._execute(statement)
        return True

    def count(self) -> int:
        """As `Store`."""
        with self._errors():
            return int(
                self._execute(self._psycopg.sql.SQL("SELECT count(*) FROM {}").format(self._table)).fetchone()[0]
            )

    def nearest(
        self, queries: NDArray[np.float32], k: int, *, where: Where | None = None, effort: int | None = None
    ) -> list[list[Hit]]:
        """As `Store`. If few rows pass the filter, or the index finds too few of them, all of them are compared."""
        condition = to_sql(where) if where else None
        sql = self._psycopg.sql
        query = sql.SQL(
            "SELECT id, -(embedding <#> %s::{type}), title, text, metadata FROM {table}{where} "
            "ORDER BY embedding <#> %s::{type} LIMIT %s"
        ).format(
            type=sql.SQL(_TYPES[self._vector_type()]),
            table=self._table,
            where=sql.SQL(f" WHERE {condition.text}" if condition else ""),
        )
        parameters = condition.parameters if condition else []
        chosen = min(_MOST_EFFORT, effort or max(_EFFORT, 2 * k))
        with self._errors():
            narrow = condition is not None and self._passing(condition) <= _COMPARED_ROWS
            return [
                self._nearest(query, [text, *parameters, text, k], k, chosen, filtered=bool(condition), narrow=narrow)
                for text in map(_to_text, queries)
            ]

    def _passing(self, condition: Sql) -> int:
        """Number of rows that pass a filter, counted as far as it matters."""
        sql = self._psycopg.sql
        statement = sql.SQL("SELECT count(*) FROM (SELECT 1 FROM {} WHERE {} LIMIT %s) AS passing").format(
            self._table, sql.SQL(condition.text)
        )
        return int(self._execute(statement, [*condition.parameters, _COMPARED_ROWS + 1]).fetchone()[0])

    def _nearest(
        self, query: Any, parameters: list[Any], k: int, effort: int, *, filtered: bool, narrow: bool
    ) -> list[Hit]:
        with self._lock, self._connection().transaction():
            self._execute(f"SET LOCAL hnsw.ef_search = {effort:d}")
            if filtered and self._find_version() >= _ITERATIVE_SCAN:
                self._execute("SET LOCAL hnsw.iterative_scan = strict_order")
            if narrow:
                self._execute("SET LOCAL enable_indexscan = off")
            rows = self._execute(query, parameters).fetchall()
            if len(rows) < k and not narrow:
                self._execute("SET LOCAL enable_indexscan = off")
                rows = self._execute(query, parameters).fetchall()
        return [Hit(*row) for row in rows]

    def close(self) -> None:
        """As `Store`."""
        with self._lock:
            if self._open is not None:
                self._open.close()

    def _execute(self, statement: Any, parameters: Sequence[Any] | None = None) -> Any:
        return self._connection().execute(statement, parameters)

    def _connection(self) -> Any:
        """The connection; a new one if there is none, or it was lost."""
        with self._lock:
            if self._open is None or self._open.closed:
                with self._errors("cannot connect"):
                    self._open = self._psycopg.connect(
                        self.url.address, autocommit=True, connect_timeout=15, application_name="llm2comp"
                    )
            return self._open

    @contextmanager
    def _errors(self, what: str = "") -> Iterator[None]:
        """Turns errors of the driver into one line each."""
        errors = self._psycopg.errors
        try:
            yield
        except errors.InsufficientPrivilege as error:
            raise StoreError(
                f"{self.url}: {self._say(error)}; grant this user the right, or connect as one that has it"
            ) from error
        except errors.ProgramLimitExceeded as error:
            raise StoreError(
                f"{self.url}: an id is too long for a key of PostgreSQL, which has at most some 2,700 bytes "
                f"({self._say(error)}); give the documents shorter ids"
            ) from error
        except self._psycopg.OperationalError as error:
            lost = self._open is not None and self._open.closed
            what = what or ("the connection was lost" if lost else "the server refused")
            again = "; what was written is kept, run this again" if lost else ""
            raise StoreError(f"{self.url}: {what}: {self._say(error)}{again}") from None
        except self._psycopg.Error as error:
            raise StoreError(f"{self.url}: {self._say(error)}") from error

    def _say(self, error: Exception) -> str:
        primary = getattr(getattr(error, "diag", None), "message_primary", None)
        return self.url.scrub(primary or one_line(error))


def _to_text(vector: NDArray[np.float32]) -> str:
    return f"[{','.join(map(repr, vector.tolist()))}]"
