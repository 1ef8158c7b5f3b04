"""Documents that come with their vectors: added, replaced, removed, by several processes, in an index made empty."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm2comp.corpus.documents import Document
from llm2comp.errors import IndexFolderError, LLM2CompError, SettingsError
from llm2comp_indexes import IndexOptions, SearchOptions, add_documents, merge_index, open_index, verify_index
from llm2comp_indexes.change.vectors import clear_index, create_empty_index, upsert_vectors
from llm2comp_indexes.format.manifest import read_manifest
from llm2comp_indexes.search.lookup import find_rows, read_vectors, select_rows
from tests.indexes.conftest import TEXTS
from tests.paths import ROOT
from tests.word_encoder import WordEncoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_empty_index(tmp_path / "idx", fingerprint="words-32")
    return tmp_path / "idx"


def upsert(folder: Path, texts: dict[str, str], scale: float = 1.0, **options: Any) -> None:
    documents = [Document(name, "", text, {"length": len(text)}) for name, text in texts.items()]
    upsert_vectors(folder, documents, scale * WordEncoder().encode_document([*texts.values()]), **options)


def best(folder: Path, query: str, k: int = 10) -> list[str]:
    return [hit.id for hit in open_index(folder, model=WordEncoder()).search([query], k=k)[0]]


def test_vectors_are_scaled_to_unit_length_and_found(folder: Path) -> None:
    upsert(folder, dict(zip("abcde", TEXTS, strict=True)), scale=7.0)
    index = open_index(folder)
    rows = [row for [row] in find_rows(index, list("abcde"))]
    np.testing.assert_allclose(read_vectors(index, rows), WordEncoder().encode_document(TEXTS), atol=1e-6)
    assert best(folder, TEXTS[1], k=1) == ["b"]


def test_a_vector_of_zeros_stays_one(folder: Path) -> None:
    upsert_vectors(folder, [Document("a", "", "")], np.zeros((1, 32), np.float32))
    assert read_vectors(open_index(folder), [0]).tolist() == [[0.0] * 32]


def test_ids_are_replaced_and_rows_stay_numbered_through_segments(folder: Path) -> None:
    upsert(folder, {"a": "bread", "b": "moon"})
    upsert(folder, {"c": "tides"})
    upsert(folder, {"b": "harbour"})
    index = open_index(folder)
    assert len(index.manifest.segments) == 3
    assert find_rows(index, ["a", "b", "c", "nowhere"]) == [[0], [3], [2], []]
    assert select_rows(index).tolist() == [0, 2, 3]
    assert select_rows(index, "length == 5").tolist() == [0, 2]
    assert [index.fetch(row, 0.0).text for row in select_rows(index).tolist()] == ["bread", "tides", "harbour"]
    np.testing.assert_array_equal(
        read_vectors(index, [3, 0]), np.concatenate([read_vectors(index, [3]), read_vectors(index, [0])])
    )


def test_a_large_addition_gets_a_structure_and_measurements(tmp_path: Path) -> None:
    create_empty_index(tmp_path / "idx", fingerprint="", options=IndexOptions(type="IVF16,Flat"))
    vectors = np.random.default_rng(0).standard_normal((10_001, 8)).astype(np.float32)
    upsert_vectors(tmp_path / "idx", [Document(str(row), "", "x") for row in range(10_001)], vectors)
    [segment] = read_manifest(tmp_path / "idx").segments
    assert segment.type == "IVF16,Flat"
    assert "report.json" in segment.files
    neighbors = open_index(tmp_path / "idx").search_vectors(
        vectors[:3] / np.linalg.norm(vectors[:3], axis=1)[:, None], 1
    )
    assert neighbors.rows[:, 0].tolist() == [0, 1, 2]


def test_a_merge_measures_with_rows_where_no_queries_are_kept(folder: Path) -> None:
    upsert(folder, {f"d{row}": text for row, text in enumerate(TEXTS)})
    upsert(folder, {"more": "rain"})
    report = merge_index(folder)
    assert report.measured is not None
    assert report.measured.query_source.startswith("5 rows, each moved by noise")
    verify_index(folder)


def test_words_are_found_in_an_index_with_bm25(tmp_path: Path) -> None:
    create_empty_index(tmp_path / "idx", fingerprint="words-32", options=IndexOptions(hybrid=True))
    upsert(tmp_path / "idx", {"a": "bread and butter", "b": "moon"})
    index = open_index(tmp_path / "idx")
    assert [hit.id for hit in index.search(["butter"], options=SearchOptions(mode="bm25"))[0]] == ["a"]
    both = index.search(["moon"], options=SearchOptions(mode="hybrid"), vectors=WordEncoder().encode_query(["moon"]))
    assert both[0][0].id == "b"


def test_a_cleared_index_keeps_model_and_options(folder: Path) -> None:
    upsert(folder, {"a": "bread"})
    clear_index(folder)
    manifest = read_manifest(folder)
    assert (manifest.documents, manifest.dimension, manifest.fingerprint, manifest.commit) == (0, 32, "words-32", 3)
    clear_index(folder)
    assert read_manifest(folder).commit == 3  # nothing to do, nothing committed
    with pytest.raises(IndexFolderError, match="holds vectors of dimension 32, these have 2"):
        upsert_vectors(folder, [Document("a", "", "x")], np.ones((1, 2), np.float32))


def test_a_corpus_is_added_to_an_index_made_empty(folder: Path, corpus: Path) -> None:
    assert add_documents(folder, [corpus], model=WordEncoder()).added == len(TEXTS)
    upsert(folder, {"d0": "harbour"})
    assert best(folder, "harbour", k=1) == ["d0"]
    with pytest.raises(IndexFolderError, match="built with another model"):
        add_documents(folder, [corpus], model=WordEncoder(fingerprint="others"))


@pytest.mark.parametrize(
    ("documents", "vectors", "message"),
    [
        (["a"], np.ones((2, 32)), r"vectors of shape \(2, 32\) for 1 documents"),
        (["a"], np.ones(32), r"vectors of shape \(32,\) for 1 documents"),
        (["a"], np.ones((1, 0)), r"vectors of shape \(1, 0\) for 1 documents"),
        (["a", "b"], np.array([[1.0] * 32, [np.inf] * 32]), 'the vector of document "b" is not finite'),
    ],
)
def test_vectors_that_are_none(folder: Path, documents: list[str], vectors: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        upsert_vectors(folder, [Document(name, "", "x") for name in documents], vectors)
    assert read_manifest(folder).commit == 1


def test_vectors_of_another_model_and_indexes_of_chunks_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(IndexFolderError, match="replaced by an index of another model"):
        upsert(folder, {"a": "bread"}, fingerprint="others")
    with pytest.raises(SettingsError, match="chunk_tokens is set"):
        create_empty_index(tmp_path / "chunks", fingerprint="", options=IndexOptions(chunk_tokens=8))
    assert not (tmp_path / "chunks").exists()


def test_no_index_is_made_over_something_else(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(LLM2CompError, match="already holds an index"):
        create_empty_index(folder, fingerprint="")
    unfinished = tmp_path / "unfinished" / "segments" / "000001"
    unfinished.mkdir(parents=True)
    (unfinished / "journal.jsonl").write_text("{}\n")
    with pytest.raises(IndexFolderError, match="holds an unfinished build"):
        create_empty_index(tmp_path / "unfinished", fingerprint="")
    assert (unfinished / "journal.jsonl").exists()


_ADD = """
import sys
from pathlib import Path
from tests.indexes.change.test_vectors import upsert
for number in range(10):
    upsert(Path(sys.argv[1]), {f"{sys.argv[2]}-{number}": "moon"}, wait=60.0)
"""


def test_processes_that_write_wait_for_each_other(folder: Path) -> None:
    environment = {"PYTHONPATH": ":".join(str(ROOT / part) for part in (".", "indexes")), "OMP_NUM_THREADS": "1"}
    children = [
        subprocess.Popen([sys.executable, "-c", _ADD, str(folder), name], cwd=ROOT, env=environment)
        for name in ("one", "two")
    ]
    assert [child.wait(300) for child in children] == [0, 0]
    assert read_manifest(folder).documents == 20
    verify_index(folder)
