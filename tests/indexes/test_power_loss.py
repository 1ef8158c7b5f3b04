"""Power failure at any moment: what was committed is whole, and running the command again continues it.

Each change runs once, while a model of the disk follows it: contents last until their fsync, names until their folder's
(or change at once: both are tried). Every state that the disk might then be found in is laid out and opened.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm2comp.corpus.documents import Document
from llm2comp.errors import IndexFolderError
from llm2comp_indexes import (
    IndexOptions,
    add_documents,
    build_index,
    delete_documents,
    merge_index,
    open_index,
    verify_index,
)
from llm2comp_indexes.change.vectors import upsert_vectors
from tests.indexes.live import QUERIES, RecordingEncoder, answers, make_documents
from tests.indexes.power import Disk, Tree, lay_out

pytestmark = pytest.mark.skipif(os.name != "posix", reason="folders can be fsynced on POSIX systems only")

Change = Callable[[Path, RecordingEncoder], Any]
KINDS = ["HNSW8", "IVF2,SQ8"]


@pytest.fixture
def changes(tmp_path: Path, write_corpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> dict[str, Change]:
    for name in (
        "builder.blocks.BLOCK",
        "change.compare.IDS_AT_ONCE",
        "change.living_rows._BLOCK",
        "change.vectors._BLOCK",
    ):
        monkeypatch.setattr(f"llm2comp_indexes.{name}", 4)
    first = write_corpus(make_documents(range(10)), "first.jsonl")
    second = write_corpus([*make_documents([3, 4], seed=1), *make_documents(range(10, 17))], "second.jsonl")

    def build(folder: Path, encoder: RecordingEncoder, overwrite: bool = False) -> None:
        kind = (folder.parent / "kind").read_text() if (folder.parent / "kind").exists() else KINDS[0]
        build_index(
            [second if overwrite else first],
            folder,
            model=encoder,
            options=IndexOptions(kind, hybrid=True),
            overwrite=overwrite,
        )

    return {
        "build": build,
        "overwrite": lambda folder, encoder: build(folder, encoder, overwrite=True),
        "add": lambda folder, encoder: add_documents(folder, [second], model=encoder),
        "delete": lambda folder, encoder: delete_documents(folder, ["d1", "d4", "d12"]),
        "merge": lambda folder, encoder: merge_index(folder),
        "upsert": lambda folder, encoder: upsert(folder, ["d3", *(f"u{row}" for row in range(6))]),
        "ten": lambda folder, encoder: [upsert(folder, [f"n{row}"]) for row in range(10)],
        "eleventh": lambda folder, encoder: upsert(folder, ["d3"]),
    }


def upsert(folder: Path, names: list[str]) -> None:
    texts = [f"bread {name}" for name in names]
    documents = [Document(name, "", text) for name, text in zip(names, texts, strict=True)]
    upsert_vectors(folder, documents, RecordingEncoder().encode_document(texts))


def prepare(root: Path, changes: dict[str, Change], task: str, kind: str) -> Path:
    """The index as it is before the task."""
    root.mkdir()
    (root / "kind").write_text(kind)
    for name in {
        "build": [],
        "overwrite": ["build"],
        "add": ["build"],
        "delete": ["build", "add"],
        "merge": ["build", "add", "delete"],
        "upsert": ["build"],
        "eleventh": ["build", "ten"],
    }[task]:
        changes[name](root / "idx", RecordingEncoder())
    return root


def follow(root: Path, change: Change) -> tuple[list[Tree], Tree, bytes | None, bytes]:
    """Possible states of the disk while the change runs, the certain state after it, the manifest before and after."""
    manifest = root / "idx" / "manifest.json"
    before = manifest.read_bytes() if manifest.exists() else None
    disk = Disk(root)
    try:
        with disk.watched():
            change(root / "idx", RecordingEncoder())
        return disk.states, disk.certain, before, manifest.read_bytes()
    finally:
        disk.close()


def check(tree: Tree, folder: Path, before: bytes | None, after: bytes) -> None:
    """Asserts that the index is whole and equals the one before or after the change."""
    root = lay_out(tree, folder)
    try:
        if before is None and tree.get("idx/manifest.json") is None:
            with pytest.raises(IndexFolderError):
                open_index(root / "idx")
            return
        verify_index(root / "idx")
        assert tree["idx/manifest.json"] in (before, after)
        assert len(open_index(root / "idx", model=RecordingEncoder()).search(QUERIES[:1])[0]) > 0
    finally:
        shutil.rmtree(root)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", ["build", "overwrite", "add", "delete", "merge", "upsert", "eleventh"])
def test_the_power_fails(tmp_path: Path, changes: dict[str, Change], task: str, kind: str) -> None:
    root = prepare(tmp_path / "disk", changes, task, kind)
    states, certain, before, after = follow(root, changes[task])
    assert certain["idx/manifest.json"] == after, "what a command has said to be done is durable"
    assert len(states) > 5
    for state in states:
        check(state, tmp_path / "found", before, after)

    expected = answers(root / "idx", RecordingEncoder(), mode="hybrid")
    for state in states[:: max(1, len(states) // 6)]:
        restored = lay_out(state, tmp_path / "found")
        if not (task == "build" and state.get("idx/manifest.json")):  # it would refuse to overwrite the finished index
            changes[task](restored / "idx", RecordingEncoder())
        verify_index(restored / "idx")
        assert answers(restored / "idx", RecordingEncoder(), mode="hybrid") == expected
        shutil.rmtree(restored)


def test_an_index_in_folders_that_were_made_for_it_is_durable(tmp_path: Path, changes: dict[str, Change]) -> None:
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk")
    try:
        with disk.watched():
            changes["build"](tmp_path / "disk" / "new" / "er" / "idx", RecordingEncoder())
        assert verify_index(lay_out(disk.certain, tmp_path / "found") / "new" / "er" / "idx").documents == 10
    finally:
        disk.close()


@pytest.mark.parametrize("task", ["build", "overwrite", "add", "merge"])
def test_what_was_encoded_outlives_a_power_failure(
    tmp_path: Path, changes: dict[str, Change], task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power fails just before the commit: nothing is encoded again."""
    root = prepare(tmp_path / "disk", changes, task, KINDS[0])
    disk = Disk(root)
    try:
        with disk.watched(), monkeypatch.context() as patch:
            patch.setattr("llm2comp_indexes.format.commits.Change.commit", interrupt)
            with pytest.raises(KeyboardInterrupt):
                changes[task](root / "idx", RecordingEncoder())
        restored = lay_out(disk.certain, tmp_path / "found")
    finally:
        disk.close()
    encoder = RecordingEncoder()
    changes[task](restored / "idx", encoder)
    assert encoder.texts == []
    verify_index(restored / "idx")


def interrupt(*arguments: Any, **options: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("place", "task"),
    [
        ("llm2comp_indexes.format.commits.sync_folder", "add"),
        ("llm2comp.atomic.sync_folder", "delete"),
        ("llm2comp_indexes.format.files.HashedFile.sync", "merge"),
        ("llm2comp_indexes.format.vectors.StorageWriter.sync", "merge"),
    ],
)
def test_an_fsync_that_is_forgotten_is_noticed(
    tmp_path: Path, changes: dict[str, Change], task: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = prepare(tmp_path / "disk", changes, task, KINDS[0])

    def forget(subject: Any) -> None:
        if not isinstance(subject, Path):
            subject._file.flush()

    monkeypatch.setattr(place, forget)
    states, certain, before, after = follow(root, changes[task])
    broken = certain.get("idx/manifest.json") != after
    for state in states:
        try:
            check(state, tmp_path / "found", before, after)
        except (AssertionError, IndexFolderError):
            broken = True
    assert broken, f"without {place} nothing was lost: the model of the disk is too kind"
