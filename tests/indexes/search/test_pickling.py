"""An open index is pickled and copied as its path and its model, and opened again."""

import copy
import json
import logging
import pickle
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from llm2comp.errors import IndexFolderError
from llm2comp_indexes import IndexOptions, add_documents, build_index, open_index
from tests.child_process import run_python
from tests.indexes.searching import ids
from tests.word_encoder import WORDS, WordEncoder

ROWS = 2000
"""Rows whose files are over 64 KiB each, and so mapped into memory."""

COPIES: list[Callable[..., object]] = [copy.copy, copy.deepcopy, lambda index: pickle.loads(pickle.dumps(index))]


@pytest.fixture(scope="module", params=["Flat", "IVF8,Flat", "HNSW8"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("large")
    rows = [
        {"_id": f"d{row}", "text": f"{WORDS[row % 14]} {WORDS[row % 5]} number {row} " * 4, "year": row}
        for row in range(ROWS)
    ]
    (root / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = IndexOptions(request.param, hybrid=True)
    build_index([root / "corpus.jsonl"], root / "index", model=WordEncoder(), options=options)
    return root / "index"


@pytest.mark.parametrize("make", COPIES)
def test_a_copy_of_an_index_answers_as_the_index(folder: Path, make: Callable[..., object]) -> None:
    index = open_index(folder, model=WordEncoder())
    assert ids(make(index), "bread") == ids(index, "bread")


@pytest.mark.parametrize("make", COPIES)
def test_a_copy_of_a_segment_opens_its_files_again(folder: Path, make: Callable[..., object]) -> None:
    [segment] = open_index(folder, model=WordEncoder()).segments
    again = make(segment)
    assert again.documents[1999].id == segment.documents[1999].id == "d1999"  # type: ignore[attr-defined]


def test_a_pickle_is_a_path_and_not_the_files(folder: Path) -> None:
    index = open_index(folder, model=WordEncoder())
    assert len(pickle.dumps(index)) < 1000
    assert (folder / "segments" / "000001" / "vectors.faiss").stat().st_size > 1 << 16


def test_a_model_that_cannot_be_pickled_is_shared_by_copies_and_refused_in_pickles(folder: Path) -> None:
    encoder = WordEncoder()
    encoder.lock = threading.Lock()  # type: ignore[attr-defined]
    index = open_index(folder, model=encoder)
    assert copy.deepcopy(index).model is copy.copy(index).model is encoder
    with pytest.raises(TypeError, match="a model that cannot be pickled .*lock.*name or folder"):
        pickle.dumps(index)


def test_a_relative_path_means_the_same_folder_elsewhere(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    pickled = pickle.dumps(open_index("index", model=WordEncoder()))
    monkeypatch.chdir(tmp_path)
    assert len(pickle.loads(pickled)) == ROWS


def test_processes_started_anew_search_a_pickled_index(index_folder: Path) -> None:
    """joblib's; a DataLoader's and a pool's by spawn."""
    code = """
import sys
from joblib import Parallel, delayed
from torch.utils.data import DataLoader
from llm2comp_indexes import open_index
from tests.indexes.searching import Answers, ids
from tests.word_encoder import WordEncoder

if __name__ == "__main__":
    index = open_index(sys.argv[1], model=WordEncoder())
    expected = ids(index, "bread")
    assert Parallel(2)(delayed(ids)(index, text) for text in ["bread", "bread"]) == [expected] * 2
    loader = DataLoader(Answers(index), batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert list(loader) == [expected]
"""
    run_python(code, index_folder)


def test_a_newer_commit_is_opened_and_the_log_says_so(
    index_folder: Path, encoder: WordEncoder, write_corpus: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    pickled = pickle.dumps(open_index(index_folder, model=encoder))
    with caplog.at_level(logging.WARNING):
        pickle.loads(pickled)
        assert not caplog.records
        add_documents(index_folder, [write_corpus([{"_id": "new", "text": "quinces"}], "more.jsonl")], model=encoder)
        again = pickle.loads(pickled)
    assert [hit.id for hit in again.search(["quinces"], 1)[0]] == ["new"]
    assert "changed after this index was pickled" in caplog.text


def test_a_moved_folder_is_one_clear_error(index_folder: Path, encoder: WordEncoder, tmp_path: Path) -> None:
    index = open_index(index_folder, model=encoder)
    pickled = pickle.dumps(index)
    shutil.move(index_folder, tmp_path / "elsewhere")
    for copied in (lambda: pickle.loads(pickled), lambda: copy.deepcopy(index)):
        with pytest.raises(IndexFolderError, match="no index lies there any more.*open_index"):
            copied()


def test_an_index_of_another_model_is_not_taken_for_the_pickled_one(
    index_folder: Path, corpus: Path, encoder: WordEncoder
) -> None:
    index = open_index(index_folder)
    pickled = pickle.dumps(index)
    build_index([corpus], index_folder, model=WordEncoder(fingerprint="other"), overwrite=True)
    with pytest.raises(IndexFolderError, match="another model"):
        pickle.loads(pickled)
