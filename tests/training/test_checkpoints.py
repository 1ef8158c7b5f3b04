"""The newest complete checkpoint counts; incomplete ones are ignored and removed."""

from pathlib import Path

import pytest

from llm2comp.training.checkpoints import discard, last_checkpoint, prune, seal
from tests.training.interruption import write_checkpoint


def test_the_newest_whole_checkpoint_counts(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    write_checkpoint(tmp_path, 9)
    whole = write_checkpoint(tmp_path, 100)
    write_checkpoint(tmp_path, 200, whole=False)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-300").write_text("a file")
    assert last_checkpoint(tmp_path) == whole
    for spoil in (
        lambda: (whole / "weights").write_bytes(b"123"),
        lambda: (whole / "weights").unlink(),
        lambda: (whole / "complete.json").write_text('{"st'),
    ):
        (whole / "weights").write_bytes(b"12345")
        seal(whole)
        assert last_checkpoint(tmp_path) == whole
        spoil()
        assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-9"


def test_pruning_keeps_two_whole_ones_whatever_lies_beside_them(tmp_path: Path) -> None:
    for step in (3, 6, 9, 12):
        write_checkpoint(tmp_path, step)
    for step in (1, 15, 18):
        write_checkpoint(tmp_path, step, whole=False)
    prune(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-12", "checkpoint-9"]


def test_a_checkpoint_no_longer_counts_while_it_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = write_checkpoint(tmp_path, 5)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    discard(checkpoint)
    assert (checkpoint / "weights").exists()
    assert last_checkpoint(tmp_path) is None
