"""An open index goes on to the last commit on request, with the model that it has."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import IndexFolderError
from llm2comp_indexes import add_documents, build_index, delete_documents, merge_index, open_index, undo_index
from tests.indexes.live import QUERIES, RecordingEncoder, answers, make_documents

Write = Callable[..., Path]


@pytest.fixture
def encoder() -> RecordingEncoder:
    return RecordingEncoder()


@pytest.fixture
def folder(tmp_path: Path, write_corpus: Write, encoder: RecordingEncoder) -> Path:
    build_index([write_corpus(make_documents(range(12)))], tmp_path / "idx", model=encoder)
    return tmp_path / "idx"


def add(folder: Path, write_corpus: Write, rows: range) -> None:
    add_documents(folder, [write_corpus(make_documents(rows), f"{rows.start}.jsonl")], model=RecordingEncoder())


def test_a_reader_sees_the_new_commit_on_request(folder: Path, write_corpus: Write, encoder: RecordingEncoder) -> None:
    index = open_index(folder, model=encoder)
    old = answers(index, encoder)
    assert not index.refresh()
    first = index.segments[0]
    add(folder, write_corpus, range(20, 24))
    assert answers(index, encoder) == old
    assert index.refresh()
    assert not index.refresh()
    assert len(index) == 16
    assert answers(index, encoder) == answers(folder, encoder) != old
    assert index.model is encoder
    assert index.segments[0] is first, "what both commits have stays open"
    delete_documents(folder, ["d20", "d0"])
    assert index.refresh()
    assert answers(index, encoder) == answers(folder, encoder)
    merge_index(folder)
    assert index.refresh()
    assert answers(index, encoder) == answers(folder, encoder)
    add(folder, write_corpus, range(30, 32))
    undo_index(folder)
    assert index.refresh(), "a commit of the same content is another one"
    assert len(index) == 14


def test_the_model_is_loaded_once(tmp_path: Path, write_corpus: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[Any] = []

    def load(model: Any = None, **options: Any) -> RecordingEncoder:
        loads.append(model)
        return RecordingEncoder()

    monkeypatch.setattr("llm2comp.load", load)
    (tmp_path / "model").mkdir()
    build_index([write_corpus(make_documents(range(6)))], tmp_path / "idx", model=str(tmp_path / "model"))
    index = open_index(tmp_path / "idx")
    loads.clear()
    index.search(["bread"])
    add(tmp_path / "idx", write_corpus, range(20, 22))
    index.refresh()
    index.search(["bread"])
    assert len(loads) == 1


def test_built_again_with_another_model(folder: Path, write_corpus: Write, encoder: RecordingEncoder) -> None:
    index = open_index(folder, model=encoder)
    other = RecordingEncoder(fingerprint="other")
    build_index([write_corpus(make_documents(range(3)))], folder, model=other, overwrite=True)
    with pytest.raises(IndexFolderError, match="another model"):
        index.refresh()
    assert len(index.search(["bread"], 20)[0]) == 12, "it goes on with its commit"


def test_an_index_that_is_gone(folder: Path, encoder: RecordingEncoder) -> None:
    index = open_index(folder, model=encoder)
    shutil.move(folder, folder.with_name("away"))
    with pytest.raises(IndexFolderError, match="no such index folder"):
        index.refresh()


def test_searches_of_other_threads_see_whole_commits(
    folder: Path, write_corpus: Write, encoder: RecordingEncoder
) -> None:
    index = open_index(folder, model=encoder)
    done, wrong = threading.Event(), list[str]()

    def search() -> None:
        while not done.is_set():
            for hits in index.search(QUERIES, 100):
                found = {hit.id for hit in hits}
                if found not in ({f"d{row}" for row in range(12)}, {f"d{row}" for row in range(16)}):
                    wrong.append(str(sorted(found)))

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(6):
            add(folder, write_corpus, range(12, 16))
            index.refresh()
            delete_documents(folder, [f"d{row}" for row in range(12, 16)])
            index.refresh()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not wrong
