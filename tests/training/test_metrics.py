"""Reports of steps that a resumed run repeats are dropped."""

import json
from pathlib import Path

import pytest

from llm2comp.errors import TrainingError
from llm2comp.training.metrics import append_metrics, read_metrics, rewind_metrics


def test_reports_after_the_step_gone_back_to_are_dropped(tmp_path: Path) -> None:
    for step in (0, 1, 2, 2, 3):
        append_metrics(tmp_path, {"step": step, "loss": 1.0})
    append_metrics(tmp_path, {"step": 4, "loss": float("nan")})
    assert read_metrics(tmp_path)[-1] == {"step": 4, "loss": None}
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    assert len(read_metrics(tmp_path)) == 6
    rewind_metrics(tmp_path, 2)
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [0, 1, 2, 2]
    rewind_metrics(tmp_path, None)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_named_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r"metrics\.jsonl could not be written: No space left on device"):
        append_metrics(tmp_path, {"step": 1})
