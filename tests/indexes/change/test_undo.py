"""Going back to the commit before, and what is kept for it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llm2comp.errors import IndexFolderError
from llm2comp_indexes import (
    IndexOptions,
    add_documents,
    build_index,
    delete_documents,
    merge_index,
    sync_index,
    undo_index,
    verify_index,
)
from tests.indexes.live import RecordingEncoder, answers, contents, make_documents

Write = Callable[..., Path]


@pytest.fixture
def encoder() -> RecordingEncoder:
    return RecordingEncoder()


@pytest.fixture
def folder(tmp_path: Path, write_corpus: Write, encoder: RecordingEncoder) -> Path:
    build_index(
        [write_corpus(make_documents(range(12)))], tmp_path / "idx", model=encoder, options=IndexOptions(hybrid=True)
    )
    encoder.texts.clear()
    return tmp_path / "idx"


def test_undo_goes_back_and_forth(folder: Path, write_corpus: Write, encoder: RecordingEncoder) -> None:
    before = answers(folder, encoder)
    newer = write_corpus([*make_documents([2, 3], seed=1), *make_documents(range(20, 24))], "newer.jsonl")
    add_documents(folder, [newer], model=encoder)
    after = answers(folder, encoder)
    encoder.texts.clear()
    assert undo_index(folder) == (12, 16, 3)
    assert answers(folder, encoder) == before
    assert undo_index(folder) == (16, 12, 4), "the undo is undone"
    assert answers(folder, encoder) == after
    assert encoder.texts == []
    verify_index(folder)


@pytest.mark.parametrize("change", ["add", "delete", "sync"])
def test_what_was_deleted_comes_back(folder: Path, write_corpus: Write, encoder: RecordingEncoder, change: str) -> None:
    before = answers(folder, encoder)
    corpus = write_corpus(make_documents([*range(2, 9)], seed=int(change == "add")))
    if change == "delete":
        delete_documents(folder, [f"d{row}" for row in range(12)])
        assert answers(folder, encoder)[0] == []
    elif change == "add":
        add_documents(folder, [corpus], model=encoder)
    else:
        assert len(sync_index(folder, [corpus], model=encoder).vanished) == 5
    assert answers(folder, encoder) != before
    undo_index(folder)
    assert answers(folder, encoder) == before
    delete_documents(folder, ["d4"])
    assert verify_index(folder).documents == 11
    undo_index(folder)
    assert answers(folder, encoder) == before


def test_only_one_commit_is_kept(folder: Path, encoder: RecordingEncoder) -> None:
    with pytest.raises(IndexFolderError, match=r"nothing to undo: .*it has had no change yet"):
        undo_index(folder)
    size = len(contents(folder))
    for row in range(4):
        delete_documents(folder, [f"d{row}"])
    assert len(contents(folder)) == size + 3, "the manifest before, and two bitmaps"
    undo_index(folder)
    assert verify_index(folder).documents == 9


def test_a_merge_frees_the_space(folder: Path, encoder: RecordingEncoder) -> None:
    files = set(contents(folder))
    delete_documents(folder, ["d1"])
    merge_index(folder)
    assert {path.replace("000003", "000001") for path in contents(folder)} == files
    with pytest.raises(IndexFolderError, match="a merge keeps none"):
        undo_index(folder)


@pytest.mark.parametrize("loss", ["file", "manifest", "garbage"])
def test_files_that_are_gone(folder: Path, encoder: RecordingEncoder, write_corpus: Write, loss: str) -> None:
    delete_documents(folder, ["d1"])
    delete_documents(folder, ["d2"])
    if loss == "file":
        (folder / "segments" / "000001" / "deleted-000002").unlink()
    elif loss == "manifest":
        (folder / "manifest.previous.json").unlink()
    else:
        (folder / "manifest.previous.json").write_text(json.dumps({"format": 2}))
    now = answers(folder, encoder)
    with pytest.raises(IndexFolderError, match="files of it are gone"):
        undo_index(folder)
    assert answers(folder, encoder) == now
    add_documents(folder, [write_corpus(make_documents([30]), "more.jsonl")], model=encoder)
    assert undo_index(folder).documents == 10
    verify_index(folder)
