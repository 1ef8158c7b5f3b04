"""Vectors of a segment on disk: reading, exact search, files that are cut, altered or left by a killed build."""

import hashlib
from pathlib import Path

import faiss
import numpy as np
import pytest

from llm2comp.errors import IndexFolderError, SettingsError
from llm2comp_indexes.format.vectors import StorageWriter, open_storage, storage_bytes
from llm2comp_indexes.options import STORES, Store
from tests.indexes.clustered import best_rows, draw_vectors, store_vectors, unit
from tests.indexes.processes import run_python

TOLERANCE = {
    "float32": 0.0,
    "float16": 2**-11,
    "int8": 0.5 / 127 + 1e-7,
}  # largest rounding of a component within [-1, 1]


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("dimension", [1, 7, 64])
def test_reads_back_what_was_written_in_blocks_of_any_size(tmp_path: Path, store: Store, dimension: int) -> None:
    vectors = draw_vectors(300, dimension)
    with StorageWriter(tmp_path / "v", dimension, store) as writer:
        for block in np.split(vectors, [1, 1, 130]):
            writer.append(block)
        record = writer.finish()
    assert record.bytes == (tmp_path / "v").stat().st_size == storage_bytes(300, dimension, store)
    assert record.sha256 == hashlib.sha256((tmp_path / "v").read_bytes()).hexdigest()
    storage = open_storage(tmp_path / "v", rows=300, dimension=dimension, store=store)
    rows = np.array([299, 0, 130, 0])
    assert np.abs(storage.read(rows) - vectors[rows]).max() <= TOLERANCE[store]
    stored = np.concatenate(list(storage.blocks(77)))
    np.testing.assert_array_equal(stored, storage.read(np.arange(300)))
    np.testing.assert_array_equal(storage.fetch(rows), stored[rows])


@pytest.mark.parametrize("store", STORES)
def test_faiss_reads_the_file_and_decodes_the_same_vectors(tmp_path: Path, store: Store) -> None:
    storage = store_vectors(tmp_path / "v", draw_vectors(50, 32), store)
    index = faiss.read_index(str(tmp_path / "v"))
    assert index.ntotal == 50
    np.testing.assert_allclose(index.reconstruct_n(0, 50), storage.read(np.arange(50)), atol=2e-7)


def test_rounding_is_to_the_nearest(tmp_path: Path) -> None:
    vectors = np.array([[1.0, -1.0, 0.5, 0.0039, -0.0041, 1e-9]], dtype=np.float32)
    half = store_vectors(tmp_path / "half", vectors, "float16").read(np.array([0]))
    np.testing.assert_array_equal(half[0], vectors[0].astype(np.float16).astype(np.float32))
    small = store_vectors(tmp_path / "int8", vectors, "int8").read(np.array([0]))
    np.testing.assert_array_equal(
        small[0], np.array([127, -127, 64, 0, -1, 0], dtype=np.float32) / np.float32(127)
    )  # 63.5 goes to the even 64


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("k", [1, 10, 150, 500])
@pytest.mark.parametrize("part", [None, 0.5, 0.01, 0.0])
def test_search_is_exact_with_and_without_a_mask(tmp_path: Path, store: Store, k: int, part: float | None) -> None:
    vectors = draw_vectors(400, 32)
    vectors[100:300] = vectors[0]  # ties, of which only the first rows may come
    storage = store_vectors(tmp_path / "v", vectors, store)
    queries = np.concatenate([vectors[:1], draw_vectors(30, 32, seed=5)])
    allowed = None if part is None else np.random.default_rng(1).random(400) < part
    results = storage.search(queries, k, allowed=allowed)
    stored = storage.read(np.arange(400))
    np.testing.assert_array_equal(results.rows, best_rows(stored, queries, k, allowed))
    there = results.rows >= 0
    assert np.isneginf(results.scores[~there]).all()
    exact = np.einsum(
        "qd,qkd->qk", queries.astype(np.float64), stored[np.where(there, results.rows, 0)].astype(np.float64)
    )
    np.testing.assert_allclose(results.scores[there], exact[there], rtol=1e-6, atol=1e-7)


def test_scores_of_equal_vectors_are_equal_wherever_they_stand(tmp_path: Path) -> None:
    vectors = draw_vectors(9000, 48)
    vectors[[3, 4500, 8999]] = vectors[17]
    storage = store_vectors(tmp_path / "v", vectors)
    scores = storage.scores(draw_vectors(1, 48, seed=2)[0], np.arange(9000))
    assert len({scores[row] for row in (3, 17, 4500, 8999)}) == 1
    assert storage.scores(draw_vectors(1, 48, seed=2)[0], np.array([4500]))[0] == scores[17]


def test_all_vectors_the_same(tmp_path: Path) -> None:
    storage = store_vectors(tmp_path / "v", np.repeat(draw_vectors(1, 32), 3000, axis=0), "float16")
    np.testing.assert_array_equal(storage.search(draw_vectors(2, 32, seed=1), 5).rows, [range(5)] * 2)


@pytest.mark.parametrize("store", STORES)
def test_one_vector_and_none(tmp_path: Path, store: Store) -> None:
    query = draw_vectors(1, 8)
    one = store_vectors(tmp_path / "one", query, store)
    np.testing.assert_array_equal(one.search(query, 3).rows, [[0, -1, -1]])
    none = store_vectors(tmp_path / "none", query[:0], store)
    assert none.rows == 0
    np.testing.assert_array_equal(none.search(query, 2).rows, [[-1, -1]])
    assert list(none.blocks()) == []
    assert none.read(np.empty(0, np.int64)).shape == (0, 8)


@pytest.mark.parametrize("rows", [[-1], [40], [0, 40]])
def test_rows_that_do_not_exist_are_refused(tmp_path: Path, rows: list[int]) -> None:
    storage = store_vectors(tmp_path / "v", draw_vectors(40, 8))
    for read in (storage.read, storage.fetch):
        with pytest.raises(IndexError, match="expected within 0 and 39"):
            read(np.array(rows))


@pytest.mark.parametrize("store", STORES)
def test_a_killed_build_goes_on_where_it_was_sure(tmp_path: Path, store: Store) -> None:
    vectors = draw_vectors(100, 16)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    store_vectors(whole, vectors, store)
    with StorageWriter(cut, 16, store) as writer:
        writer.append(vectors[:60])
        writer.sync()
        writer.append(vectors[60:75])  # and then it was killed: no header, a part of a block behind row 60
    with pytest.raises(IndexFolderError):
        open_storage(cut, rows=75, dimension=16, store=store)
    with StorageWriter(cut, 16, store, rows=60) as writer:
        assert writer.rows == 60
        writer.append(vectors[60:])
        writer.finish()
    assert cut.read_bytes() == whole.read_bytes()


def test_going_on_with_too_short_a_file_is_refused(tmp_path: Path) -> None:
    store_vectors(tmp_path / "v", draw_vectors(10, 8))
    for path in (tmp_path / "v", tmp_path / "missing"):
        with pytest.raises(IndexFolderError, match="fewer than the 11 vectors"):
            StorageWriter(path, 8, "float32", rows=11)


@pytest.mark.parametrize("store", STORES)
def test_every_byte_of_the_header_is_checked(tmp_path: Path, store: Store) -> None:
    path = tmp_path / "v"
    store_vectors(path, draw_vectors(3, 8), store)
    content = path.read_bytes()
    header = len(content) - (storage_bytes(3, 8, store) - storage_bytes(0, 8, store))
    for position in range(header):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x41]) + content[position + 1 :])
        with pytest.raises(IndexFolderError, match="header"):
            open_storage(path, rows=3, dimension=8, store=store)


def test_another_size_kind_or_count_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v"
    store_vectors(path, draw_vectors(4, 8))
    for changed in (
        {"rows": 3},
        {"rows": -1},
        {"dimension": 4},
        {"store": "float16"},
        {"store": "float64"},
        {"dimension": 0},
    ):
        with pytest.raises(IndexFolderError):
            open_storage(path, **{"rows": 4, "dimension": 8, "store": "float32", **changed})
    path.rename(tmp_path / "real")
    path.symlink_to(tmp_path / "real")
    with pytest.raises(IndexFolderError, match="not a plain file"):
        open_storage(path, rows=4, dimension=8, store="float32")


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="float64.*expected one of float32, float16, int8"):
        StorageWriter(tmp_path / "v", 8, "float64")
    with StorageWriter(tmp_path / "v", 8, "int8") as writer, pytest.raises(SettingsError, match=r"shape \(2, 9\)"):
        writer.append(np.zeros((2, 9), np.float32))
    broken = draw_vectors(40, 8)
    broken[25, 3] = np.nan
    with StorageWriter(tmp_path / "n", 8, "float16") as writer:
        writer.append(draw_vectors(40, 8))
        with pytest.raises(SettingsError, match="vector 65 .*not finite"):
            writer.append(broken)
    storage = store_vectors(tmp_path / "w", draw_vectors(4, 8))
    with pytest.raises(SettingsError, match=r"expected \(4,\)"):
        storage.search(draw_vectors(1, 8), 1, allowed=np.ones(5, np.bool_))


def test_int8_scores_follow_the_query_in_full_precision(tmp_path: Path) -> None:
    """Where the dimension is a multiple of 32, one FAISS int8 type rounds the query too; it must not be used."""
    storage = store_vectors(tmp_path / "v", draw_vectors(500, 256), "int8")
    query = unit(np.random.default_rng(0).standard_normal((1, 256)))
    scores, rows = storage.index.search(query, 20)
    np.testing.assert_allclose(scores[0], storage.read(rows[0]).astype(np.float64) @ query[0], atol=2e-6)


_MEMORY = """
import sys, numpy as np
from pathlib import Path
from llm2comp_indexes.format.vectors import StorageWriter, open_storage
from tests.indexes.processes import peak_mib
path, rows = Path(sys.argv[1]), int(sys.argv[2])
with StorageWriter(path, 64, "float32") as writer:
    for _ in range(rows // 10_000):
        writer.append(np.full((10_000, 64), 0.125, np.float32))
    writer.finish()
storage = open_storage(path, rows=rows, dimension=64, store="float32")
assert sum(len(block) for block in storage.blocks(10_000)) == rows
assert len(storage.fetch(np.arange(0, rows, rows // 1000))) == 1000
print(peak_mib())
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks = []
    for rows in (10_000, 400_000):  # 2.5 and 100 MiB
        peaks.append(int(run_python("-c", _MEMORY, tmp_path / "v", rows)))
    assert peaks[1] - peaks[0] < 20, peaks
