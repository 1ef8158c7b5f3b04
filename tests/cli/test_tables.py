"""Tables of other tools on the command line: without header lines, from standard input, with rows that do not fit."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Run

Command = Callable[..., Run]
pytestmark = pytest.mark.usefixtures("stand_in")
NOTE = "the first line has no known column name, so it is a row"


def ids(command: Command, index: Path) -> set[str]:
    done = command("search", index, "apple pear plum", "-k", 9, "--json")
    assert done.code == 0, done.err
    return {hit["id"] for hit in json.loads(done.out)}


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    path = tmp_path / "collection.tsv"
    path.write_text('1\t"an apple\n2\ta pear"\n3\ta plum\n')
    return path


def test_files_without_header_lines(llm2comp_command: Command, collection: Path, tmp_path: Path) -> None:
    done = llm2comp_command("index", "build", collection, "-o", tmp_path / "index", "--model", "words")
    assert done.code == 0
    assert done.err.count(NOTE) == 1
    assert ids(llm2comp_command, tmp_path / "index") == {"1", "2", "3"}
    (tmp_path / "topics.tsv").write_text('7\t"apple\n8\tpear"\n')
    run = ("search", tmp_path / "index", "--queries", tmp_path / "topics.tsv", "--run", tmp_path / "run.trec", "-k", 1)
    done = llm2comp_command(*run)
    assert done.code == 0
    assert NOTE in done.err
    assert [line.split()[:3:2] for line in (tmp_path / "run.trec").read_text().splitlines()] == [["7", "1"], ["8", "2"]]
    assert llm2comp_command(*run, "--no-header").code == 0
    done = llm2comp_command(*run, "--header")
    assert done.code == 1
    assert "topics.tsv:2: expected a string or a number in _id" in done.err


def test_header_options(llm2comp_command: Command, collection: Path, tmp_path: Path) -> None:
    for command in ("index build", "encode"):
        output = tmp_path / command
        done = llm2comp_command(*command.split(), collection, "-o", output, "--no-header", "--model", "words")
        assert (done.code, NOTE in done.err) == (0, False), done.err
        done = llm2comp_command(*command.split(), collection, "-o", f"{output}2", "--header", "--model", "words")
        assert done.code == 1
        assert "collection.tsv:2: no text" in done.err
    (tmp_path / "more.tsv").write_text("text\tid\n")
    done = llm2comp_command("index", "add", tmp_path / "index build", tmp_path / "more.tsv", "--no-header")
    assert done.code == 0, done.err
    assert ids(llm2comp_command, tmp_path / "index build") == {"1", "2", "3", "text"}
    assert llm2comp_command("search", tmp_path / "index build", "apple", "--header").code == 2
    assert llm2comp_command("eval", "--python-docs", "standard", "--header").code == 2


def test_quotes_options(llm2comp_command: Command, tmp_path: Path) -> None:
    path, index = tmp_path / "c.tsv", tmp_path / "index"
    path.write_text('id\ttext\n1\t"an ""apple"""\n2\t"a pear\n3\ta plum"\n')
    (tmp_path / "queries.tsv").write_text(path.read_text())
    for command in ("index build", "encode"):
        done = llm2comp_command(*command.split(), path, "-o", tmp_path / command, "--model", "words")
        assert done.code == 1
        assert f"{path}:3: lines 3 to 4 are one row with line breaks in quotes, or several rows; --quotes" in done.err
    build = ("index", "build", path, "-o", index, "--model", "words", "--overwrite")
    assert llm2comp_command(*build, "--quotes").code == 0
    assert ids(llm2comp_command, index) == {"1", "2"}
    assert llm2comp_command("index", "add", index, path, "--no-quotes").code == 0
    assert ids(llm2comp_command, index) == {"1", "2", "3"}
    run = ("search", index, "--queries", tmp_path / "queries.tsv", "--run", tmp_path / "run.trec", "-k", 1)
    assert llm2comp_command(*run).code == 1
    for option, queries in (("--quotes", ["1", "2"]), ("--no-quotes", ["1", "2", "3"])):
        assert llm2comp_command(*run, option).code == 0
        assert [line.split()[0] for line in (tmp_path / "run.trec").read_text().splitlines()] == queries
    assert llm2comp_command("search", index, "apple", "--quotes").code == 2
    assert llm2comp_command("eval", "--python-docs", "standard", "--quotes").code == 2
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("1\t1\t1\n")
    (tmp_path / "corpus.tsv").write_text(path.read_text())
    done = llm2comp_command("eval", "--beir", tmp_path, "--run", tmp_path / "run.trec", "--no-quotes")
    assert done.code == 0, done.err
    assert llm2comp_command("eval", "--beir", tmp_path, "--run", tmp_path / "run.trec").code == 1


def test_a_corpus_from_standard_input(
    llm2comp_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give(*rows: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(rows).encode())))

    give('{"id": 1, "text": "an apple"}', '{"id": 2.0, "text": "a pear"}')
    assert llm2comp_command("index", "build", "-", "-o", tmp_path / "index", "--model", "words").code == 0
    give('{"id": 3, "text": "a plum"}')
    assert llm2comp_command("index", "add", tmp_path / "index", "-").code == 0
    assert ids(llm2comp_command, tmp_path / "index") == {"1", "2", "3"}
    give('{"id": 4, "text": "a plum"}', "{")
    done = llm2comp_command("index", "add", tmp_path / "index", "-")
    assert done.code == 1
    assert "-:2: not JSON" in done.err
    give()
    done = llm2comp_command("index", "add", tmp_path / "index", "-")
    assert (done.code, "-: an empty corpus" in done.err) == (1, True)


def test_rows_that_do_not_fit_are_named_or_counted(llm2comp_command: Command, tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text('id,text\n1,an apple\n2,"a pear\n3,a plum\n4,a,b\n')
    build = ("index", "build", path, "-o", tmp_path / "index", "--model", "words")
    done = llm2comp_command(*build)
    assert done.code == 1
    assert done.err.splitlines()[-1].endswith(
        f"{path}:3: a quote opens a field here and no quote closes it, up to the last line; --no-quotes (quotes=False) "
        "reads quotes as part of the texts"
    )
    done = llm2comp_command(*build, "--on-error", "skip")
    assert done.code == 0
    assert "skipped 2 rows in all" in done.err
    assert ids(llm2comp_command, tmp_path / "index") == {"1", "3"}


def test_eval_counts_what_judgements_name_and_is_not_there(llm2comp_command: Command, tmp_path: Path) -> None:
    (tmp_path / "corpus.tsv").write_text("d1\tan apple\nd2\ta pear\n")
    (tmp_path / "queries.tsv").write_text("q1\tapple\n")
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.txt").write_text("q1 0 d1 1\nq1  0\td9 1\nq2 0 d1 1\n")
    (tmp_path / "run.trec").write_text("q1 Q0 d1  1\t2.0 x\nq1 Q0 d2 2 1.0 x\n")
    done = llm2comp_command("eval", "--beir", tmp_path, "--run", tmp_path / "run.trec")
    assert done.code == 0, done.err
    assert (
        "1 of 2 judged queries have no text in the queries file and are left out; 1 of 2 documents judged" in done.err
    )
    assert done.err.count(NOTE) == 2  # once for each file
    assert done.out.split()[-4:] == ["0.6131", "0.5000", "0.5000", "1.0000"]  # 1 / (1 + 1 / log2(3)) with d9 ideal


def test_ndjson(llm2comp_command: Command, tmp_path: Path) -> None:
    (tmp_path / "c.ndjson").write_text('{"id": "a", "text": "an apple"}\n')
    assert llm2comp_command("index", "build", tmp_path / "c.ndjson", "-o", tmp_path / "i", "--model", "words").code == 0
    assert ids(llm2comp_command, tmp_path / "i") == {"a"}
