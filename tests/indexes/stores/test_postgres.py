"""What only PostgreSQL has: its index and types, rights, a server that goes away, and texts that it cannot hold."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from llm2comp.corpus.documents import Document
from llm2comp.errors import SettingsError, StoreError
from llm2comp_indexes import SearchOptions, open_store_index, push_index
from llm2comp_indexes.stores import push as pushing
from llm2comp_indexes.stores.header import StoreHeader
from llm2comp_indexes.stores.open import open_store
from llm2comp_indexes.stores.postgres import PostgresStore
from llm2comp_indexes.stores.rows import StoreRows, make_rows
from tests.indexes.stores.conftest import documents
from tests.postgres_server import PASSWORD, PostgresServer, running_postgres
from tests.word_encoder import WordEncoder

Make = Callable[..., Path]


def test_the_table_is_typed_and_indexed(postgres: PostgresServer, make_index: Make) -> None:
    folder = make_index(documents(30))
    assert push_index(folder, postgres.url(table="typed")).indexed
    columns = postgres.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = 'typed'::regclass AND attnum > 0"
    )
    assert dict(columns) == {
        "id": "text",
        "title": "text",
        "text": "text",
        "metadata": "jsonb",
        "embedding": "vector(32)",
        "llm2comp_digest": "bigint",
    }
    [[definition]] = postgres.execute("SELECT indexdef FROM pg_indexes WHERE indexname = 'typed_embedding_hnsw'")
    assert "USING hnsw (embedding vector_ip_ops)" in definition
    assert postgres.execute(
        "SELECT jsonb_typeof(metadata -> 'year'), metadata ->> 'lang' FROM typed WHERE id = 'd7 é'"
    ) == [("number", "en")]
    assert not push_index(folder, postgres.url(table="typed")).indexed
    push_index(folder, postgres.url(table="half"), float16=True)
    assert postgres.execute("SELECT vector_dims(embedding::vector), pg_typeof(embedding)::text FROM half LIMIT 1") == [
        (32, "halfvec")
    ]


def test_a_schema_and_names_of_any_kind(postgres: PostgresServer, make_index: Make) -> None:
    postgres.execute('CREATE SCHEMA "Sales"')
    folder = make_index(documents(5))
    for table in ("Sales.Docs-2", "select", "übung"):
        assert push_index(folder, postgres.url(table=table)).added == 5
        assert push_index(folder, postgres.url(table=table)).added == 0
    assert postgres.execute('SELECT count(*) FROM "Sales"."Docs-2"') == [(5,)]
    with pytest.raises(StoreError, match='schema "nowhere" does not exist'):
        push_index(folder, postgres.url(table="nowhere.docs"))


def test_a_table_of_someone_else_is_left_alone(postgres: PostgresServer, make_index: Make) -> None:
    postgres.execute("CREATE TABLE theirs (id text, embedding text); INSERT INTO theirs VALUES ('x', 'y')")
    postgres.execute("COMMENT ON TABLE theirs IS 'customers'; CREATE VIEW seen AS SELECT * FROM theirs")
    folder = make_index(documents(5))
    for table in ("theirs", "seen"):
        with pytest.raises(StoreError, match="exists and was not made by llm2comp, so it is left alone"):
            push_index(folder, postgres.url(table=table), sync=True)
        with pytest.raises(StoreError, match="was not made by llm2comp"):
            open_store_index(postgres.url(table=table))
    assert postgres.execute("SELECT * FROM theirs") == [("x", "y")]


def test_dimensions_that_pgvector_does_not_index_are_refused_before_anything_is_connected() -> None:
    pytest.importorskip("psycopg")
    store = open_store("postgresql://127.0.0.1:1/none")
    for dimension, vector_type, message in (
        (2001, "float32", "--truncate-dim 2000, or push them as float16"),
        (4096, "float32", "--truncate-dim 2000"),
        (4096, "float16", "--truncate-dim 4000"),
    ):
        with pytest.raises(SettingsError, match=message):
            store.check_vectors(dimension, vector_type)  # type: ignore[arg-type]
    store.check_vectors(2000, "float32")
    store.check_vectors(4000, "float16")


def search(url: str) -> int:
    """Number of hits of a question."""
    with open_store_index(url, model=WordEncoder()) as index:
        return len(index.search(["bread"], k=3)[0])


def test_rights_that_a_user_lacks_are_named(postgres: PostgresServer, make_index: Make) -> None:
    folder = make_index(documents(5))
    for role in ("reader", "writer"):
        postgres.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    postgres.execute("CREATE DATABASE guarded")
    url = postgres.url_over_network("writer", database="guarded")
    with pytest.raises(
        StoreError, match="pgvector is not enabled in this database.*CREATE EXTENSION vector"
    ) as failure:
        push_index(folder, url)
    messages = [str(failure.value)]
    postgres.execute("CREATE EXTENSION vector", "guarded")
    with pytest.raises(StoreError, match="permission denied for schema public; grant this user the right") as failure:
        push_index(folder, url)
    messages.append(str(failure.value))
    postgres.execute("GRANT CREATE ON SCHEMA public TO writer", "guarded")
    assert push_index(folder, url).added == 5
    url = postgres.url_over_network("reader", database="guarded")
    with pytest.raises(StoreError, match="permission denied for table llm2comp") as failure:
        search(url)
    messages.append(str(failure.value))
    postgres.execute("GRANT SELECT ON llm2comp TO reader", "guarded")
    assert search(url) == 3
    with pytest.raises(StoreError, match="must be owner of table|permission denied") as failure:
        push_index(make_index(documents(6), "six"), url)
    messages.append(str(failure.value))
    url = postgres.url_over_network("reader", "wrong-" + PASSWORD)
    with pytest.raises(StoreError, match="cannot connect: .*password authentication failed") as failure:
        push_index(folder, url)
    messages.append(str(failure.value))
    assert not any(PASSWORD in message or "\n" in message for message in messages), messages


def test_a_server_that_is_not_there(make_index: Make) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError, match="cannot connect: .*127.0.0.1") as failure:
        push_index(make_index(documents(2)), f"postgresql://me:{PASSWORD}@127.0.0.1:9/db")
    assert PASSWORD not in str(failure.value)


def test_a_connection_that_is_lost_half_way(make_index: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server dies in the middle of a push; the message says what to do, and doing it completes the table."""
    with running_postgres() as server:
        folder = make_index(documents(100))
        url = server.url(table="docs")
        monkeypatch.setattr(PostgresStore, "rows_per_write", 10)
        monkeypatch.setattr(pushing, "_ROWS_AT_ONCE", 10)
        write, calls = PostgresStore.write, []

        def write_and_die(self: PostgresStore, parts: Iterable[StoreRows], *, new: bool = False) -> None:
            write(self, stop_after_some(parts), new=new)

        def stop_after_some(parts: Iterable[StoreRows]) -> Iterator[StoreRows]:
            for part in parts:
                calls.append(1)
                if len(calls) == 5:
                    server.stop()
                yield part

        monkeypatch.setattr(PostgresStore, "write", write_and_die)
        with pytest.raises(StoreError, match="the connection was lost.*run this again") as failure:
            push_index(folder, url)
        assert "\n" not in str(failure.value)
        monkeypatch.setattr(PostgresStore, "write", write)
        server.start()
        assert push_index(folder, url).added == 60
        with open_store_index(url, model=WordEncoder()) as index:
            before = index.search(["bread"], k=5)
            server.stop()
            with pytest.raises(StoreError):
                index.search(["bread"], k=5)
            server.start()
            assert index.search(["bread"], k=5) == before  # connects again


def test_texts_that_postgresql_cannot_hold(postgres: PostgresServer) -> None:
    header = StoreHeader("f", None, 2)
    rows = [
        Document(
            "a", "ti\0tle", "te\0xt", {"k\0": "v\0", "nan": float("nan"), "list": [float("inf"), "\0"], "b": "\\u0000"}
        ),
        Document("b \ud800", "", "\udfff", {"\ud800": "\udfff"}),
    ]
    store = open_store(postgres.url(table="odd"))
    store.create(header)
    store.write([make_rows(rows, np.eye(2, dtype=np.float32), header)], new=True)
    store.write([make_rows(rows, np.eye(2, dtype=np.float32), header)])
    [[first, second]] = store.nearest(np.array([[1, 0.1]], np.float32), 2)
    assert (first.title, first.text) == ("ti\ufffdtle", "te\ufffdxt")
    assert first.metadata == {"k\ufffd": "v\ufffd", "nan": None, "list": [None, "\ufffd"], "b": "\\u0000"}
    assert (second.id, second.text, second.metadata) == ("b ?", "?", {"?": "?"})
    with pytest.raises(StoreError, match="the id .* has a null character"):
        store.write([make_rows([Document("x\0", "", "t")], np.ones((1, 2), np.float32), header)])
    with pytest.raises(StoreError, match="not finite"):
        make_rows(rows, np.full((2, 2), np.nan, np.float32), header)
    with pytest.raises(StoreError, match="not finite as float16"):
        make_rows(rows, np.full((2, 2), 1e6, np.float32), StoreHeader("f", None, 2, "float16"))
    store.close()


def test_an_id_that_is_too_long_for_a_key(postgres: PostgresServer, make_index: Make) -> None:
    name = "".join(chr(ord("a") + number * number % 7919 % 26) + str(number) for number in range(2000))
    folder = make_index([{"_id": "short", "text": "a"}, {"_id": name, "text": "b"}], "long_id")
    with pytest.raises(StoreError, match="an id is too long for a key of PostgreSQL, .* 2,700 bytes") as failure:
        push_index(folder, postgres.url(table="long_id"))
    assert "\n" not in str(failure.value)


def test_a_narrow_filter_finds_all_its_rows(postgres: PostgresServer) -> None:
    """HNSW looks at a few hundred rows; those that pass the filter are far away from the question."""
    draw, header = np.random.default_rng(0), StoreHeader("f", None, 16)
    near = draw.normal(size=(3000, 16)) * 0.1 + 1
    far = draw.normal(size=(12, 16)) * 0.1 - 1
    vectors = np.concatenate([near, far]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [Document(f"d{row}", "", "t", {"far": row >= 3000}) for row in range(3012)]
    store = open_store(postgres.url(table="narrow"))
    store.create(header)
    store.write([make_rows(rows, vectors, header)], new=True)
    store.finish()
    from llm2comp_indexes.filters.parse import parse_where

    [hits] = store.nearest(np.full((1, 16), 0.25, np.float32), 12, where=parse_where("far"))
    assert {hit.id for hit in hits} == {f"d{row}" for row in range(3000, 3012)}
    scores = vectors[3000:] @ np.full(16, 0.25, np.float32)
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=1e-5)
    store.close()


def test_a_filter_that_few_rows_pass_gives_the_exact_answers(postgres: PostgresServer) -> None:
    """A graph's order is poor far from the question: rows of random vectors, of which one in a hundred passes."""
    draw, header = np.random.default_rng(0), StoreHeader("f", None, 64)
    vectors = draw.normal(size=(6000, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    store = open_store(postgres.url(table="few"))
    store.create(header)
    rows = [Document(f"d{row}", "", "t", {"passes": row % 100 == 0}) for row in range(6000)]
    store.write([make_rows(rows, vectors, header)], new=True)
    store.finish()
    from llm2comp_indexes.filters.parse import parse_where

    questions = vectors[1:21]
    for question, hits in zip(questions, store.nearest(questions, 10, where=parse_where("passes")), strict=True):
        best = 100 * np.argsort(-(vectors[::100] @ question), kind="stable")[:10]
        assert [hit.id for hit in hits] == [f"d{row}" for row in best]
    store.close()


def test_two_pushes_at_once_leave_a_whole_table(
    postgres: PostgresServer, make_index: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = make_index(documents(50)), postgres.url(table="twice")
    write = PostgresStore.write

    def write_twice(self: PostgresStore, parts: Iterable[StoreRows], *, new: bool = False) -> None:
        rows = list(parts)
        write(self, rows, new=new)
        write(self, rows, new=new)  # as if another push had been faster

    monkeypatch.setattr(PostgresStore, "write", write_twice)
    assert push_index(folder, url).added == 50
    assert postgres.execute("SELECT count(*) FROM twice") == [(50,)]


def test_processes_that_make_a_table_at_once_wait_for_each_other(postgres: PostgresServer) -> None:
    header = StoreHeader("print", "name", 32)

    def make(url: str, barrier: threading.Barrier) -> bool:
        store = open_store(url)
        try:
            store.count() if store.read_header() else None  # connects
            barrier.wait(20)
            store.create(header)
            store.create(header)
            barrier.wait(20)
            return store.finish()
        finally:
            store.close()

    for number in range(5):
        barrier = threading.Barrier(4)
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(make, [postgres.url(table=f"atonce{number}")] * 4, [barrier] * 4))
        assert sum(made) == 1


def test_the_index_of_a_table_that_was_renamed_is_in_nobodys_way(postgres: PostgresServer, make_index: Make) -> None:
    folder = make_index(documents(5))
    push_index(folder, postgres.url(table="swapped"))
    postgres.execute("ALTER TABLE swapped RENAME TO swapped_before")
    assert push_index(folder, postgres.url(table="swapped")).indexed
    assert postgres.execute("SELECT count(*) FROM pg_indexes WHERE tablename = 'swapped' AND indexdef ~ 'hnsw'") == [
        (1,)
    ]
    assert not push_index(folder, postgres.url(table="swapped")).indexed


def test_a_search_with_a_filter_in_a_large_result(postgres: PostgresServer, make_index: Make) -> None:
    push_index(make_index(documents(30)), postgres.url(table="all_of_it"))
    with open_store_index(postgres.url(table="all_of_it"), model=WordEncoder()) as index:
        [hits] = index.search(["bread"], k=1000, options=SearchOptions(where="year is None"))
        assert len(hits) == 8
