"""Syncing an index with its sources: what is counted, encoded, kept and refused."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm2comp.corpus.documents import Document
from llm2comp.errors import CorpusError, IndexFolderError
from llm2comp_indexes import (
    IndexOptions,
    add_documents,
    build_index,
    delete_documents,
    merge_index,
    open_index,
    sync_index,
    verify_index,
)
from llm2comp_indexes.change.vectors import upsert_vectors
from llm2comp_indexes.format.lock import sole_writer
from llm2comp_indexes.format.manifest import read_manifest, write_manifest
from llm2comp_indexes.format.segment import segment_folder
from tests.indexes.live import ChunkingEncoder, RecordingEncoder, identifiers, make_documents

SECONDS_AGO = 1000
TEXTS = {f"f{row}.md": f"bread moon number {row}" for row in range(8)}


def write(folder: Path, name: str, text: str, ago: float = SECONDS_AGO) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    when = time.time() - ago
    os.utime(path, (when, when))


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    for name, text in TEXTS.items():
        write(tmp_path / "docs", name, text)
    return tmp_path / "docs"


@pytest.fixture
def encoder() -> RecordingEncoder:
    return RecordingEncoder()


@pytest.fixture
def folder(docs: Path, tmp_path: Path, encoder: RecordingEncoder) -> Path:
    build_index([docs], tmp_path / "idx", model=encoder)
    encoder.texts.clear()
    return tmp_path / "idx"


@pytest.fixture
def sync(folder: Path, encoder: RecordingEncoder) -> Callable[..., tuple[Any, ...]]:
    """Syncs; numbers of new, changed, renamed, unchanged and vanished documents."""

    def run(*corpora: Path, **options: Any) -> tuple[int, ...]:
        report = sync_index(folder, list(corpora), model=encoder, **options)
        return (*report[:4], len(report.vanished))

    return run


def commit_of(folder: Path) -> int:
    return read_manifest(folder).commit


def test_an_index_of_a_folder_as_it_was_is_left_alone(
    sync: Callable[..., Any], docs: Path, folder: Path, encoder: RecordingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm2comp.corpus.files.read._read_content", fail)
    assert sync(docs) == (0, 0, 0, 8, 0), "read by size and time alone"
    assert encoder.texts == []
    assert sync(docs, docs) == (0, 0, 0, 8, 0), "a corpus that is given twice is one"
    assert commit_of(folder) == 1


def fail(*arguments: Any) -> None:
    raise AssertionError("a file was read")


def test_new_changed_renamed_and_vanished_files(
    sync: Callable[..., Any], docs: Path, folder: Path, encoder: RecordingEncoder
) -> None:
    write(docs, "new/g.md", "rain over the harbour")
    write(docs, "f1.md", "stone and light")
    (docs / "f2.md").rename(docs / "new" / "f2.md")
    (docs / "f3.md").unlink()
    before = (folder / "manifest.json").read_bytes()
    assert sync(docs, dry_run=True) == (1, 1, 1, 5, 1)
    assert encoder.texts == []
    assert (folder / "manifest.json").read_bytes() == before

    assert sync(docs) == (1, 1, 1, 5, 1)
    assert sorted(encoder.texts) == ["rain over the harbour", "stone and light"]
    expected = {f"docs/f{row}.md" for row in (0, 1, 4, 5, 6, 7)} | {"docs/new/f2.md", "docs/new/g.md"}
    assert identifiers(folder, encoder) == expected
    assert commit_of(folder) == 2
    assert verify_index(folder).documents == 8
    assert sync(docs) == (0, 0, 0, 8, 0)
    assert commit_of(folder) == 2


def test_a_renamed_file_keeps_its_vector_and_takes_its_new_metadata(
    sync: Callable[..., Any], docs: Path, folder: Path, encoder: RecordingEncoder
) -> None:
    [before] = [hit for hit in open_index(folder, model=encoder).search(["number 2"], 9)[0] if hit.id == "docs/f2.md"]
    (docs / "f2.md").rename(docs / "g2.md")
    assert sync(docs) == (0, 0, 1, 7, 0)
    assert encoder.texts == []
    [after] = [hit for hit in open_index(folder, model=encoder).search(["number 2"], 9)[0] if hit.id == "docs/g2.md"]
    assert after.score == pytest.approx(before.score, abs=1e-6)
    assert after.metadata["file_path"] == after.metadata["file_name"] == "g2.md"


def test_all_files_may_be_renamed_at_once(sync: Callable[..., Any], docs: Path, encoder: RecordingEncoder) -> None:
    for name in TEXTS:
        (docs / "sub").mkdir(exist_ok=True)
        (docs / name).rename(docs / "sub" / name)
    assert sync(docs) == (0, 0, 8, 0, 0)
    assert encoder.texts == []


def test_a_change_that_size_and_time_hide_is_found_with_full(
    sync: Callable[..., Any], docs: Path, encoder: RecordingEncoder
) -> None:
    status = (docs / "f4.md").stat()
    (docs / "f4.md").write_text("bread rain number 4")
    os.utime(docs / "f4.md", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert sync(docs) == (0, 0, 0, 8, 0)
    assert sync(docs, full=True) == (0, 1, 0, 7, 0)
    assert encoder.texts == ["bread rain number 4"]


def test_a_file_written_again_with_the_same_content_is_known_by_its_time_afterwards(
    sync: Callable[..., Any], docs: Path, folder: Path, encoder: RecordingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(docs, "f4.md", TEXTS["f4.md"], ago=500)
    assert sync(docs) == (0, 0, 0, 8, 0)
    assert encoder.texts == []
    assert commit_of(folder) == 2, "its time was recorded"
    verify_index(folder)
    monkeypatch.setattr("llm2comp.corpus.files.read._read_content", fail)
    assert sync(docs) == (0, 0, 0, 8, 0)


def test_a_file_changed_just_now_is_read_again(sync: Callable[..., Any], docs: Path, encoder: RecordingEncoder) -> None:
    """Another change may leave it the same time."""
    write(docs, "f4.md", "bread rain number 4", ago=0)
    assert sync(docs) == (0, 1, 0, 7, 0)
    status = (docs / "f4.md").stat()
    (docs / "f4.md").write_text("bread moon number 9")
    os.utime(docs / "f4.md", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert sync(docs) == (0, 1, 0, 7, 0)


def test_losing_more_than_half_is_refused(
    sync: Callable[..., Any], docs: Path, folder: Path, encoder: RecordingEncoder
) -> None:
    write(docs, "new.md", "rain")
    for row in range(5):
        (docs / f"f{row}.md").unlink()
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(CorpusError, match=r"docs: 5 of its 8 documents .* more than half.*--yes"):
        sync(docs)
    assert encoder.texts == [], "refused before anything is encoded"
    assert (folder / "manifest.json").read_bytes() == before
    assert sync(docs, dry_run=True) == (1, 0, 0, 3, 5)
    assert sync(docs, yes=True) == (1, 0, 0, 3, 5)
    assert identifiers(folder, encoder) == {"docs/f5.md", "docs/f6.md", "docs/f7.md", "docs/new.md"}


@pytest.mark.parametrize("loss", ["gone", "empty", "unreadable"])
def test_a_source_that_is_gone_is_always_refused(sync: Callable[..., Any], docs: Path, folder: Path, loss: str) -> None:
    shutil.rmtree(docs)
    if loss != "gone":
        docs.mkdir()
    if loss == "unreadable":
        (docs / "f0.md").symlink_to(docs / "f0.md")
        (docs / "f1.md").write_bytes(b"\xff\xfe\x00")
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(CorpusError, match="docs"):
        sync(docs, yes=True)
    assert (folder / "manifest.json").read_bytes() == before


def test_the_document_of_a_file_that_cannot_be_read_stays(
    sync: Callable[..., Any], docs: Path, folder: Path, encoder: RecordingEncoder
) -> None:
    (docs / "f4.md").write_bytes(b"---\n- a list\n---\ntext")
    (docs / "f5.md").unlink()
    assert sync(docs, on_error="skip") == (0, 0, 0, 6, 1)
    assert "docs/f4.md" in identifiers(folder, encoder)


def test_only_documents_of_the_sources_given_are_compared(
    sync: Callable[..., Any], docs: Path, folder: Path, tmp_path: Path, encoder: RecordingEncoder
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in make_documents(range(4))))
    add_documents(folder, [other], model=encoder)
    (docs / "f0.md").unlink()
    other.write_text("".join(json.dumps(row) + "\n" for row in make_documents(range(3))))
    assert sync(docs) == (0, 0, 0, 7, 1)
    assert {"d0", "d1", "d2", "d3"} <= identifiers(folder, encoder)
    assert sync(other) == (0, 0, 0, 3, 1)
    assert "d3" not in identifiers(folder, encoder)
    write(docs, "f9.md", "sea")
    other.write_text("".join(json.dumps(row) + "\n" for row in make_documents(range(2))))
    assert sync() == (1, 0, 0, 9, 1), "without corpora: all sources"


def test_a_document_that_moved_to_another_source_stays(folder: Path, tmp_path: Path, encoder: RecordingEncoder) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    lines = [json.dumps(row) + "\n" for row in make_documents(range(6))]
    first.write_text("".join(lines[:4]))
    second.write_text("".join(lines[4:]))
    build_index([first, second], tmp_path / "rows", model=encoder)
    first.write_text("".join(lines[:3]))
    second.write_text("".join(lines[3:]))
    encoder.texts.clear()
    report = sync_index(tmp_path / "rows", [first, second], model=encoder)
    assert report[:5] == (0, 0, 0, 6, ())
    assert encoder.texts == []
    assert sync_index(tmp_path / "rows", [first], model=encoder)[:5] == (0, 0, 0, 3, ())
    second.write_text("".join(lines[4:]))
    assert sync_index(tmp_path / "rows", [second], model=encoder).vanished == ("d3",)


@pytest.mark.parametrize("deleted", [0, 2])
def test_a_sync_gives_the_index_that_a_build_would(tmp_path: Path, encoder: RecordingEncoder, deleted: int) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in make_documents(range(20))))
    build_index([corpus], tmp_path / "idx", model=encoder)
    rows = [*make_documents(range(6, 15)), *make_documents(range(15, 24), seed=1)]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    delete_documents(tmp_path / "idx", [f"d{row}" for row in range(10, 10 + deleted)])
    report = sync_index(tmp_path / "idx", [corpus], model=encoder)
    assert (report.added, report.changed, len(report.vanished)) == (4 + deleted, 5, 6)
    assert identifiers(tmp_path / "idx", encoder) == {row["_id"] for row in rows}
    assert sync_index(tmp_path / "idx", [corpus], model=encoder)[:5] == (0, 0, 0, 18, ())


def test_merging_keeps_what_is_recorded(
    sync: Callable[..., Any], docs: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(docs, "f9.md", "sea")
    sync(docs)
    (docs / "f0.md").unlink()
    merge_index(folder)
    monkeypatch.setattr("llm2comp.corpus.files.read._read_content", fail)
    assert sync(docs) == (0, 0, 0, 8, 1)


def test_an_index_without_the_record_compares_contents(
    sync: Callable[..., Any], docs: Path, folder: Path, encoder: RecordingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(folder)
    [segment] = manifest.segments
    assert segment.origins_file
    object.__setattr__(segment, "files", {n: f for n, f in segment.files.items() if n != segment.origins_file})
    (segment_folder(folder, segment) / "origins-000000").unlink()
    write_manifest(folder, manifest)
    (docs / "f0.md").unlink()
    assert sync(docs) == (0, 0, 0, 7, 1)
    assert encoder.texts == []
    monkeypatch.setattr("llm2comp.corpus.files.read._read_content", fail)
    assert sync(docs) == (0, 0, 0, 7, 0), "the first sync recorded size and time"


def test_chunks_of_a_document_that_became_shorter(docs: Path, tmp_path: Path) -> None:
    encoder = ChunkingEncoder()
    write(docs, "long.md", "one two three four five six seven")
    options = IndexOptions(chunk_tokens=3, chunk_at="tokens")
    build_index([docs], tmp_path / "chunks", model=encoder, options=options)
    write(docs, "long.md", "one two three four")
    (docs / "f1.md").rename(docs / "g1.md")
    encoder.texts.clear()
    report = sync_index(tmp_path / "chunks", [docs], model=encoder)
    assert report[:5] == (0, 1, 1, 7, ())
    assert encoder.texts == ["one two three", "four"]
    found = identifiers(tmp_path / "chunks", encoder)
    assert {name for name in found if "long" in name} == {"docs/long.md#1", "docs/long.md#2"}
    assert {name for name in found if "1.md" in name} == {"docs/g1.md#1", "docs/g1.md#2"}
    verify_index(tmp_path / "chunks")


def test_another_corpus_is_refused(sync: Callable[..., Any], tmp_path: Path, folder: Path) -> None:
    write(tmp_path / "elsewhere", "a.md", "rain")
    with pytest.raises(CorpusError, match=r"elsewhere: no source of the index, whose sources are docs \(.*index add"):
        sync(tmp_path / "elsewhere")
    with pytest.raises(CorpusError, match="8 of its 8 documents"):
        sync(tmp_path / "elsewhere", source="docs")
    with pytest.raises(CorpusError, match='has no source "books"'):
        sync(tmp_path / "elsewhere", source="books")
    assert commit_of(folder) == 1


def test_a_moved_folder_is_the_same_source(
    sync: Callable[..., Any], docs: Path, folder: Path, encoder: RecordingEncoder
) -> None:
    moved = docs.rename(docs.with_name("handbook"))
    assert sync(moved, source="docs") == (0, 0, 0, 8, 0)
    assert encoder.texts == []
    assert sync(moved) == (0, 0, 0, 8, 0), "it is known there now"


def test_rows_that_cannot_be_read_are_not_taken_for_vanished(tmp_path: Path, encoder: RecordingEncoder) -> None:
    corpus = tmp_path / "corpus.jsonl"
    lines = [json.dumps(row) + "\n" for row in make_documents(range(10))]
    corpus.write_text("".join(lines))
    build_index([corpus], tmp_path / "rows", model=encoder)
    corpus.write_text("".join([*lines[:8], lines[8][:20] + "\n", lines[9]]))
    with pytest.raises(CorpusError, match="1 row could not be read, and as documents of the index 1 are"):
        sync_index(tmp_path / "rows", [corpus], model=encoder, on_error="skip", on_skip=print)
    report = sync_index(tmp_path / "rows", [corpus], model=encoder, on_error="skip", on_skip=print, yes=True)
    assert report.vanished == ("d8",)


def test_a_second_writer_is_refused(sync: Callable[..., Any], docs: Path, folder: Path) -> None:
    write(docs, "new.md", "rain")
    with sole_writer(folder), pytest.raises(IndexFolderError, match="being written by process"):
        sync(docs)
    assert commit_of(folder) == 1


def test_rows_in_memory_follow_too(tmp_path: Path, encoder: RecordingEncoder) -> None:
    build_index(make_documents(range(6)), tmp_path / "rows", model=encoder)
    encoder.texts.clear()
    rows = (row for row in [*make_documents(range(1, 6)), *make_documents([9])])
    assert sync_index(tmp_path / "rows", rows, model=encoder)[:5] == (1, 0, 0, 5, ("d0",))
    assert len(encoder.texts) == 1
    with pytest.raises(CorpusError, match="more than half"):
        sync_index(tmp_path / "rows", make_documents([1]), model=encoder)


def test_documents_that_came_with_their_vectors_are_of_no_source(
    sync: Callable[..., Any], docs: Path, folder: Path, encoder: RecordingEncoder
) -> None:
    texts = ["sea light", "stone field"]
    documents = [Document(f"v{row}", "", text) for row, text in enumerate(texts)]
    upsert_vectors(folder, documents, encoder.encode_query(texts), fingerprint=encoder.fingerprint)
    assert sync(docs) == (0, 0, 0, 8, 0)
    merge_index(folder)
    assert sync(docs, full=True) == (0, 0, 0, 8, 0)
    assert {"v0", "v1"} <= identifiers(folder, encoder)


def test_an_open_index_syncs_itself_and_shows_the_commit(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    for name, text in TEXTS.items():
        write(notes, name, text)
    encoder = RecordingEncoder()
    build_index([notes], tmp_path / "idx", model=encoder)
    with open_index(tmp_path / "idx", model=encoder) as index:
        write(notes, "new.md", "a harbour with tides")
        report = index.sync()
        assert (report.added, report.changed, report.vanished) == (1, 0, ())
        assert len(index) == len(TEXTS) + 1
        assert index.search(["harbour tides"], k=1)[0][0].text == "a harbour with tides"
        assert index.sync(dry_run=True).unchanged == len(TEXTS) + 1
