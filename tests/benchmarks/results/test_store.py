"""Result files written task by task, and results that do not count as of the same run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import LLM2CompError, SettingsError
from llm2comp_benchmarks import Samples, TaskResult
from llm2comp_benchmarks.results.store import ResultStore
from tests.paths import RESULTS

SETTINGS = {"model": "some/model", "fingerprint": "abc", "system": "llm2comp", "batch_size": 32}
SOURCE = {"source": "data/scifact", "split": "test", "queries": 2}
SCIFACT = TaskResult(
    "scifact",
    {"ndcg_at_10": 0.5},
    SOURCE | {"queries_missing_from_run": 0},
    1.25,
    samples=Samples("ndcg_at_10", "mean", "query", [0, 1], ids=["a", "b"]),
)
MTEB = TaskResult("SciFact", {"ndcg_at_10": 0.4}, {"benchmark": "mteb", "prompts": {"query": ""}}, 2.0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with a result of this package and one of mteb."""
    store = ResultStore(tmp_path / "out.json")
    store.start(SETTINGS)
    for result in (SCIFACT, MTEB):
        store.add(result)
    return tmp_path / "out.json"


def started(file: Path, **changed: Any) -> ResultStore:
    store = ResultStore(file)
    store.start(SETTINGS | changed)
    return store


def test_a_finished_task_is_found_again(file: Path) -> None:
    store = started(file)
    assert store.finished("scifact", SOURCE) == SCIFACT
    assert store.finished("SciFact", MTEB.details) == MTEB
    assert store.finished("stsb", {}) is None
    assert (store.holds("scifact"), store.holds("stsb")) == (True, False)


def test_the_file_is_whole_after_every_task(tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "out.json")
    store.start(SETTINGS)
    store.add(SCIFACT)
    assert json.loads((tmp_path / "out.json").read_text())["scifact"] == {"ndcg_at_10": 0.5}
    assert started(tmp_path / "out.json").finished("scifact", SOURCE) == SCIFACT


def test_what_was_there_stays_beside_what_is_added(file: Path) -> None:
    before = json.loads(file.read_text())
    started(file).add(TaskResult("stsb", {"cosine_spearman": 0.7}, {}, 0.5))
    after = json.loads(file.read_text())
    assert after["stsb"] == {"cosine_spearman": 0.7}
    assert (after["scifact"], after["samples"], after["seconds"]["scifact"]) == (
        before["scifact"],
        before["samples"],
        1.25,
    )
    assert after["settings"]["tasks"]["scifact"] == before["settings"]["tasks"]["scifact"]


def test_the_same_model_under_another_name(file: Path) -> None:
    assert started(file, model="moved/model").finished("scifact", SOURCE)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"fingerprint": "def"},
            r"out\.json: holds results of another model, some/model \(abc\), not of some/model; "
            "give another file, or --overwrite",
        ),
        (
            {"fingerprint": None, "model": "other"},
            r"holds results of another model, some/model \(some/model\), not of other",
        ),
        (
            {"system": "mean"},
            'made with other settings: {"system": "llm2comp"} now {"system": "mean"}; '
            "give another file, or --overwrite",
        ),
    ],
)
def test_another_model_or_settings(file: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        started(file, **changed)


def test_overwriting(file: Path) -> None:
    store = ResultStore(file, overwrite=True)
    store.start(SETTINGS | {"fingerprint": "def"})
    assert store.finished("scifact", SOURCE) is None
    store.add(replace(SCIFACT, metrics={"ndcg_at_10": 0.6}))
    assert {key for key, value in json.loads(file.read_text()).items() if key.lower() == "scifact"} == {"scifact"}


@pytest.mark.parametrize(
    ("name", "details"),
    [("scifact", SOURCE | {"queries": 3}), ("scifact", SOURCE | {"source": "x"}), ("SciFact", {"prompts": {}})],
)
def test_other_data_or_instructions(file: Path, name: str, details: dict[str, Any]) -> None:
    with pytest.raises(
        SettingsError, match=rf"its result of {name} was made with other instructions or data: .* --overwrite"
    ):
        started(file).finished(name, details)


def test_the_same_folder_by_another_path(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert started(file).finished("scifact", SOURCE | {"source": str(Path("data/scifact").resolve())})


def test_a_result_without_samples_is_measured_again(file: Path) -> None:
    record = json.loads(file.read_text())
    del record["samples"]
    file.write_text(json.dumps(record))
    assert started(file).finished("scifact", SOURCE) is None


def test_results_of_other_versions_say_so(file: Path) -> None:
    record = json.loads(file.read_text())
    record["commit"] = "0" * 40
    file.write_text(json.dumps(record))
    store = started(file, batch_size=8)
    result = store.finished("scifact", SOURCE)
    assert result
    assert result.details["made_with"] == {"commit": "0" * 40, "batch_size": 32}
    store.add(TaskResult("stsb", {"cosine_spearman": 0.7}, {}, 0.5))
    assert json.loads(file.read_text())["settings"]["tasks"]["scifact"]["made_with"]["batch_size"] == 32
    assert started(file, batch_size=8).finished("scifact", SOURCE).details["made_with"] == result.details["made_with"]


def test_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = ResultStore(None)
    store.start(SETTINGS)
    store.add(SCIFACT)
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "out.json").write_text('{"a": 1}')
    with pytest.raises(LLM2CompError, match=r"out\.json: not a valid result file"):
        ResultStore(tmp_path / "out.json")


def test_the_published_results_can_be_continued() -> None:
    file = RESULTS / "llm2comp-tiny.json"
    record = json.loads(file.read_text())
    store = ResultStore(file)
    store.start({key: value for key, value in record["settings"].items() if key != "tasks"} | {"system": "llm2comp"})
    assert store.holds("scifact")
