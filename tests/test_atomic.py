"""Files and folders written whole or not at all."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm2comp.atomic import staged_folder, write_file, write_output
from llm2comp.errors import LLM2CompError, TrainingError


def test_text_and_bytes_in_parts_replace_the_old_file(tmp_path: Path) -> None:
    write_file(tmp_path / "out", ["old"])
    write_file(tmp_path / "out", ["é\n", b"\xff"])
    assert (tmp_path / "out").read_bytes() == b"\xc3\xa9\n\xff"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_draft_that_a_killed_process_left_is_replaced_and_a_link_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("kept")
    for name, draft in (("out.new", "out.new"), (".out.part", None)):
        (tmp_path / name).symlink_to(tmp_path / "other")
        write_file(tmp_path / "out", ["text"], draft=draft)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]
    assert (tmp_path / "other").read_text() == "kept"


def test_content_and_name_are_synced_in_this_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = []
    fsync, replace = os.fsync, os.replace

    def follow_fsync(descriptor: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def follow_replace(old: Path, new: Path) -> None:
        events.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", follow_fsync)
    monkeypatch.setattr(os, "replace", follow_replace)
    write_file(tmp_path / "out", ["text"])
    assert events == ["file", "rename", "folder"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "out.txt"
    file.write_text("old", encoding="utf-8")

    def parts() -> Iterator[str]:
        yield "new"
        raise OSError(28, "No space left on device")

    with pytest.raises(LLM2CompError, match=r"out\.txt: cannot be written \(No space left on device\)"):
        write_output(file, parts())
    assert file.read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


def test_the_error_of_a_full_disk_gets_the_name_of_the_file(tmp_path: Path) -> None:
    def parts() -> Iterator[str]:
        yield "new"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as failed:
        write_file(tmp_path / "out.txt", parts())
    assert failed.value.filename == str(tmp_path / "out.txt")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LLM2CompError, match=r"nowhere/out\.txt: cannot be written"):
        write_output(tmp_path / "nowhere" / "out.txt", ["x"])


def test_a_folder_that_cannot_be_filled_names_what_was_saved(tmp_path: Path) -> None:
    with (
        pytest.raises(TrainingError, match=r"pairs: the set of pairs cannot be saved there \(.*No space left"),
        staged_folder(tmp_path / "new" / "pairs", kind="set of pairs", error=TrainingError),
    ):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []
