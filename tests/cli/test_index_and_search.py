"""`index` and `search` as a user runs them, with the stand-in encoder: output, files, refusals."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llm2comp
from llm2comp.cli.progress import Progress
from tests.word_encoder import WordEncoder

DOCUMENTS = [
    {"_id": "bread", "title": "Baking", "text": "how bread rises in the oven", "year": 1901},
    {"_id": "moon", "title": "", "text": "the moon and the tides"},
    {"_id": "long", "title": "L" * 300, "text": "rain over the harbour " * 200},
]
QUERIES = [{"_id": "q1", "text": "bread in the oven"}, {"_id": "q2", "text": "the moon"}]


pytestmark = pytest.mark.usefixtures("stand_in")
Write = Callable[[Path, list[Any]], Path]


@pytest.fixture
def corpus(tmp_path: Path, write_lines: Write) -> Path:
    return write_lines(tmp_path / "corpus.jsonl", DOCUMENTS)


@pytest.fixture
def folder(tmp_path: Path, corpus: Path, llm2comp_command: Callable[..., Any]) -> Path:
    assert llm2comp_command("index", "build", corpus, "-o", tmp_path / "idx").code == 0
    return tmp_path / "idx"


def test_build_says_what_it_made_and_how_to_go_on(
    tmp_path: Path, corpus: Path, llm2comp_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Progress, "_SILENT_SECONDS", 600)  # on a machine under load this takes more than three seconds
    run = llm2comp_command("index", "build", corpus, "-o", tmp_path / "my idx")
    assert run.code == 0
    assert run.err == ""
    made, measured, how = run.out.splitlines()
    assert re.fullmatch(r"3 documents, dimension 32, [\d.]+ kB, in [\d.]+ s \([\d,]+ encoded a second\)", made)
    assert measured.startswith(
        "Comparing all vectors is fast enough, so nothing faster was tried. The finished index of 3 vectors, exact "
        "search, measures recall@10 "
    )
    assert how == f"Search it: llm2comp search '{tmp_path / 'my idx'}' \"your question\""


def test_build_report_as_json(tmp_path: Path, corpus: Path, llm2comp_command: Callable[..., Any]) -> None:
    report = json.loads(llm2comp_command("index", "build", corpus, "-o", tmp_path / "idx", "--json").out)
    assert set(report) == {
        "output",
        "documents",
        "skipped",
        "cut",
        "below",
        "empty",
        "dimension",
        "bytes",
        "seconds",
        "encoded",
        "encode_seconds",
        "measured",
    }
    assert (report["documents"], report["skipped"], report["encoded"]) == (3, 0, 3)
    assert {"recall", "median_ms", "p99_ms"} <= set(report["measured"]["point"])
    assert report["measured"]["met"] is True


def test_skipped_rows_are_named_and_counted(
    tmp_path: Path, write_lines: Write, llm2comp_command: Callable[..., Any]
) -> None:
    source = write_lines(tmp_path / "corpus.jsonl", [*DOCUMENTS, *["not json"] * 15])
    failed = llm2comp_command("index", "build", source, "-o", tmp_path / "idx")
    assert failed.code == 1
    assert failed.err.startswith(f"llm2comp: error: {source}:4: ")
    assert failed.err.count("\n") == 1
    assert not (tmp_path / "idx").exists()
    run = llm2comp_command("index", "build", source, "-o", tmp_path / "idx", "--on-error", "skip")
    assert run.code == 0
    assert run.err.count("skipped: ") == 10
    assert f"{source}:13: " in run.err
    assert run.err.splitlines()[-1] == "skipped 15 rows in all (the first 10 are named above)"


def test_an_index_is_replaced_only_when_asked(folder: Path, corpus: Path, llm2comp_command: Callable[..., Any]) -> None:
    refused = llm2comp_command("index", "build", corpus, "-o", folder)
    assert refused.code == 1
    assert "--overwrite" in refused.err
    assert llm2comp_command("index", "build", corpus, "-o", folder, "--overwrite").code == 0


def test_info_and_verify(folder: Path, llm2comp_command: Callable[..., Any]) -> None:
    run = llm2comp_command("index", "info", folder)
    assert run.code == 0
    assert re.search(r"^documents +3 in 1 segment$", run.out, re.MULTILINE)
    assert re.search(r"^fingerprint +words-32$", run.out, re.MULTILINE)
    assert "every checksum matches" in llm2comp_command("index", "verify", folder).out
    vectors = folder / "segments" / "000001" / "vectors.faiss"
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"\x00")
    damaged = llm2comp_command("index", "verify", folder)
    assert damaged.code == 1
    assert "vectors.faiss: altered" in damaged.err


def test_answers_as_json(folder: Path, llm2comp_command: Callable[..., Any]) -> None:
    answers = json.loads(llm2comp_command("search", folder, "bread in the oven", "-k", "2", "--json").out)
    assert len(answers) == 2
    assert {name: value for name, value in answers[0].items() if name != "score"} == {
        "id": "bread",
        "title": "Baking",
        "text": "how bread rises in the oven",
        "metadata": {"year": 1901},
    }
    assert list(answers[0]) == ["id", "score", "title", "text", "metadata"]
    assert 1 >= answers[0]["score"] > answers[1]["score"]


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_answers_for_people_fit_the_terminal(
    folder: Path, llm2comp_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    out = llm2comp_command("search", folder, "bread").out
    assert max(map(len, out.splitlines())) <= min(int(columns), 100)
    assert re.match(r"  1 +0\.\d{3} Baking\n +bread\n +how bread rises in the", out)


def test_a_text_cannot_steer_the_terminal(
    tmp_path: Path, write_lines: Write, llm2comp_command: Callable[..., Any]
) -> None:
    hostile = "\x1b]0;owned\x07 \x1b[2J \u202eevil\u0085 \r\n family 👨‍👩‍👧"
    source = write_lines(tmp_path / "corpus.jsonl", [{"_id": hostile, "title": hostile, "text": hostile}])
    llm2comp_command("index", "build", source, "-o", tmp_path / "idx")
    out = llm2comp_command("search", tmp_path / "idx", "owned").out
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", out)
    assert "👨‍👩‍👧" in out


def test_a_run_is_written_in_the_trec_format(
    tmp_path: Path, folder: Path, write_lines: Write, llm2comp_command: Callable[..., Any]
) -> None:
    queries = write_lines(tmp_path / "queries.jsonl", QUERIES)
    run = llm2comp_command("search", folder, "--queries", queries, "--run", tmp_path / "run.trec", "-k", "2")
    assert run.code == 0
    assert "4 lines for 2 queries" in run.out
    expected = []
    for query in QUERIES:
        answers = json.loads(llm2comp_command("search", folder, query["text"], "-k", "2", "--json").out)
        expected += [
            f"{query['_id']} Q0 {answer['id']} {rank} {answer['score']:.9g} llm2comp\n"
            for rank, answer in enumerate(answers, start=1)
        ]
    assert (tmp_path / "run.trec").read_bytes() == "".join(expected).encode()


@pytest.mark.parametrize("row", [{"_id": "q 3", "text": "x"}, {"_id": "q\t3", "text": "x"}])
def test_a_query_id_that_a_run_cannot_hold_is_refused(
    tmp_path: Path, folder: Path, write_lines: Write, llm2comp_command: Callable[..., Any], row: dict[str, str]
) -> None:
    queries = write_lines(tmp_path / "queries.jsonl", [*QUERIES, row])
    run = llm2comp_command("search", folder, "--queries", queries, "--run", tmp_path / "run.trec")
    assert run.code == 1
    assert "white space" in run.err
    assert not (tmp_path / "run.trec").exists()


def test_a_document_id_that_a_run_cannot_hold_leaves_the_old_run(
    tmp_path: Path, write_lines: Write, llm2comp_command: Callable[..., Any]
) -> None:
    source = write_lines(tmp_path / "corpus.jsonl", [{"_id": "two words", "text": "bread"}])
    queries = write_lines(tmp_path / "queries.jsonl", QUERIES)
    (tmp_path / "run.trec").write_text("old")
    llm2comp_command("index", "build", source, "-o", tmp_path / "idx")
    run = llm2comp_command("search", tmp_path / "idx", "--queries", queries, "--run", tmp_path / "run.trec")
    assert run.code == 1
    assert 'document id "two words"' in run.err
    assert (tmp_path / "run.trec").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"corpus.jsonl", "queries.jsonl", "run.trec", "idx"}


def test_a_run_never_replaces_a_device(
    folder: Path, tmp_path: Path, write_lines: Write, llm2comp_command: Callable[..., Any]
) -> None:
    queries = write_lines(tmp_path / "queries.jsonl", QUERIES)
    run = llm2comp_command("search", folder, "--queries", queries, "--run", "/dev/null")
    assert run.code == 1
    assert "not a plain file" in run.err
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize(
    "arguments",
    [
        ("a question", "--queries", "q"),
        ("--queries", "q"),
        ("a question", "--run", "r"),
        ("--queries", "q", "--run", "r", "--json"),
        ("q", "-k", "0"),
    ],
)
def test_contradicting_options_are_wrong_usage(
    folder: Path, llm2comp_command: Callable[..., Any], arguments: tuple[str, ...]
) -> None:
    assert llm2comp_command("search", folder, *arguments).code == 2


def test_another_model_is_refused_in_words(folder: Path, llm2comp_command: Callable[..., Any]) -> None:
    run = llm2comp_command("search", folder, "bread", "--model", "some/other")
    assert run.code == 1
    assert run.err.count("\n") == 1
    assert "fingerprint" in run.err


def test_no_index_there(tmp_path: Path, llm2comp_command: Callable[..., Any]) -> None:
    run = llm2comp_command("search", tmp_path / "nothing", "bread")
    assert run.code == 1
    assert f"llm2comp index build CORPUS -o {tmp_path / 'nothing'}" in run.err


def test_output_that_cannot_be_written(tmp_path: Path, corpus: Path, llm2comp_command: Callable[..., Any]) -> None:
    run = llm2comp_command("index", "build", corpus, "-o", corpus / "below" / "a-file")
    assert run.code == 1
    assert run.err.count("\n") == 1
    assert "corpus.jsonl" in run.err


HELP = """
import sys
from llm2comp.cli import main
sys.argv = ["llm2comp", *sys.argv[1:], "--help"]
try:
    main()
finally:
    assert not {"torch", "faiss", "numpy"} & set(sys.modules)
"""


def test_help_of_every_command_is_light() -> None:
    for arguments in (
        *(["index", name] for name in ("build", "add", "delete", "merge", "info", "verify")),
        ["encode"],
        ["search"],
        ["demo"],
    ):
        done = subprocess.run([sys.executable, "-c", HELP, *arguments], capture_output=True, text=True, check=True)
        assert f"Usage: llm2comp {' '.join(arguments)}" in done.stdout


def test_demo_reuses_its_index_until_something_changes(
    tmp_path: Path, llm2comp_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm2comp.corpus.documents import Document

    documents = [
        Document(
            "shutil.disk_usage", "shutil.disk_usage(path)", "Return disk usage statistics.", {"source": "shutil.py:1"}
        )
    ]
    monkeypatch.setattr("llm2comp.corpus.read.read_python_docs", lambda packages: iter(documents))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = llm2comp_command("demo")
    assert first.code == 0
    assert first.out.count("\nQ: ") == 3
    assert "shutil.disk_usage(path)" in first.out
    assert "encoded a second" in first.out
    assert "unchanged" in llm2comp_command("demo").out
    documents.append(Document("copy.deepcopy", "copy.deepcopy(x)", "Deep copy.", {}))
    assert "2 read, encoded" in llm2comp_command("demo").out
    monkeypatch.setitem(vars(llm2comp), "load", lambda name=None: WordEncoder(16))
    assert "dimension 16" in llm2comp_command("demo").out


def test_demo_does_not_replace_an_index_it_was_pointed_at(
    folder: Path, llm2comp_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm2comp.corpus.read.read_python_docs", lambda packages: iter(()))
    run = llm2comp_command("demo", "-o", folder)
    assert run.code == 1
    assert "already holds an index" in run.err
