"""TREC run files, written and read."""

import gzip
from pathlib import Path

import pytest

from llm2comp.errors import CorpusError
from llm2comp_benchmarks import read_run, write_run


def test_written_in_the_order_trec_eval_ranks(tmp_path: Path) -> None:
    write_run(tmp_path / "run.trec", {"q1": {"a": 0.5, "b": 0.5, "c": 0.75}, "q2": {"é": -1.0}}, tag="ours")
    assert (tmp_path / "run.trec").read_text(encoding="utf-8") == (
        "q1 Q0 c 1 0.75 ours\nq1 Q0 b 2 0.5 ours\nq1 Q0 a 3 0.5 ours\nq2 Q0 é 1 -1 ours\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["run.trec"]


def test_scores_survive_a_round_trip_as_32_bit_floats(tmp_path: Path) -> None:
    run = {"q": {"a": 0.8660253882408142, "b": 0.8660253286361694}}  # neighbours in float32
    write_run(tmp_path / "run.trec", run, tag="x")
    assert read_run(tmp_path / "run.trec") == {"q": {"a": pytest.approx(0.86602539), "b": pytest.approx(0.86602533)}}
    assert read_run(tmp_path / "run.trec")["q"]["a"] > read_run(tmp_path / "run.trec")["q"]["b"]


def test_ranks_are_ignored_and_archives_and_odd_ids_are_read(tmp_path: Path) -> None:
    lines = "q1 Q0 d\xa01 7 1.5 tag\r\n\nq1\tQ0\td2\t9\t2e0\ttag\n"
    (tmp_path / "run.gz").write_bytes(gzip.compress(lines.encode()))
    assert read_run(tmp_path / "run.gz") == {"q1": {"d\xa01": 1.5, "d2": 2.0}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q Q0 d 1 0.5 t\nq Q0 e 2 0.4\n", r"run:2: 5 fields; a run line has six"),
        ("q Q0 d 1 high t\n", r"run:1: the score 'high' is not a finite number"),
        ("q Q0 d 1 nan t\n", r"run:1: the score 'nan' is not a finite number"),
        (
            "q Q0 d 1 0.5 t\nq Q0 e 2 0.4 t\nq Q0 d 3 0.3 t\n",
            r"run:3: document 'd' stands a second time under query 'q'",
        ),
        ("\n", "run: holds no ranking"),
    ],
)
def test_bad_run_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run").write_text(text, encoding="utf-8")
    with pytest.raises(CorpusError, match=message):
        read_run(tmp_path / "run")


def test_a_missing_run_file(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such file"):
        read_run(tmp_path / "run")


@pytest.mark.parametrize("bad", ["two words", ""])
def test_ids_the_format_cannot_hold_leave_no_file(tmp_path: Path, bad: str) -> None:
    with pytest.raises(CorpusError, match="cannot hold"):
        write_run(tmp_path / "run", {"q": {"fine": 1.0, bad: 0.5}}, tag="x")
    assert not list(tmp_path.iterdir())
