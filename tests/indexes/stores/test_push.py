"""An index pushed to a real store: whole, once, again, killed half-way, and to tables that are not its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm2comp.errors import SettingsError, StoreError
from llm2comp_indexes import (
    IndexOptions,
    SearchOptions,
    add_documents,
    build_index,
    delete_documents,
    open_index,
    open_store_index,
    push_index,
)
from llm2comp_indexes.stores import push as pushing
from llm2comp_indexes.stores import transfer
from llm2comp_indexes.stores.contract import Scanned
from llm2comp_indexes.stores.open import open_store
from llm2comp_indexes.stores.rows import StoreRows, hash_vectors, make_rows
from tests.indexes.stores.conftest import documents
from tests.word_encoder import WordEncoder

Make = Callable[..., Path]


def contents(url: str) -> dict[str, tuple[int, int]]:
    """Digest of each row, and the hash of its stored vector."""
    store = open_store(url)
    try:
        parts = list(store.scan(vectors=True))
    finally:
        store.close()
    rows = [row for part in parts for row in zip(part.ids, part.digests, part.hashes or [], strict=True)]
    assert len({row[0] for row in rows}) == len(rows)
    return {identifier: (digest, number) for identifier, digest, number in rows}


def test_all_rows_arrive_and_a_second_push_changes_nothing(store_url: str, make_index: Make) -> None:
    folder = make_index(documents(300))
    seen: list[str] = []
    first = push_index(folder, store_url, progress=lambda phase, done: seen.append(f"{phase} {done}"))
    assert (first.rows, first.dimension, first.added, first.changed, first.deleted, first.others) == (
        *(300, 32, 300, 0, 0, 0),
    )
    assert "rows pushed 300" in seen
    assert "rows compared 300" in seen
    before = contents(store_url)
    vectors = WordEncoder().encode_document(
        [f"{row['title']}\n{row['text']}" if row["title"] else row["text"] for row in documents(300)]
    )
    expected = dict(zip([row["_id"] for row in documents(300)], hash_vectors(vectors), strict=True))
    assert {identifier: number for identifier, (_, number) in before.items()} == expected
    second = push_index(folder, store_url)
    assert (second.added, second.changed, second.deleted, second.others) == (0, 0, 0, 0)
    assert contents(store_url) == before
    row = documents(300)[77]
    with open_store_index(store_url, model=WordEncoder()) as index:
        [[hit]] = index.search([f"{row['title']} {row['text']}"], k=1)
    assert (hit.id, hit.title, hit.text) == (row["_id"], row["title"], row["text"])
    known = {name: row[name] for name in ("year", "price", "new", "lang", "tags")}
    assert {name: value for name, value in hit.metadata.items() if value is not None} == known
    assert type(hit.metadata["new"]) is bool


def test_changes_and_deletions_are_carried_over(store_url: str, make_index: Make, tmp_path: Path) -> None:
    folder = make_index(documents(40))
    push_index(folder, store_url)
    delete_documents(folder, ["d3 é", "d4 é"])
    changed = documents(1, first=5)[0] | {"lang": "fr", "pages": 7}
    moved = documents(1, first=6)[0] | {"text": "quite another text"}
    (tmp_path / "more.jsonl").write_text(
        "".join(f"{json.dumps(row)}\n" for row in [changed, moved, *documents(2, first=40)])
    )
    add_documents(folder, [tmp_path / "more.jsonl"], model=WordEncoder())
    report = push_index(folder, store_url)
    assert (report.added, report.changed, report.deleted, report.others) == (2, 2, 0, 2)
    assert {"d3 é", "d4 é"} < set(contents(store_url))
    report = push_index(folder, store_url, sync=True)
    assert (report.added, report.changed, report.deleted, report.others) == (0, 0, 2, 0)
    assert set(contents(store_url)) == {row["_id"] for row in documents(42)} - {"d3 é", "d4 é"}
    with open_store_index(store_url, model=WordEncoder()) as index:
        [hits] = index.search(["quite another text"], k=3, options=SearchOptions(where="pages == 7"))
        assert [(hit.id, hit.metadata["lang"]) for hit in hits] == [("d5 é", "fr")]
        [[hit]] = index.search(["quite another text"], k=1)
        assert hit.id == "d6 é"


def test_ids_of_any_characters(store_url: str, make_index: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(open_store(store_url)), "rows_per_write", 2)  # Milvus reads by pages, from an id on
    names = [
        "new\nline",
        "tab\t",
        "\r",
        "\x01\x7f\u2028",
        'quote"d',
        "it's",
        "back\\slash",
        "'; DROP TABLE docs; --",
        "%_",
    ]
    rows = [{"_id": name, "text": f"text {name!r}", "kind": name} for name in [*names, "x" * 2600]]
    folder = make_index(rows)
    push_index(folder, store_url)
    assert push_index(folder, store_url).added == 0
    with open_store_index(store_url, model=WordEncoder()) as index:
        assert {hit.id for hit in index.search(["bread"], k=50)[0]} == {row["_id"] for row in rows}
        for name in names:
            [hits] = index.search(["bread"], k=2, options=SearchOptions(where=f"kind == {name!r}"))
            assert [hit.id for hit in hits] == [name]
    delete_documents(folder, names[1:])
    assert push_index(folder, store_url, sync=True).deleted == len(names) - 1
    assert set(contents(store_url)) == {names[0], "x" * 2600}


def test_what_one_store_cannot_hold_is_named(store_url: str, make_index: Make) -> None:
    long = make_index([{"_id": "long", "text": "n" * 70_000}], "long")
    null = make_index([{"_id": "a", "text": "b", "na\0me": 1}], "null")
    if store_url.startswith("milvus"):
        with pytest.raises(StoreError, match='row "long": its text has 70,000 characters.*--chunk-tokens'):
            push_index(long, store_url)
    else:
        push_index(long, store_url)
    if store_url.startswith("lancedb"):
        with pytest.raises(StoreError, match=r"the metadata field 'na\\x00me' has a null character.*rename it"):
            push_index(null, store_url)
    else:
        push_index(null, store_url)
        with open_store_index(store_url, model=WordEncoder()) as index:
            assert {"a"} <= {hit.id for hit in index.search(["bread"], k=2)[0]}


def test_float16_and_fewer_numbers(store_url: str, make_index: Make) -> None:
    folder = make_index(documents(50))
    report = push_index(folder, store_url, truncate_dim=16, float16=True)
    assert report.dimension == 16
    vectors = WordEncoder().encode_document(
        [f"{row['title']}\n{row['text']}" if row["title"] else row["text"] for row in documents(50)]
    )[:, :16]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    assert sorted(number for _, number in contents(store_url).values()) == sorted(hash_vectors(vectors))
    assert push_index(folder, store_url, truncate_dim=16, float16=True).added == 0
    with pytest.raises(StoreError, match="holds vectors of dimension 16, these have 32; name another table"):
        push_index(folder, store_url)
    with pytest.raises(StoreError, match="the model gives 32"):
        open_store_index(store_url, model=WordEncoder())


def test_an_index_of_float16(store_url: str, make_index: Make) -> None:
    folder = make_index(documents(20), options=IndexOptions(store="float16"))
    push_index(folder, store_url)
    with open_index(folder, model=WordEncoder()) as index:
        stored = index.segments[0].storage.read(np.arange(20))
    assert sorted(number for _, number in contents(store_url).values()) == sorted(
        hash_vectors(stored.astype(np.float16))
    )


def test_another_models_vectors_are_refused(store_url: str, make_index: Make) -> None:
    folder = make_index(documents(5))
    push_index(folder, store_url)
    before = contents(store_url)
    other = folder.with_name("other")
    build_index([folder.with_name("idx.jsonl")], other, model=WordEncoder(fingerprint="others"))
    with pytest.raises(StoreError, match="they do not mix; name another table") as failure:
        push_index(other, store_url)
    assert "\n" not in str(failure.value)
    with pytest.raises(StoreError, match="not with this model"):
        open_store_index(store_url, model=WordEncoder(fingerprint="others"))
    assert contents(store_url) == before


def test_nothing_is_there_to_search_or_to_push(store_url: str, make_index: Make) -> None:
    with pytest.raises(StoreError, match="there is no such table; make it with: llm2comp index push"):
        open_store_index(store_url)
    folder = make_index(documents(2))
    delete_documents(folder, ["d0 é", "d1 é"])
    with pytest.raises(SettingsError, match="holds no documents, so there is nothing to push"):
        push_index(folder, store_url)
    with pytest.raises(SettingsError, match="truncate_dim is 64, and vectors of .* have 32 numbers"):
        push_index(make_index(documents(2), "two"), store_url, truncate_dim=64)


def test_a_push_that_stops_half_way_goes_on(store_url: str, make_index: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_index(documents(120))
    kind = type(open_store(store_url))
    monkeypatch.setattr(kind, "rows_per_write", 10)
    monkeypatch.setattr(pushing, "_ROWS_AT_ONCE", 10)
    write, calls = kind.write, []

    def write_some(self: Any, parts: Iterable[StoreRows], *, new: bool = False) -> None:
        write(self, some(parts), new=new)

    def some(parts: Iterable[StoreRows]) -> Iterator[StoreRows]:
        for part in parts:
            calls.append(len(part.rows))
            if len(calls) == 6:
                raise StoreError("the network is gone")
            yield part

    monkeypatch.setattr(kind, "write", write_some)
    with pytest.raises(StoreError, match="the network is gone"):
        push_index(folder, store_url)
    assert len(contents(store_url)) == 50
    report = push_index(folder, store_url)
    assert (report.added, report.changed, report.indexed) == (70, 0, store_url.startswith(("postgresql", "milvus")))
    assert len(contents(store_url)) == 120


def test_vectors_that_the_store_altered_are_found_and_written_anew(
    store_url: str, make_index: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_index(documents(30))
    push_index(folder, store_url)
    good = contents(store_url)
    store = open_store(store_url)
    part = next(iter(store.scan(vectors=True)))
    rows = _rows(folder)[:2]
    digests = [part.digests[part.ids.index(row.id)] for row in rows]
    altered = StoreRows(rows, np.full((2, 32), 0.125, np.float32), [b"{}"] * 2, digests, [0, 0])
    store.delete([row.id for row in altered.rows])
    store.write([altered])
    store.close()
    with pytest.raises(StoreError, match="2 of 30 vectors are not those that were written.*run this again") as failure:
        push_index(folder, store_url)
    assert "\n" not in str(failure.value)
    assert push_index(folder, store_url).added == 2
    assert contents(store_url) == good


def _rows(folder: Path) -> list[Any]:
    with open_index(folder, model=WordEncoder()) as index:
        return [row for block in pushing.read_blocks(index) for row in block.rows]


def test_a_row_that_vanishes_is_noticed(store_url: str, make_index: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_index(documents(30))
    kind = type(open_store(store_url))
    scan = kind.scan

    def lose(self: Any, *, vectors: bool) -> Any:
        for part in scan(self, vectors=vectors):
            yield Scanned(part.ids[1:], part.digests[1:], part.hashes and part.hashes[1:])

    monkeypatch.setattr(kind, "scan", lose)
    with pytest.raises(StoreError, match="of 30 rows of the index; something else deletes from it"):
        push_index(folder, store_url)


def test_two_pushes_at_once_leave_each_row_once(
    store_url: str, make_index: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One looks at what is there, then the other one pushes: what LanceDB has twice then, the next push mends."""
    if store_url.startswith(("qdrant+file", "milvus")):
        pytest.skip("files that one process has at a time")
    push_index(make_index(documents(5), "few"), store_url)
    folder, read = make_index(documents(80)), transfer._read_held

    def interrupted(*arguments: Any) -> Any:
        held = read(*arguments)
        monkeypatch.undo()
        push_index(folder, store_url)
        return held

    monkeypatch.setattr(transfer, "_read_held", interrupted)
    if store_url.startswith("lancedb"):
        with pytest.raises(StoreError, match="75 of 80 rows were there twice, such as .*run this again") as failure:
            push_index(folder, store_url)
        assert "\n" not in str(failure.value)
    else:
        push_index(folder, store_url)
    push_index(folder, store_url)
    assert len(contents(store_url)) == 80


def test_several_writers_write_rows_of_their_own(store_url: str, make_index: Make) -> None:
    """As the actors of a cluster do: `create` once, `write` anywhere and any number of times, `finish` once."""
    folder = make_index(documents(60))
    with open_index(folder, model=WordEncoder()) as index:
        header = pushing._header(index, None, float16=False)
        [block] = pushing.read_blocks(index)
    first = open_store(store_url)
    try:
        first.create(header)
        for part in (slice(0, 30), slice(20, 60), slice(20, 40)):
            first.write([make_rows(block.rows[part], block.vectors[part], header)])
        assert first.finish() in (True, False)
    finally:
        first.close()
    assert len(contents(store_url)) == 60
    report = push_index(folder, store_url)
    assert (report.added, report.changed, report.others) == (0, 0, 0)


@pytest.mark.slow
def test_killed_pushes_go_on(store_url: str, make_index: Make, tmp_path: Path) -> None:
    folder = make_index(documents(3000))
    script = (
        "import sys\nfrom llm2comp_indexes.stores import push\npush._ROWS_AT_ONCE = 50\n"
        "from llm2comp_indexes.stores.open import open_store\n"
        "url = sys.argv[2]\ntype(open_store(url)).rows_per_write = 50\n"
        "from llm2comp_indexes import push_index\nprint('ready', flush=True)\npush_index(sys.argv[1], url)"
    )
    held = 0
    for attempt in range(5):
        run = subprocess.Popen([sys.executable, "-c", script, str(folder), store_url], stdout=subprocess.PIPE)
        assert run.stdout is not None
        run.stdout.readline()
        time.sleep(0.1 + 0.15 * attempt)
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        run.stdout.close()
        try:
            rows = len(contents(store_url))
        except StoreError:
            rows = 0  # killed before there was a table
        assert rows >= held
        held = rows
    report = push_index(folder, store_url)
    assert report.added + held == 3000
    assert len(contents(store_url)) == 3000
    assert push_index(folder, store_url).added == 0
