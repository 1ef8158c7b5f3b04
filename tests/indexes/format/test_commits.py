"""A change and the folder around it: links, other files, names, limits, permissions, signals."""

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from llm2comp.errors import CorpusError, IndexFolderError
from llm2comp_indexes import (
    IndexOptions,
    add_documents,
    build_index,
    delete_documents,
    merge_index,
    open_index,
    verify_index,
)
from llm2comp_indexes.change import compare
from llm2comp_indexes.format import manifest
from llm2comp_indexes.format.manifest import read_manifest
from llm2comp_indexes.format.segment_writer import JOURNAL, new_segment_folder
from tests.indexes.live import RecordingEncoder, answers, identifiers, make_documents
from tests.word_encoder import WordEncoder

Write = Callable[..., Path]


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A folder outside of the index that must stay as it is."""
    folder = tmp_path / "precious"
    (folder / "000007").mkdir(parents=True)
    (folder / "000007" / "thesis.txt").write_text("all of it")
    return folder


def is_untouched(precious: Path) -> bool:
    return [path.name for path in precious.rglob("*")] == ["000007", "thesis.txt"] and (
        precious / "000007" / "thesis.txt"
    ).read_text() == "all of it"


def empty(folder: Path) -> None:
    delete_documents(folder, [f"d{row}" for row in range(5)])


def test_segments_that_lie_elsewhere_are_neither_swept_nor_written(
    index_folder: Path, precious: Path, corpus: Path, encoder: WordEncoder
) -> None:
    """A manifest without segments and a link in their place: files outside the index would be removed."""
    empty(index_folder)
    shutil.rmtree(index_folder / "segments")
    (index_folder / "segments").symlink_to(precious)
    changes: list[Callable[[], object]] = [
        lambda: add_documents(index_folder, [corpus], model=encoder),
        lambda: delete_documents(index_folder, ["d1"]),
        lambda: merge_index(index_folder, options=IndexOptions(hybrid=True)),
        lambda: build_index([corpus], index_folder, model=encoder, overwrite=True),
    ]
    for change in changes:
        with pytest.raises(IndexFolderError, match="segments: a link, expected a folder"):
            change()
    assert is_untouched(precious)


def test_a_build_does_not_follow_a_link_that_waits_for_it(
    tmp_path: Path, precious: Path, corpus: Path, encoder: WordEncoder
) -> None:
    shutil.rmtree(precious / "000007")
    (tmp_path / "idx").mkdir()
    (tmp_path / "idx" / "segments").symlink_to(precious)
    with pytest.raises(IndexFolderError, match="segments: a link"):
        build_index([corpus], tmp_path / "idx", model=encoder)
    assert not list(precious.iterdir())


@pytest.fixture
def unfinished(index_folder: Path, write_corpus: Write, encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of a segment that an interrupted addition left, with a finished block."""
    monkeypatch.setattr("llm2comp_indexes.builder.blocks.BLOCK", 2)
    monkeypatch.setattr(compare, "IDS_AT_ONCE", 2)
    corpus = write_corpus(make_documents(range(10, 16)), "added.jsonl")
    content = corpus.read_text()
    corpus.write_text(content + "not json\n")
    with pytest.raises(CorpusError):
        add_documents(index_folder, [corpus], model=encoder)
    corpus.write_text(content)
    [folder] = [path for path in (index_folder / "segments").iterdir() if (path / JOURNAL).exists()]
    return folder


@pytest.mark.parametrize(
    "name", ["vectors.faiss", "documents.jsonl", "documents.offsets", "journal.jsonl", "metadata.arrow", "bm25"]
)
def test_a_link_in_an_unfinished_segment_is_not_followed(
    index_folder: Path, unfinished: Path, precious: Path, corpus: Path, encoder: WordEncoder, name: str
) -> None:
    thesis = precious / "000007" / "thesis.txt"
    if name == "journal.jsonl":
        shutil.move(unfinished / name, index_folder.parent / name)
        thesis = index_folder.parent / name
        before = thesis.read_bytes()
    else:
        (unfinished / name).unlink(missing_ok=True)
        before = thesis.read_bytes()
    (unfinished / name).symlink_to(precious if name == "bm25" else thesis)
    assert add_documents(index_folder, [index_folder.parent / "added.jsonl"], model=encoder).added == 6
    assert thesis.read_bytes() == before
    assert is_untouched(precious)
    assert verify_index(index_folder).documents == 11
    assert not any(path.is_symlink() for path in index_folder.rglob("*"))


@pytest.mark.parametrize("name", ["manifest.json.new", "segments/000001/deleted-000002"])
def test_a_link_where_a_new_file_goes_is_replaced(index_folder: Path, precious: Path, name: str) -> None:
    (index_folder / name).symlink_to(precious / "000007" / "thesis.txt")
    assert delete_documents(index_folder, ["d1"]).deleted == 1
    assert is_untouched(precious)
    assert verify_index(index_folder).documents == 4
    assert not any(path.is_symlink() for path in index_folder.rglob("*"))


def test_an_unfinished_segment_without_its_files_is_written_again(index_folder: Path, unfinished: Path) -> None:
    """As after a power failure, on a disk that kept the journal but not the blocks that it lists."""
    (unfinished / "vectors.faiss").unlink()
    encoder = RecordingEncoder()
    assert add_documents(index_folder, [index_folder.parent / "added.jsonl"], model=encoder).added == 6
    assert len(encoder.texts) == 6
    assert verify_index(index_folder).documents == 11


@pytest.mark.parametrize(
    "entry", [{"rows": -1, "end": -1}, {"rows": 10**15, "end": 10**15}, {"end": 10}, {"rows": 3}, {"digest": "0" * 64}]
)
def test_a_journal_that_says_something_else_is_not_believed(
    index_folder: Path, unfinished: Path, entry: dict[str, Any]
) -> None:
    header, first, *rest = (unfinished / JOURNAL).read_text().splitlines()
    (unfinished / JOURNAL).write_text("\n".join([header, json.dumps({**json.loads(first), **entry}), *rest, ""]))
    encoder = RecordingEncoder()
    assert add_documents(index_folder, [index_folder.parent / "added.jsonl"], model=encoder).added == 6
    assert len(encoder.texts) == 6
    assert verify_index(index_folder).documents == 11
    assert identifiers(index_folder, encoder) == {
        *(f"d{row}" for row in range(5)),
        *(f"d{row}" for row in range(10, 16)),
    }


def test_what_lies_beside_the_segments_is_left_alone(
    index_folder: Path, corpus: Path, write_corpus: Write, encoder: WordEncoder
) -> None:
    kept = [
        "notes.txt",
        "backup/000001/vectors.faiss",
        "segments/notes.txt",
        "segments/backup/file",
        "segments/0000001/file",
        "segments/x00001/file",
    ]
    for name in kept:
        (index_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (index_folder / name).write_text("mine")
    add_documents(index_folder, [write_corpus(make_documents(range(10, 12)), "new.jsonl")], model=encoder)
    delete_documents(index_folder, ["d1"])
    merge_index(index_folder)
    build_index([corpus], index_folder, model=encoder, overwrite=True)
    assert all((index_folder / name).read_text() == "mine" for name in kept)
    assert verify_index(index_folder).documents == 5


def test_leftovers_that_cannot_be_removed_are_in_nobodys_way(
    index_folder: Path, write_corpus: Write, encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, or on a network file system, while a reader has the files open."""
    rmtree = shutil.rmtree

    def keep_segments(folder: Any, ignore_errors: bool = False, **rest: Any) -> None:
        if Path(folder).parent.name != "segments":
            rmtree(folder, ignore_errors, **rest)
        elif not ignore_errors:
            raise PermissionError(13, "held open", str(folder))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", keep_segments)
        patch.setattr(Path, "unlink", refuse(Path.unlink, lambda path: path.name.startswith("deleted-")))
        for row in range(10, 13):
            add_documents(index_folder, [write_corpus(make_documents([row]), "new.jsonl")], model=encoder)
            delete_documents(index_folder, ["d1", f"d{row - 7}"])
            merge_index(index_folder)
    assert len(list((index_folder / "segments").iterdir())) == 7
    assert verify_index(index_folder).documents == 5, "three of five deleted, three added"
    delete_documents(index_folder, ["d12"])
    assert len(list((index_folder / "segments").iterdir())) == 1, "swept when it could be"


def refuse(call: Callable[..., Any], when: Callable[[Path], bool]) -> Callable[..., Any]:
    def refusing(path: Path, missing_ok: bool = False) -> None:
        if when(path) and path.exists():
            raise PermissionError(13, "held open", str(path))
        call(path, missing_ok=missing_ok)

    return refusing


def test_names_of_segments_grow_and_begin_anew(tmp_path: Path) -> None:
    def new(taken: list[str], number: int = 1) -> str:
        return new_segment_folder(tmp_path, taken, {}, number=number).name

    assert new([]) == "000001"
    assert new(["000001"]) == "000002"
    assert new([], number=9) == "000009", "a reader of an earlier commit does not find it in another's place"
    for path in tmp_path.iterdir():
        path.rmdir()
    assert new(["999998"]) == "999999"
    assert new(["999999"]) == "000001"
    assert new(["000001", "999999"]) == "000002"
    assert new(["000002"], number=1_000_002) == "000003"


def test_more_segments_than_a_manifest_holds(
    index_folder: Path, write_corpus: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = RecordingEncoder()
    for row in (10, 11):
        add_documents(index_folder, [write_corpus(make_documents([row]), "new.jsonl")], model=encoder)
    most_bytes = (index_folder / "manifest.json").stat().st_size + 1000
    monkeypatch.setattr(manifest, "_FORMAT", replace(manifest._FORMAT, most_bytes=most_bytes))
    corpus = write_corpus(make_documents([12]), "new.jsonl")
    with pytest.raises(IndexFolderError, match=r"4 segments are more than a manifest can hold.*index merge"):
        add_documents(index_folder, [corpus], model=encoder)
    assert verify_index(index_folder).documents == 7
    merge_index(index_folder)
    assert add_documents(index_folder, [corpus], model=encoder).added == 1
    assert verify_index(index_folder).documents == 8


def test_a_damaged_index_is_not_overwritten_and_says_what_to_do(
    index_folder: Path, corpus: Path, encoder: WordEncoder
) -> None:
    (index_folder / "segments" / "000001" / "documents.ids").unlink()
    with pytest.raises(
        IndexFolderError,
        match=r"documents\.ids: missing.*not overwritten: name another folder with -o, or remove this one",
    ):
        build_index([corpus], index_folder, model=encoder, overwrite=True)


@contextmanager
def as_somebody() -> Iterator[None]:
    """Run without the rights of root."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that other users may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.skipif(os.name != "posix", reason="takes rights away as POSIX systems do")
def test_a_folder_that_may_only_be_read(shared: Path, index_folder: Path, encoder: WordEncoder) -> None:
    folder = Path(shutil.move(index_folder, shared / "idx"))
    corpus = shared / "corpus.jsonl"
    corpus.write_text(json.dumps(make_documents([1])[0]))
    expected = answers(folder, encoder)
    merge_index(folder)  # imports what is imported when it is needed
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    changes: list[Callable[[], object]] = [
        lambda: add_documents(folder, [corpus], model=encoder),
        lambda: delete_documents(folder, ["d1"]),
        lambda: merge_index(folder),
        lambda: build_index([corpus], folder, model=encoder, overwrite=True),
    ]
    for change in changes:
        with (
            as_somebody(),
            pytest.raises(
                IndexFolderError,
                match=r"idx: cannot be written \(LOCK\S*: Permission denied\); what was committed is whole",
            ),
        ):
            change()
    with as_somebody(), pytest.raises(IndexFolderError, match=r"cannot be written"):
        build_index([corpus], folder / "below" / "new", model=encoder)
    with as_somebody():
        assert answers(folder, encoder) == expected
        assert verify_index(folder).documents == 5


@pytest.mark.skipif(os.name != "posix", reason="timer signals")
def test_signals_in_between_change_nothing(tmp_path: Path, write_corpus: Write, encoder: WordEncoder) -> None:
    """System calls that a signal interrupts are made again."""
    signals = 0

    def count(number: int, frame: FrameType | None) -> None:
        nonlocal signals
        signals += 1

    first, second = (
        write_corpus(make_documents(range(200)), "first.jsonl"),
        write_corpus(make_documents(range(150, 300), seed=1), "second.jsonl"),
    )
    before = signal.signal(signal.SIGALRM, count)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        build_index([first], tmp_path / "idx", model=encoder, options=IndexOptions("IVF4,SQ8", hybrid=True))
        add_documents(tmp_path / "idx", [second], model=encoder)
        delete_documents(tmp_path / "idx", [f"d{row}" for row in range(20)])
        merge_index(tmp_path / "idx")
        verify_index(tmp_path / "idx")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert signals > 20
    assert len(open_index(tmp_path / "idx", model=encoder)) == 280
    assert read_manifest(tmp_path / "idx").commit == 4
