"""`llm2comp eval --suite` as a user runs it, and again after an interruption."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.conftest import WordHashes

Command = Callable[..., Any]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a retrieval task, sentence pairs and a classification task."""
    folder = tmp_path / "data"
    for part in ("fruit/qrels", "kinds"):
        (folder / part).mkdir(parents=True)
    (folder / "fruit" / "corpus.jsonl").write_text(
        '{"_id": "d1", "text": "red apple"}\n{"_id": "d2", "text": "grey stone"}\n', encoding="utf-8"
    )
    (folder / "fruit" / "queries.jsonl").write_text('{"_id": "q1", "text": "stone"}\n', encoding="utf-8")
    (folder / "fruit" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td2\t1\n", encoding="utf-8")
    (folder / "similar.tsv").write_text(
        "sentence1\tsentence2\tscore\na b\ta b\t5\na b\ta c\t2\na b\tc d\t0\n", encoding="utf-8"
    )
    for split in ("train", "test"):
        (folder / "kinds" / f"{split}.tsv").write_text(
            "text\tlabel\nred apple\tfruit\nred plum\tfruit\ngrey flint\tstone\ngrey slate\tstone\n", encoding="utf-8"
        )
    return folder


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    tasks = [
        {"path": "similar.tsv", "kind": "sts"},
        {"path": "kinds", "kind": "classification"},
        {"path": "fruit", "kind": "retrieval"},
    ]
    (tmp_path / "suite.json").write_text(json.dumps({"name": "mine", "tasks": tasks}), encoding="utf-8")
    return tmp_path / "suite.json"


class Breaking(WordHashes):
    """Encodes documents `times` times and is then interrupted."""

    def __init__(self, times: int, fingerprint: str) -> None:
        super().__init__(256)
        self.times, self.fingerprint = times, fingerprint

    def encode_document(
        self, inputs: list[str], /, *, batch_size: int = 32, show_progress_bar: bool | None = None
    ) -> Any:
        if self.times == 0:
            raise KeyboardInterrupt
        self.times -= 1
        return super().encode_document(inputs)


@pytest.fixture
def load_breaking(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes every name load a model that is interrupted after a number of calls."""

    def load(times: int, fingerprint: str = "abc") -> None:
        monkeypatch.setattr(
            "llm2comp_benchmarks.systems.load.load_model", lambda name=None, options=None: Breaking(times, fingerprint)
        )

    return load


def test_a_suite_is_cut_off_and_goes_on(
    llm2comp_command: Command, data: Path, suite: Path, tmp_path: Path, load_breaking: Callable[..., None]
) -> None:
    out = tmp_path / "out.json"
    command = ["eval", "--suite", suite, "--data", data, "--json", out]
    load_breaking(3)  # one for the pairs, two for train and test: cut off in retrieval
    assert llm2comp_command(*command).code == 130
    assert {"similar", "kinds", "fruit"} & json.loads(out.read_text()).keys() == {"similar", "kinds"}

    load_breaking(2)  # queries and documents of retrieval
    done = llm2comp_command(*command)
    assert done.code == 0, done.err
    assert [line.partition(":")[0] for line in done.err.splitlines() if "finished before" in line] == [
        "similar",
        "kinds",
    ]
    assert done.out.splitlines() == [
        "task     cosine_spearman",
        "similar           1.0000",
        "",
        "task   accuracy      f1",
        "kinds    1.0000  1.0000",
        "",
        "task   ndcg_at_10  map_at_1000  recall_at_100  mrr_at_10",
        "fruit      1.0000       1.0000         1.0000     1.0000",
    ]
    written = json.loads(out.read_text())
    assert {name: (entry["metric"], len(entry["values"])) for name, entry in written["samples"].items()} == {
        "similar": ("cosine_spearman", 3),
        "kinds": ("accuracy", 4),
        "fruit": ("ndcg_at_10", 1),
    }

    load_breaking(0)
    assert llm2comp_command(*command).code == 0  # nothing is left to encode
    load_breaking(9, "another")
    refused = llm2comp_command(*command)
    assert (refused.code, refused.out, refused.err.count("\n")) == (1, "", 1)
    assert "holds results of another model" in refused.err
    assert json.loads(out.read_text()) == written
    assert llm2comp_command(*command, "--overwrite").code == 0
    assert json.loads(out.read_text())["settings"]["fingerprint"] == "another"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: (data / "fruit" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\tx\n"),
            "fruit/qrels/test.tsv:2: the score is 'x'",
        ),
        (lambda data: (data / "kinds" / "test.tsv").write_text("text\tlabel\n"), "kinds/test.tsv: no text in it"),
        (lambda data: (data / "similar.tsv").unlink(), "similar.tsv: no such file"),
    ],
)
def test_bad_data_is_one_line_before_a_model_is_loaded(
    llm2comp_command: Command, data: Path, suite: Path, change: Callable[[Path], Any], message: str
) -> None:
    change(data)
    done = llm2comp_command("eval", "--suite", suite, "--data", data, "--model", "no/such/model")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert message in done.err


@pytest.mark.parametrize(
    ("name", "message"),
    [("local", "give that folder with --data"), ("locale", "no such suite"), ("paper-figures", "no such suite")],
)
def test_no_such_suite_or_data(llm2comp_command: Command, name: str, message: str) -> None:
    done = llm2comp_command("eval", "--suite", name)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert message in done.err


def test_a_task_that_mteb_does_not_have(llm2comp_command: Command, tmp_path: Path) -> None:
    pytest.importorskip("mteb", reason="needs the extra eval")
    (tmp_path / "suite.json").write_text('{"tasks": [{"mteb": "SciFct", "kind": "retrieval"}]}', encoding="utf-8")
    done = llm2comp_command("eval", "--suite", tmp_path / "suite.json")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert "mteb has no task of this name: 'SciFct'" in done.err


def test_a_system_without_vectors(llm2comp_command: Command, data: Path, suite: Path) -> None:
    pytest.importorskip("bm25s", reason="needs the extra eval")
    done = llm2comp_command("eval", "--suite", suite, "--data", data, "--model", "bm25")
    assert (done.code, done.out) == (1, "")
    assert "cannot do similar, kinds" in done.err
