"""Reading while another process writes: every answer is that of one whole commit; an open index keeps its commit."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import IndexFolderError
from llm2comp_indexes import (
    Index,
    IndexOptions,
    add_documents,
    build_index,
    delete_documents,
    merge_index,
    open_index,
    verify_index,
)
from llm2comp_indexes.format import commits
from llm2comp_indexes.format.manifest import read_manifest
from tests.indexes.live import RecordingEncoder, answers, make_documents
from tests.paths import ROOT
from tests.word_encoder import WordEncoder

READER = """
import json, sys
sys.path[:0] = {path!r}
from pathlib import Path
from tests.indexes.search.test_readers import look
from tests.word_encoder import WordEncoder
encoder = WordEncoder()
while not Path({stop!r}).exists():
    print(json.dumps(look(Path({folder!r}), encoder)), flush=True)
"""


def look(folder: "Path | Index", encoder: WordEncoder) -> list[Any]:
    """Number of the commit, number of documents, and answers."""
    index = folder if isinstance(folder, Index) else open_index(folder, model=encoder)
    replies = [
        answers(index, encoder, mode="dense"),
        answers(index, encoder, 5, mode="hybrid"),
        answers(index, encoder, where="year < 2006"),
    ]
    return [index.manifest.commit, len(index), json.loads(json.dumps(replies))]


class Reader:
    """A process that opens and searches the index again and again."""

    def __init__(self, folder: Path, stop: Path) -> None:
        script = READER.format(path=[str(ROOT), str(ROOT / "indexes")], stop=str(stop), folder=str(folder))
        self.process = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.seen: list[Any] = []

    def wait_for(self, commit: int) -> None:
        """Reads until it has seen the commit."""
        assert self.process.stdout
        while not self.seen or self.seen[-1][0] < commit:
            line = self.process.stdout.readline()
            assert line, self.process.communicate()[1]
            self.seen.append(json.loads(line))

    def finish(self) -> list[Any]:
        assert self.process.stdout
        assert self.process.stderr
        self.seen += map(json.loads, self.process.stdout)
        errors = self.process.stderr.read()
        assert self.process.wait(60) == 0, errors
        self.process.stdout.close()
        self.process.stderr.close()
        return self.seen


def test_every_answer_is_that_of_one_commit(tmp_path: Path, write_corpus: Callable[..., Path]) -> None:
    encoder, folder = RecordingEncoder(), tmp_path / "idx"
    build_index(
        [write_corpus(make_documents(range(30)))], folder, model=encoder, options=IndexOptions("HNSW8", hybrid=True)
    )
    expected = {1: look(folder, encoder)}
    readers = [Reader(folder, tmp_path / "stop") for _ in range(2)]
    opened = open_index(folder, model=encoder)
    kept: list[bool] = []
    ended = threading.Event()

    def keep_asking() -> None:
        while not ended.is_set():
            kept.append(look(opened, encoder) == expected[1])

    threads = [threading.Thread(target=keep_asking) for _ in range(2)]
    for thread in threads:
        thread.start()
    changes: list[Callable[[], object]] = []
    for step in range(3):
        new = write_corpus(
            [
                *make_documents(range(5 * step, 5 * step + 10), seed=step + 1),
                *make_documents(range(50 + step, 53 + step)),
            ],
            f"new{step}.jsonl",
        )
        changes.append(lambda new=new: add_documents(folder, [new], model=encoder))  # type: ignore[misc]
        changes.append(lambda step=step: delete_documents(folder, [f"d{row}" for row in range(7 * step, 7 * step + 9)]))  # type: ignore[misc]
        changes.append(lambda: merge_index(folder))
    try:
        for change in changes:
            change()
            now = look(folder, encoder)
            expected[now[0]] = now
            for reader in readers:
                reader.wait_for(now[0])
    finally:
        (tmp_path / "stop").touch()
        ended.set()
        for thread in threads:
            thread.join()
    assert len(expected) == 10
    assert len({json.dumps(answer[2][0]) for answer in expected.values()}) == 7, (
        "additions and deletions change the answers by vectors, merges do not"
    )
    for reader in readers:
        seen = reader.finish()
        assert [answer for answer in seen if answer != expected[answer[0]]] == []
        commits = [answer[0] for answer in seen]
        assert commits == sorted(commits), "no reader goes back in time"
        assert len(set(commits)) >= 9
    assert kept
    assert all(kept), "an index that is open shows its commit as long as it is open"
    opened.close()


def test_an_index_that_changes_while_it_is_being_opened(
    index_folder: Path, write_corpus: Callable[..., Path], encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of the commit are removed after the reader has read its manifest."""
    stale = read_manifest(index_folder)
    merges = 0

    def read(folder: Path) -> Any:
        nonlocal merges
        if merges < 3:  # the manifest that was just read is not the last any more
            before = read_manifest(folder)
            merges += 1
            add_documents(folder, [write_corpus(make_documents([100 + merges]))], model=encoder)
            merge_index(folder)
            return before
        return read_manifest(folder)

    monkeypatch.setattr("llm2comp_indexes.search.index.read_manifest", read)
    index = open_index(index_folder, model=encoder)
    assert index.manifest.commit > stale.commit
    assert len(index) == 8
    assert verify_index(index_folder).commit == index.manifest.commit


def test_a_folder_that_was_moved_while_it_is_open_answers_and_takes_no_change_at_its_old_place(
    index_folder: Path, write_corpus: Callable[..., Path], encoder: WordEncoder
) -> None:
    delete_documents(index_folder, ["d4"])
    index = open_index(index_folder, model=encoder)
    before = look_dense(index, encoder)
    moved = index_folder.rename(index_folder.with_name("moved"))
    assert look_dense(index, encoder) == before
    assert [hit.text for hit in index.search(["bread"], 1)[0]] == ["how bread rises in the oven"]
    with pytest.raises(Exception, match="no such index folder"):
        add_documents(index_folder, [write_corpus(make_documents([1]))], model=encoder)
    assert not index_folder.exists()
    assert add_documents(moved, [write_corpus(make_documents([1]))], model=encoder).changed == 1
    merge_index(moved)
    assert verify_index(moved).documents == 4


def test_an_index_that_was_put_in_the_place_of_one_that_is_changed_stays(
    tmp_path: Path,
    index_folder: Path,
    write_corpus: Callable[..., Path],
    encoder: WordEncoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """How indexes in use are replaced: the old folder is renamed, and the new one takes its name."""
    build_index([write_corpus(make_documents(range(7)), "other.jsonl")], tmp_path / "other", model=encoder)
    before = (tmp_path / "other" / "manifest.json").read_bytes()
    sync = commits.sync_folder

    def swap(folder: Path) -> None:
        sync(folder)
        if (tmp_path / "other").exists():
            index_folder.rename(tmp_path / "old")
            (tmp_path / "other").rename(index_folder)

    monkeypatch.setattr("llm2comp_indexes.format.commits.sync_folder", swap)
    with pytest.raises(IndexFolderError, match="was replaced by another index meanwhile"):
        delete_documents(index_folder, ["d1"])
    assert (index_folder / "manifest.json").read_bytes() == before
    assert verify_index(index_folder).documents == 7
    assert verify_index(tmp_path / "old").documents == 5


def look_dense(index: Index, encoder: WordEncoder) -> list[Any]:
    return [answers(index, encoder), answers(index, encoder, where="year > 2001")]
