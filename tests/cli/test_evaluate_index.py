"""`eval --index` and `index tune` as a user runs them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llm2comp
from tests.indexes.live import ChunkingEncoder

pytest.importorskip("pytrec_eval")
Command = Callable[..., Any]
Write = Callable[[Path, list[Any]], Path]


@pytest.fixture
def folder(tmp_path: Path, write_lines: Write, llm2comp_command: Command, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index of chunks: the words of `bread` stand in the second chunk of a."""
    monkeypatch.setitem(vars(llm2comp), "load", lambda name=None: ChunkingEncoder())
    rows = [
        {"_id": "a", "text": "stone field light sea. bread bread bread bread."},
        {"_id": "b", "text": "moon moon moon moon. tides tides tides tides."},
    ]
    corpus = write_lines(tmp_path / "corpus.jsonl", rows)
    options = ("--chunk-tokens", 5, "--chunk-at", "tokens", "--hybrid")
    built = llm2comp_command("index", "build", corpus, "-o", tmp_path / "idx", *options)
    assert built.code == 0, built.err
    return tmp_path / "idx"


@pytest.fixture
def queries(tmp_path: Path, write_lines: Write) -> Path:
    return write_lines(tmp_path / "q.jsonl", [{"_id": "q1", "text": "bread"}, {"_id": "q2", "text": "tides"}])


@pytest.fixture
def qrels(tmp_path: Path, write_lines: Write) -> Path:
    return write_lines(tmp_path / "qrels.tsv", ["query-id\tcorpus-id\tscore", "q1\ta\t1", "q2\tb\t1"])


@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
def test_chunks_count_as_their_documents(
    folder: Path, queries: Path, qrels: Path, tmp_path: Path, llm2comp_command: Command, mode: str
) -> None:
    out, run_file = tmp_path / "out.json", tmp_path / "out.trec"
    command = ("eval", "--index", folder, "--queries", queries, "--qrels", qrels, "--mode", mode)
    weights = ("--weights", 1, 2) if mode == "hybrid" else ()
    run = llm2comp_command(*command, *weights, "--json", out, "--run-out", run_file)
    assert run.code == 0, run.err
    assert run.out.splitlines()[1].split() == ["idx", "1.0000", "1.0000", "1.0000", "1.0000"]
    assert "loading the model is not counted" in run.err
    record = json.loads(out.read_text())
    assert record["idx"]["ndcg_at_10"] == 1.0
    assert record["settings"]["tasks"]["idx"]["mode"] == mode
    assert record["settings"]["tasks"]["idx"].get("weights") == ([1.0, 2.0] if weights else None)
    ranked = [line.split()[2] for line in run_file.read_text().splitlines()]
    assert not any("#" in name for name in ranked)


def test_results_of_several_indexes_stay_in_one_file_and_those_of_another_mode_do_not_replace_them(
    folder: Path, queries: Path, qrels: Path, tmp_path: Path, llm2comp_command: Command
) -> None:
    other, out = Path(shutil.copytree(folder, tmp_path / "other")), tmp_path / "out.json"
    command = ("eval", "--queries", queries, "--qrels", qrels, "--json", out)
    for index in (folder, other, folder):  # measured again, the first
        assert llm2comp_command(*command, "--index", index).code == 0
    before = json.loads(out.read_text())
    assert set(before) >= {"idx", "other"}
    assert set(before["settings"]["tasks"]) == set(before["seconds"]) == {"idx", "other"}
    run = llm2comp_command(*command, "--index", folder, "--mode", "bm25")
    assert (run.code, run.err.count("\n"), "other settings" in run.err) == (1, 1, True)
    assert json.loads(out.read_text()) == before
    assert llm2comp_command(*command, "--index", folder, "--mode", "bm25", "--overwrite").code == 0
    assert "other" not in json.loads(out.read_text())


def test_a_second_place_counts_as_in_trec_eval(
    folder: Path, queries: Path, tmp_path: Path, write_lines: Write, llm2comp_command: Command
) -> None:
    qrels = write_lines(tmp_path / "other.tsv", ["q1 0 b 1", "q2 0 b 1"])
    run = llm2comp_command("eval", "--index", folder, "--queries", queries, "--qrels", qrels)
    assert run.out.splitlines()[1].split() == ["idx", "0.8155", "0.7500", "1.0000", "0.7500"]


def test_judgements_of_documents_that_are_not_there(
    folder: Path, queries: Path, tmp_path: Path, write_lines: Write, llm2comp_command: Command
) -> None:
    some = write_lines(tmp_path / "some.tsv", ["q1 0 a 1", "q1 0 z 1", "q9 0 a 1"])
    run = llm2comp_command("eval", "--index", folder, "--queries", queries, "--qrels", some)
    assert run.code == 0
    assert "1 of 2 judged questions have no text or no relevant document" in run.err
    assert "dense: 1 question, " in run.err
    assert "1 of 2 documents judged relevant are not in the index and count as not found ('z')" in run.err
    assert run.out.splitlines()[1].split()[1] == "0.6131"  # 1 / (1 + 1 / log2(3))
    none = write_lines(tmp_path / "none.tsv", ["q1 0 z 1"])
    run = llm2comp_command("eval", "--index", folder, "--queries", queries, "--qrels", none)
    assert (run.code, run.err.count("\n")) == (1, 1)
    assert "holds none of the 1 documents that the judgements name, such as 'z'" in run.err
    strange = write_lines(tmp_path / "strange.tsv", ["q9 0 a 1"])
    run = llm2comp_command("eval", "--index", folder, "--queries", queries, "--qrels", strange)
    assert "none of the 1 judged questions has a text and a relevant document" in run.err


def test_wrong_usage(folder: Path, queries: Path, qrels: Path, tmp_path: Path, llm2comp_command: Command) -> None:
    for command in (
        ("--index", folder),
        ("--index", folder, "--queries", queries, "--qrels", qrels, "--beir", tmp_path),
        ("--queries", queries),
        ("--mode", "bm25", "--beir", tmp_path),
        ("--index", folder, "--queries", queries, "--qrels", qrels, "--weights", 1, 2),
    ):
        assert llm2comp_command("eval", *command).code == 2


def test_tuning_prints_what_was_and_what_is(
    folder: Path, queries: Path, qrels: Path, llm2comp_command: Command
) -> None:
    run = llm2comp_command("index", "tune", folder, "--queries", queries, "--qrels", qrels)
    assert run.code == 0, run.err
    now, measured, quality = run.out.splitlines()
    assert now.startswith("now:    The finished index of 4 vectors, exact search, measures recall@10 1.000 at ")
    assert measured.startswith("measured with 2 of the 2 questions in q.jsonl, encoded as queries; encoding one takes ")
    assert quality == "nDCG@10 of dense search: 1.0000, now 1.0000"
    assert "fewer than 30 questions" in run.err
    shown = json.loads(llm2comp_command("index", "tune", folder, "--queries", queries, "--dry-run", "--json").out)
    assert (shown["questions"], shown["committed"], shown["measured"]["query_kind"]) == (2, False, "questions")


@pytest.mark.parametrize(
    ("rows", "message"), [([], "no query in it"), ([{"text": "no id"}], "expected a string or a number in _id")]
)
def test_files_of_questions_without_questions_or_ids(
    folder: Path, tmp_path: Path, write_lines: Write, llm2comp_command: Command, rows: list[Any], message: str
) -> None:
    before = (folder / "manifest.json").read_bytes()
    run = llm2comp_command("index", "tune", folder, "--queries", write_lines(tmp_path / "bad.jsonl", rows))
    assert (run.code, run.err.count("\n"), message in run.err) == (1, 1, True)
    assert (folder / "manifest.json").read_bytes() == before
