"""Existing vectors: files read, files refused (with the row), and queries that are no rows of the index."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llm2comp.errors import CorpusError, IndexFolderError, LLM2CompError
from llm2comp_indexes import Index, IndexOptions, VectorFiles, build_from_vectors, open_index, verify_index
from llm2comp_indexes.builder import drawn_queries
from llm2comp_indexes.builder.vector_files import NpyVectors, read_ids
from tests.word_encoder import WordEncoder


def draw(rows: int, dimension: int = 16, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)


def unit(vectors: NDArray[Any]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def save(folder: Path, vectors: NDArray[Any], ids: list[str] | None = None) -> VectorFiles:
    np.save(folder / "v.npy", vectors)
    names = [f"x{row}" for row in range(len(vectors))] if ids is None else ids
    (folder / "ids.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return VectorFiles([folder / "v.npy"], folder / "ids.txt")


def stored(index: Index) -> NDArray[np.float32]:
    return np.concatenate([segment.storage.read(np.arange(segment.rows)) for segment in index.segments])


def ids_of(index: Index) -> list[str]:
    return [segment.documents[row].id for segment in index.segments for row in range(segment.rows)]


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_vectors_are_stored_at_unit_length_in_order(tmp_path: Path, dtype: str, order: Any) -> None:
    vectors = np.asarray(draw(70) * 5, dtype=dtype, order=order)
    report = build_from_vectors(save(tmp_path, vectors), tmp_path / "idx")
    assert (report.documents, report.dimension, report.encode_seconds) == (70, 16, 0.0)
    with open_index(tmp_path / "idx") as index:
        np.testing.assert_allclose(stored(index), unit(vectors), atol=1e-7)
        assert ids_of(index) == [f"x{row}" for row in range(70)]
        assert (index.manifest.model, index.manifest.fingerprint) == (None, "")


def test_the_nearest_are_found_and_texts_need_a_model(tmp_path: Path) -> None:
    vectors = draw(300, 32)
    build_from_vectors(save(tmp_path, vectors), tmp_path / "idx")
    queries = draw(20, 32, seed=1)
    expected = np.argsort(-(queries @ unit(vectors).T), axis=1)[:, :5]
    with open_index(tmp_path / "idx") as index:
        assert index.search_vectors(queries, 5).rows.tolist() == expected.tolist()
        with pytest.raises(IndexFolderError, match="--model"):
            index.search(["bread"])
    with open_index(tmp_path / "idx", model=WordEncoder()) as index:
        assert len(index.search(["bread"], 3)[0]) == 3
    with pytest.raises(IndexFolderError, match="dimension 32, the model gives 8"):
        open_index(tmp_path / "idx", model=WordEncoder(8))


def test_large_numbers_do_not_overflow(tmp_path: Path) -> None:
    vectors = np.array([[3e38, 0, 3e38], [1e-40, 0, 0]], np.float32)
    build_from_vectors(save(tmp_path, vectors), tmp_path / "idx")
    with open_index(tmp_path / "idx") as index:
        np.testing.assert_allclose(stored(index), [[0.5**0.5, 0, 0.5**0.5], [1, 0, 0]], atol=1e-7)


def test_several_files_follow_one_another(tmp_path: Path) -> None:
    vectors = draw(9)
    files = save(tmp_path, vectors)
    for name, rows in {"a": vectors[:4], "empty": vectors[:0], "b": vectors[4:]}.items():
        np.save(tmp_path / f"{name}.npy", rows)
    paths = [tmp_path / f"{name}.npy" for name in ("a", "empty", "b")]
    build_from_vectors(VectorFiles(paths, files.ids), tmp_path / "idx")
    with open_index(tmp_path / "idx") as index:
        np.testing.assert_allclose(stored(index), unit(vectors), atol=1e-7)
    np.save(tmp_path / "b.npy", draw(5, 17))
    with pytest.raises(IndexFolderError, match=r"b\.npy: vectors of dimension 17.*16"):
        build_from_vectors(VectorFiles(paths, files.ids), tmp_path / "other")


@pytest.mark.parametrize(("value", "words"), [(0.0, "zero"), (np.nan, "not finite"), (np.inf, "not finite")])
def test_a_row_without_direction_is_refused_by_number(tmp_path: Path, value: float, words: str) -> None:
    vectors = draw(5000)
    vectors[4321] = value
    with pytest.raises(IndexFolderError, match=rf"v\.npy: row 4321 \(counted from 0\) is {words}"):
        build_from_vectors(save(tmp_path, vectors), tmp_path / "idx")
    assert not (tmp_path / "idx" / "manifest.json").exists()


class Bomb:
    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was loaded",)


def test_what_is_no_matrix_of_floats_is_refused(tmp_path: Path) -> None:
    save(tmp_path, draw(3))
    good = (tmp_path / "v.npy").read_bytes()
    wrong = {
        "text": b"hello", "empty": b"", "cut": good[:-1], "header": good[:40],
        "shape": good.replace(b"(3, 16)", b"(9, 99)"),
        "huge": good.replace(b"(3, 16), ", b"(999999999999999999,9)").replace(b"'\n", b"\n"),
    }  # fmt: skip
    arrays: dict[str, NDArray[Any]] = {
        "flat": np.ones(3, np.float32),
        "whole": np.ones((3, 4), np.int64),
        "none": np.ones((3, 0), np.float32),
    }
    for name, data in wrong.items():
        (tmp_path / f"{name}.npy").write_bytes(data)
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    np.save(tmp_path / "pickle.npy", np.array([[Bomb()]], object), allow_pickle=True)
    np.savez(tmp_path / "zip.npy.npz", a=draw(3))
    (tmp_path / "zip.npy.npz").rename(tmp_path / "zip.npy")
    for name in [*wrong, *arrays, "pickle", "zip", "missing"]:
        with pytest.raises(IndexFolderError, match=rf"{name}\.npy"):
            NpyVectors([tmp_path / f"{name}.npy"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\nb\n", "2 ids, expected one for each of the 3"),
        ("a\nb\nc\nd\n", "4 ids"),
        ("a\n\nc\n", "ids.txt:2: an empty id"),
        ("a\nb\na\n", 'txt:3: the id "a"'),
    ],
)
def test_ids_that_do_not_fit_are_refused_before_anything_is_written(tmp_path: Path, text: str, words: str) -> None:
    files = save(tmp_path, draw(3))
    (tmp_path / "ids.txt").write_text(text)
    with pytest.raises(CorpusError, match=words):
        build_from_vectors(files, tmp_path / "idx")
    assert not (tmp_path / "idx").exists()


def test_ids_are_any_strings_and_may_come_as_arrays(tmp_path: Path) -> None:
    names = ["with space ", "日本", "a#1", " "]
    (tmp_path / "ids.txt").write_text("\r\n".join(names), encoding="utf-8", newline="")
    np.save(tmp_path / "ids.npy", np.array(names))
    np.save(tmp_path / "numbers.npy", np.array([5, 7], np.uint64))
    np.save(tmp_path / "floats.npy", np.array([5.0]))
    assert list(read_ids(tmp_path / "ids.txt")) == names
    assert list(read_ids(tmp_path / "ids.npy")) == names
    assert list(read_ids(tmp_path / "numbers.npy")) == ["5", "7"]
    with pytest.raises(CorpusError, match=r"floats\.npy: holds float64"):
        list(read_ids(tmp_path / "floats.npy"))


def test_documents_are_joined_by_id(tmp_path: Path, write_corpus: Callable[..., Path]) -> None:
    vectors = draw(40)
    files = save(tmp_path, vectors)
    order = np.random.default_rng(3).permutation(40).tolist()
    corpus = write_corpus(
        {"_id": f"x{row}", "title": f"Title {row}", "text": f"text {row}", "year": row} for row in order
    )
    build_from_vectors(files, tmp_path / "idx", corpora=[corpus], options=IndexOptions(hybrid=True))
    with open_index(tmp_path / "idx") as index:
        assert ids_of(index) == [f"x{row}" for row in order]
        np.testing.assert_allclose(stored(index), unit(vectors)[order], atol=1e-7)
        nearest = index.search_vectors(vectors[7:8], 1)
        hit = index.fetch(int(nearest.rows[0, 0]), 0.0)
        assert (hit.id, hit.title, hit.text, hit.metadata) == ("x7", "Title 7", "text 7", {"year": 7})


def test_missing_documents_and_vectors_are_named_or_skipped(tmp_path: Path, write_corpus: Callable[..., Path]) -> None:
    files = save(tmp_path, draw(10))
    few = write_corpus([{"_id": f"x{row}", "text": "t"} for row in range(7)], "few.jsonl")
    many = write_corpus([{"_id": f"x{row}", "text": "t"} for row in range(19)], "many.jsonl")
    with pytest.raises(CorpusError, match='a vector without a document: "x7", "x8", "x9";'):
        build_from_vectors(files, tmp_path / "idx", corpora=[few])
    with pytest.raises(CorpusError, match='a document without a vector: "x10", "x11", "x12", "x13", "x14" and more;'):
        build_from_vectors(files, tmp_path / "idx", corpora=[many])
    messages: list[str] = []
    report = build_from_vectors(files, tmp_path / "idx", corpora=[few], on_error="skip", on_skip=messages.append)
    assert (report.documents, report.skipped) == (7, 3)
    assert messages == [f'"x{row}": a vector without a document' for row in (7, 8, 9)]
    none = write_corpus([{"_id": "other", "text": "t"}], "none.jsonl")
    with pytest.raises(CorpusError, match="nothing to index"):
        build_from_vectors(files, tmp_path / "nothing", corpora=[none], on_error="skip", on_skip=messages.append)


def test_settings_that_need_texts_or_a_model_are_refused(tmp_path: Path, encoder: WordEncoder) -> None:
    files = save(tmp_path, draw(3))
    wrong: list[tuple[VectorFiles, dict[str, Any], str]] = [
        (files, {"options": IndexOptions(hybrid=True)}, "hybrid needs texts"),
        (files, {"options": IndexOptions(chunk_tokens=9)}, "chunk_tokens"),
        (files, {"model": encoder}, "name it when searching"),
        (VectorFiles(files.paths), {}, "--ids"),
        (VectorFiles([], files.ids), {}, "expected a list"),
        (VectorFiles([*files.paths, tmp_path], files.ids), {}, "files and folders"),
        (VectorFiles([tmp_path / "missing.npy"], files.ids), {}, r"missing\.npy: no such folder and no such file"),
    ]
    for vectors, settings, words in wrong:
        with pytest.raises(LLM2CompError, match=words):
            build_from_vectors(vectors, tmp_path / "idx", **settings)
    assert not (tmp_path / "idx").exists()


def read_queries(index: Index) -> NDArray[np.float32]:
    queries = index.segments[0].read_queries()
    assert queries is not None
    return queries


def test_no_vector_measures_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many vectors, some go into another segment; of few, none is a query. All of them are found."""
    vectors = draw(900)
    monkeypatch.setattr(drawn_queries, "_HELD_OUT_OF", 500)
    monkeypatch.setattr(drawn_queries, "MOST_QUERIES", 50)
    held_out = build_from_vectors(save(tmp_path, vectors), tmp_path / "held")
    assert "held out" in held_out.measured.query_source
    monkeypatch.setattr(drawn_queries, "_HELD_OUT_OF", 10_000)
    moved = build_from_vectors(save(tmp_path, vectors), tmp_path / "moved")
    assert "noise" in moved.measured.query_source
    for name, segments in {"held": [850, 50], "moved": [900]}.items():
        with open_index(tmp_path / name) as index:
            assert [segment.rows for segment in index.segments] == segments
            assert (len(index), sorted(ids_of(index))) == (900, sorted(f"x{row}" for row in range(900)))
            nearest = (read_queries(index) @ index.segments[0].storage.read(np.arange(segments[0])).T).max()
            assert nearest < 0.999
            best = index.search_vectors(vectors, 1).rows[:, 0]
            assert [index.fetch(int(row), 0.0).id for row in best] == [f"x{row}" for row in range(900)]
        verify_index(tmp_path / name)
    with open_index(tmp_path / "held") as index:
        held_rows = stored(index)[850:]
        np.testing.assert_allclose(np.sort(read_queries(index), axis=0), np.sort(held_rows, axis=0))


def test_given_queries_are_used(tmp_path: Path) -> None:
    files = save(tmp_path, draw(50))
    queries = draw(1000, seed=5) * 3
    np.save(tmp_path / "q.npy", queries)
    report = build_from_vectors(VectorFiles(files.paths, files.ids, tmp_path / "q.npy"), tmp_path / "idx")
    assert report.measured.query_source == "300 of the 1,000 vectors in q.npy"
    with open_index(tmp_path / "idx") as index:
        assert len(index.segments) == 1
        rows = np.linspace(0, 999, 300).astype(int)
        np.testing.assert_allclose(read_queries(index), unit(queries)[rows], atol=1e-7)
    np.save(tmp_path / "q.npy", draw(9, 5))
    with pytest.raises(IndexFolderError, match=r"q\.npy: vectors of dimension 5, expected 16"):
        build_from_vectors(VectorFiles(files.paths, files.ids, tmp_path / "q.npy"), tmp_path / "other")


def test_one_vector(tmp_path: Path) -> None:
    vectors = draw(1)
    assert build_from_vectors(save(tmp_path, vectors), tmp_path / "idx").documents == 1
    with open_index(tmp_path / "idx") as index:
        assert index.search_vectors(vectors, 3).rows.tolist() == [[0]]


def test_a_build_that_broke_off_goes_on_with_the_same_vectors_only(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(phase: str, count: int) -> None:
        counts.append(count)
        if count > limit:
            raise Stop

    vectors = draw(7000)
    files = save(tmp_path, vectors)
    build_from_vectors(files, tmp_path / "whole")
    limit, counts = 5000, list[int]()
    for change in (False, True):
        with pytest.raises(Stop):
            build_from_vectors(files, tmp_path / "idx", progress=stop)
        [file] = (tmp_path / "idx").rglob("vectors.faiss")
        kept = file.stat().st_ino, file.read_bytes()
        assert len(kept[1]) > 5000 * 16 * 4
        if change:
            vectors[0] = vectors[1]
            files = save(tmp_path, vectors)
            with open_index(tmp_path / "whole") as index:
                assert not np.allclose(stored(index)[0], unit(vectors)[0])
        build_from_vectors(files, tmp_path / "idx")
        with open_index(tmp_path / "idx") as index:
            np.testing.assert_allclose(stored(index), unit(vectors), atol=1e-7)
            assert ids_of(index) == [f"x{row}" for row in range(7000)]
        shutil.rmtree(tmp_path / "idx")


def test_an_index_in_the_way_is_left_alone(tmp_path: Path) -> None:
    files = save(tmp_path, draw(3))
    build_from_vectors(files, tmp_path / "idx")
    before = json.loads((tmp_path / "idx" / "manifest.json").read_text())
    with pytest.raises(LLM2CompError, match="--overwrite"):
        build_from_vectors(files, tmp_path / "idx")
    assert json.loads((tmp_path / "idx" / "manifest.json").read_text()) == before
    assert build_from_vectors(files, tmp_path / "idx", overwrite=True).documents == 3
