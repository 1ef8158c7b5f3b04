"""Tuning by questions of the user: what is measured, what is committed, and what stays as it was."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llm2comp.errors import IndexFolderError, SettingsError
from llm2comp_indexes import Targets, delete_documents, merge_index, open_index, tune_index, undo_index, verify_index
from llm2comp_indexes.change import tune as module
from llm2comp_indexes.format.manifest import read_manifest
from llm2comp_indexes.format.segment import segment_folder
from llm2comp_indexes.tuning.queries import QueryKind
from llm2comp_indexes.tuning.report import read_report
from tests.word_encoder import WordEncoder

QUESTIONS = ["bread in the oven", "tides of the moon", "rain over the harbour", "a list of numbers"]


@pytest.fixture
def folder(tmp_path: Path, make_full_index: Callable[..., Path]) -> Path:
    """An index of 80 documents with a graph, 3 of them deleted."""
    return make_full_index(tmp_path / "full", "HNSW8")


def test_questions_are_measured_and_kept(folder: Path) -> None:
    encoder = WordEncoder()
    before = read_manifest(folder)
    report = tune_index(folder, QUESTIONS, source="mine.jsonl", model=encoder)
    after = read_manifest(folder)
    assert (report.questions, report.segments, report.committed) == (4, 1, True)
    assert report.before is not None
    assert report.before.queries == 4
    assert after.commit == before.commit + 1
    [segment] = after.segments
    stored = read_report(segment_folder(folder, segment) / (segment.report_file or ""))
    assert stored == report.measured
    assert stored.query_kind is QueryKind.QUESTIONS
    assert stored.query_source == "4 of the 4 questions in mine.jsonl, encoded as queries"
    assert "finding and scoring" in stored.reason
    with open_index(folder, model=encoder) as index:
        kept = index.segments[0].read_queries()
        assert np.array_equal(kept, encoder.encode_query(QUESTIONS))
        assert index.segments[0].report == stored
        assert index.search(["bread"], k=3)[0]
    assert encoder.documents == 0
    verify_index(folder)
    assert {path.name for path in segment_folder(folder, segment).iterdir()} >= set(segment.files) - {
        name for name in segment.files if "/" in name
    }


def test_the_effort_is_the_least_that_reaches_the_recall(folder: Path) -> None:
    low = tune_index(folder, QUESTIONS, model=WordEncoder(), targets=Targets(recall=0.05, k=10)).measured
    high = tune_index(folder, QUESTIONS, model=WordEncoder(), targets=Targets(recall=1.0, k=10)).measured
    assert high.point.recall == 1.0
    assert (low.point.effort.ef_search or 0) <= (high.point.effort.ef_search or 0)
    assert read_manifest(folder).options.targets == Targets(recall=1.0, k=10)
    assert len(list((folder / "segments").rglob("report*"))) == 2  # those of the last commit and of the one before


def test_tuning_can_be_undone(folder: Path) -> None:
    before = read_manifest(folder)
    tune_index(folder, QUESTIONS, model=WordEncoder(), targets=Targets(recall=0.5))
    undo_index(folder)
    after = read_manifest(folder)
    assert (after.options, after.segments) == (before.options, before.segments)
    verify_index(folder)


def test_exact_search_has_nothing_to_set(index_folder: Path) -> None:
    report = tune_index(index_folder, QUESTIONS, model=WordEncoder())
    assert report.before is None
    assert report.measured.point.recall == 1.0


def test_a_dry_run_changes_nothing(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    report = tune_index(folder, QUESTIONS, model=WordEncoder(), dry_run=True)
    assert not report.committed
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_an_interruption_leaves_the_index_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_manifest(folder)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_queries", fail)
        with pytest.raises(KeyboardInterrupt):
            tune_index(folder, QUESTIONS, model=WordEncoder())
    assert read_manifest(folder) == before
    tune_index(folder, QUESTIONS, model=WordEncoder())
    assert read_manifest(folder).commit == before.commit + 1
    verify_index(folder)


def test_a_merge_measures_with_the_questions(folder: Path) -> None:
    tune_index(folder, QUESTIONS, source="mine.jsonl", model=WordEncoder())
    merged = merge_index(folder).measured
    assert merged is not None
    assert merged.query_kind is QueryKind.QUESTIONS
    assert merged.query_source == "4 of the 4 questions in mine.jsonl, encoded as queries"


def test_many_questions_are_drawn_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 3)
    report = tune_index(folder, [f"bread {number}" for number in range(20)], source="q.csv", model=WordEncoder())
    assert report.questions == 3
    assert report.measured.query_source == "3 of the 20 questions in q.csv, encoded as queries"


def test_refusals(folder: Path, index_folder: Path) -> None:
    before = (folder / "manifest.json").read_bytes()
    for questions, message in (([], "questions are"), ("one", "questions are 'one'"), ([1], "questions hold 1")):
        with pytest.raises(SettingsError, match=message):
            tune_index(folder, questions, model=WordEncoder())
    with pytest.raises(IndexFolderError, match="holds vectors of dimension 32, the model gives 8"):
        tune_index(folder, QUESTIONS, model=WordEncoder(8))
    assert (folder / "manifest.json").read_bytes() == before
    delete_documents(index_folder, [f"d{row}" for row in range(5)])
    with pytest.raises(IndexFolderError, match="holds no documents, so there is nothing to tune"):
        tune_index(index_folder, QUESTIONS, model=WordEncoder())


def test_two_reports_of_a_segment_are_refused(folder: Path) -> None:
    from llm2comp.checked_json import signed

    tune_index(folder, QUESTIONS, model=WordEncoder())
    content = json.loads((folder / "manifest.json").read_text())
    files = content["segments"][0]["files"]
    [name] = [name for name in files if name.startswith("report-")]
    files["report.json"] = files[name]
    del content["checksum"]
    (folder / "manifest.json").write_text(json.dumps(signed(content), indent=1))
    with pytest.raises(IndexFolderError, match="has two files of report"):
        read_manifest(folder)
