"""`index add`, `delete` and `merge` as a user runs them: output, refusals, results of searches afterwards."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llm2comp
from llm2comp_indexes import verify_index
from llm2comp_indexes.format.lock import sole_writer
from tests.indexes.live import ChunkingEncoder, make_documents

Command = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("stand_in")


def write(path: Path, documents: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return path


@pytest.fixture
def folder(tmp_path: Path, llm2comp_command: Command) -> Path:
    assert (
        llm2comp_command(
            "index", "build", write(tmp_path / "corpus.jsonl", make_documents(range(12))), "-o", tmp_path / "idx"
        ).code
        == 0
    )
    return tmp_path / "idx"


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    return write(
        tmp_path / "newer.jsonl",
        [*make_documents([2, 3], seed=1), *make_documents([4]), *make_documents(range(20, 25))],
    )


def test_add_says_what_it_did(folder: Path, newer: Path, llm2comp_command: Command) -> None:
    run = llm2comp_command("index", "add", folder, newer)
    assert run.code == 0
    assert re.fullmatch(r"5 added, 2 replaced, 1 unchanged, in [\d.]+ s; 17 documents now\n", run.out)
    assert re.fullmatch(
        r"0 added, 0 replaced, 8 unchanged, in [\d.]+ s; 17 documents now\n",
        llm2comp_command("index", "add", folder, newer).out,
    )
    hits = json.loads(
        llm2comp_command("search", folder, make_documents([2], seed=1)[0]["text"], "-k", "1", "--json").out
    )
    assert hits[0]["id"] == "d2"


def test_add_as_json_and_with_skipped_rows(folder: Path, newer: Path, llm2comp_command: Command) -> None:
    newer.write_text(newer.read_text() + "not json\n")
    failed = llm2comp_command("index", "add", folder, newer)
    assert failed.code == 1
    assert failed.err.startswith(f"llm2comp: error: {newer}:9: ")
    assert failed.err.count("\n") == 1
    run = llm2comp_command("index", "add", folder, newer, "--on-error", "skip", "--json")
    report = json.loads(run.out)
    left_out = {"skipped", "cut", "empty", "below"}
    assert set(report) == {"added", "changed", "unchanged", "seconds", "encode_seconds", *left_out}
    assert [report[name] for name in ("added", "changed", "unchanged", "skipped")] == [5, 2, 1, 1]
    assert run.err.splitlines()[-1] == "skipped 1 row in all"


def test_delete_names_what_is_not_there_and_deletes_the_rest(folder: Path, llm2comp_command: Command) -> None:
    run = llm2comp_command("index", "delete", folder, "d1", "nobody", "d 2", " d3", "x" * 200, "d4\u202e", "d5")
    assert run.code == 0
    assert run.out == f"2 deleted, 10 documents left; `llm2comp index merge {folder}` frees the space\n"
    assert run.err == f"not in the index: nobody, d 2, ' d3', {'x' * 59}…, 'd4\\u202e'\n"
    assert llm2comp_command("index", "delete", folder, "d1").out == "0 deleted, 10 documents left\n"
    assert json.loads(llm2comp_command("index", "delete", folder, "d2", "d1", "--json").out) == {
        "deleted": 1,
        "missing": ["d1"],
    }


def test_delete_by_a_file_of_ids(folder: Path, tmp_path: Path, llm2comp_command: Command) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_bytes(b"d1\r\n\r\nd2\nnobody\n" + b"".join(b"no%d\n" % row for row in range(20)))
    run = llm2comp_command("index", "delete", folder, "d7", "--ids", ids)
    assert run.out.startswith("3 deleted, 9 documents left")
    assert run.err == f"not in the index: nobody, {', '.join(f'no{row}' for row in range(9))} and 11 more\n"
    everything = tmp_path / "all.txt"
    everything.write_text("".join(f"d{row}\n" for row in range(12)))
    assert llm2comp_command("index", "delete", folder, "--ids", everything).out == "9 deleted, 0 documents left\n"
    assert llm2comp_command("search", folder, "bread").code == 0
    assert llm2comp_command("index", "add", folder, tmp_path / "corpus.jsonl").out.endswith("; 12 documents now\n")


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "no such file"), (b"\n \n", "holds no ids, expected one per line"), (b"\xff\xfe\x00", "not UTF-8")],
)
def test_files_of_ids_that_are_none(
    folder: Path, tmp_path: Path, llm2comp_command: Command, content: bytes | None, words: str
) -> None:
    ids = tmp_path / "ids.txt"
    if content is not None:
        ids.write_bytes(content)
    run = llm2comp_command("index", "delete", folder, "--ids", ids)
    assert run.code == 1
    assert re.match(rf"llm2comp: error: {ids}\S*: .*{words}", run.err)
    assert run.err.count("\n") == 1


def test_delete_without_ids_is_wrong_usage(folder: Path, llm2comp_command: Command) -> None:
    assert llm2comp_command("index", "delete", folder).code == 2


def test_the_id_of_a_chunk_is_explained(
    tmp_path: Path, llm2comp_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(llm2comp), "load", lambda name=None: ChunkingEncoder())
    corpus = write(tmp_path / "corpus.jsonl", [{"_id": "long", "text": "one two three four five"}])
    llm2comp_command("index", "build", corpus, "-o", tmp_path / "idx", "--chunk-tokens", "2")
    run = llm2comp_command("index", "delete", tmp_path / "idx", "long#2")
    assert run.err == "not in the index: long#2 (documents are deleted whole: give the id without #N)\n"
    assert llm2comp_command("index", "delete", tmp_path / "idx", "long").out == "1 deleted, 0 documents left\n"


def test_merge_says_what_it_did(folder: Path, newer: Path, llm2comp_command: Command) -> None:
    llm2comp_command("index", "add", folder, newer)
    llm2comp_command("index", "delete", folder, "d1", "d21")
    run = llm2comp_command("index", "merge", folder)
    assert run.code == 0
    first, reason = run.out.splitlines()
    assert re.fullmatch(r"2 segments merged into one, 4 deleted rows dropped, in [\d.]+ s; 15 documents", first)
    assert "recall@10 1.000" in reason
    assert (
        llm2comp_command("index", "merge", folder).out == f"{folder}: nothing to merge: one segment, nothing deleted\n"
    )
    changed = llm2comp_command(
        "index",
        "merge",
        folder,
        "--type",
        "hnsw",
        "--recall",
        "0.9",
        "--k",
        "3",
        "--hybrid",
        "--memory",
        "1G",
        "--latency-ms",
        "7",
    )
    assert re.match(
        r"rewritten, 0 deleted rows dropped, in [\d.]+ s; 15 documents\n"
        r"The finished index of 15 vectors, HNSW16 .* recall@3 ",
        changed.out,
    )
    options = verify_index(folder).options
    assert (options.type, options.hybrid) == ("hnsw", True)
    llm2comp_command("index", "delete", folder, "d2")
    assert llm2comp_command("index", "merge", folder).out.startswith("rewritten, 1 deleted row dropped, in ")
    assert (options.targets.memory, options.targets.latency_ms, options.targets.recall, options.targets.k) == (
        10**9,
        7.0,
        0.9,
        3,
    )
    assert llm2comp_command("index", "merge", folder, "--no-hybrid", "--json").code == 0
    assert verify_index(folder).options.targets == options.targets, "what is not named stays"
    assert not verify_index(folder).options.hybrid


def test_merge_as_json(folder: Path, newer: Path, llm2comp_command: Command) -> None:
    assert json.loads(llm2comp_command("index", "merge", folder, "--json").out)["measured"] is None
    llm2comp_command("index", "add", folder, newer)
    report = json.loads(llm2comp_command("index", "merge", folder, "--json").out)
    assert (report["segments"], report["dropped"], report["measured"]["rows"]) == (2, 2, 17)


def test_merge_of_an_empty_index(folder: Path, llm2comp_command: Command) -> None:
    llm2comp_command("index", "delete", folder, *(f"d{row}" for row in range(12)))
    run = llm2comp_command("index", "merge", folder, "--hybrid")
    assert run.out == f"{folder}: nothing to merge: it is empty; what is added will be as asked for\n"
    assert verify_index(folder).options.hybrid


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [(["--memory", "lots"], 2, "memory is 'lots'"), (["--type", "IVF500,SQ8"], 1, "500 lists for 12 rows")],
)
def test_targets_that_cannot_be(
    folder: Path, llm2comp_command: Command, arguments: list[str], code: int, words: str
) -> None:
    run = llm2comp_command("index", "merge", folder, *arguments)
    assert (run.code, words in run.err) == (code, True)


@pytest.mark.parametrize("command", [("add", "CORPUS"), ("delete", "d1"), ("merge",)])
def test_refusals_are_one_line(
    folder: Path, tmp_path: Path, llm2comp_command: Command, command: tuple[str, ...]
) -> None:
    name, *arguments = (str(tmp_path / "corpus.jsonl") if argument == "CORPUS" else argument for argument in command)
    missing = llm2comp_command("index", name, tmp_path / "nothing", *arguments)
    with sole_writer(folder):
        locked = llm2comp_command("index", name, folder, *arguments)
    for run, words in (
        (missing, "no such index folder; build one with: llm2comp index build"),
        (locked, "being written by process "),
    ):
        assert run.code == 1
        assert words in run.err
        assert run.err.count("\n") == 1
        assert run.out == ""


def test_add_with_another_model_is_refused(folder: Path, newer: Path, llm2comp_command: Command) -> None:
    run = llm2comp_command("index", "add", folder, newer, "--model", "some/other")
    assert run.code == 1
    assert "fingerprint" in run.err
    assert run.err.count("\n") == 1


def test_many_segments_are_reported(
    folder: Path, tmp_path: Path, llm2comp_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm2comp.cli.index_change._MANY_SEGMENTS", 3)
    runs = [
        llm2comp_command("index", "add", folder, write(tmp_path / "new.jsonl", make_documents([row])))
        for row in (30, 31)
    ]
    assert runs[0].err == ""
    assert (
        runs[1].err
        == f"3 segments, and every search visits each of them: `llm2comp index merge {folder}` merges them into one\n"
    )


def test_sync_counts_and_says_what_vanished(folder: Path, tmp_path: Path, llm2comp_command: Command) -> None:
    corpus = write(tmp_path / "corpus.jsonl", [*make_documents(range(2, 12)), *make_documents([20])])
    planned = llm2comp_command("index", "sync", folder, corpus, "--dry-run")
    assert re.fullmatch(
        r"1 new, 0 changed, 10 unchanged, 2 vanished, in [\d.]+ s; nothing was written \(--dry-run\)\n", planned.out
    )
    assert "vanished: d0, d1" in planned.err
    run = llm2comp_command("index", "sync", folder, corpus)
    assert re.fullmatch(r"1 new, 0 changed, 10 unchanged, 2 vanished, in [\d.]+ s; 11 documents now\n", run.out)
    again = llm2comp_command("index", "add", folder, corpus, "--prune", "--json")
    assert json.loads(again.out)["unchanged"] == 11


def test_sync_that_would_lose_most_needs_a_yes(folder: Path, tmp_path: Path, llm2comp_command: Command) -> None:
    corpus = write(tmp_path / "corpus.jsonl", make_documents(range(5)))
    for command in (["sync", folder, corpus], ["add", folder, corpus, "--prune"]):
        refused = llm2comp_command("index", *command)
        assert refused.code == 1
        assert re.fullmatch(r"llm2comp: .*7 of its 12 documents in the index are not there any more.*\n", refused.err)
    assert llm2comp_command("index", "sync", folder, corpus, "--yes").code == 0
    assert verify_index(folder).documents == 5


def test_add_with_prune_counts_and_takes_the_yes_that_its_error_names(
    folder: Path, tmp_path: Path, llm2comp_command: Command
) -> None:
    corpus = write(tmp_path / "corpus.jsonl", make_documents(range(5)))
    add = ("index", "add", folder, corpus)
    planned = llm2comp_command(*add, "--prune", "--dry-run")
    assert "7 vanished" in planned.out
    assert verify_index(folder).documents == 12
    assert "with --yes" in llm2comp_command(*add, "--prune").err
    assert llm2comp_command(*add, "--prune", "--yes").code == 0
    assert verify_index(folder).documents == 5
    for option in ("--dry-run", "--full", "--yes"):
        wrong = llm2comp_command(*add, option)
        assert (wrong.code, "go with --prune" in wrong.err) == (2, True)


def test_sync_of_another_corpus_is_refused(folder: Path, newer: Path, llm2comp_command: Command) -> None:
    run = llm2comp_command("index", "sync", folder, newer)
    assert run.code == 1
    assert "newer.jsonl: no source of the index" in run.err
    assert run.err.count("\n") == 1
    assert verify_index(folder).commit == 1


def test_delete_where_and_undo(folder: Path, llm2comp_command: Command) -> None:
    planned = llm2comp_command("index", "delete", folder, "--where", "year < 2003", "--dry-run")
    assert planned.out == "5 of 12 documents would be deleted; nothing was written\n"
    done = llm2comp_command("index", "delete", folder, "--where", "year < 2003")
    assert done.out.startswith("5 deleted, 7 documents left")
    assert llm2comp_command("index", "undo", folder).out == "back at the commit before: 12 documents, 7 until now\n"
    wrong = llm2comp_command("index", "delete", folder, "--where", "yaer < 2003")
    assert wrong.code == 1
    assert wrong.err.count("\n") == 1
    assert "yaer" in wrong.err
    assert llm2comp_command("index", "delete", folder, "d1", "--where", "year < 2003").code == 2
    assert verify_index(folder).documents == 12
