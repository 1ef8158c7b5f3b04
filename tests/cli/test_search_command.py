"""`search` with each of its options, for one question and for files of queries, and with wrong usage."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llm2comp
from llm2comp_indexes import (
    Effort,
    IndexOptions,
    SearchOptions,
    add_documents,
    build_index,
    delete_documents,
    open_index,
)
from tests.word_encoder import WORDS, WordEncoder

pytestmark = pytest.mark.usefixtures("stand_in")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of 200 documents with metadata and a BM25 index."""
    root, draw = tmp_path_factory.mktemp("search"), np.random.default_rng(0)
    documents = [
        {
            "_id": f"d{row}",
            "title": f"T{row}",
            "text": " ".join(draw.choice(WORDS, 6)),
            "year": 1900 + row,
            "lang": "en",
        }
        for row in range(200)
    ]
    (root / "corpus.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    with pytest.MonkeyPatch.context() as patch:  # built by a name, which the commands load again
        patch.setitem(vars(llm2comp), "load", lambda name: WordEncoder(fingerprint=name))
        build_index([root / "corpus.jsonl"], root / "idx", model="words", options=IndexOptions("IVF8,SQ8", hybrid=True))
    return root / "idx"


@pytest.fixture
def search(folder: Path, llm2comp_command: Callable[..., Any]) -> Callable[..., list[dict[str, Any]]]:
    def run(question: str, *options: object) -> list[dict[str, Any]]:
        done = llm2comp_command("search", folder, question, *options, "--json")
        assert (done.code, done.err) == (0, "")
        hits: list[dict[str, Any]] = json.loads(done.out)
        return hits

    return run


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        (("--mode", "dense"), SearchOptions()),
        (("--mode", "bm25"), SearchOptions(mode="bm25")),
        (("--mode", "hybrid"), SearchOptions(mode="hybrid")),
        (("--mode", "hybrid", "--weights", "1", "0.25"), SearchOptions(mode="hybrid", weights=(1, 0.25))),
        (("--mode", "hybrid", "--fusion", "ranks"), SearchOptions(mode="hybrid", fusion="ranks")),
        (("--where", "1950 <= year < 1970"), SearchOptions(where="1950 <= year < 1970")),
        (("--nprobe", "1"), SearchOptions(effort=Effort(nprobe=1))),
        (("--nprobe", "8", "--rerank", "20"), SearchOptions(effort=Effort(nprobe=8, rerank=20))),
        (("--threads", "1"), SearchOptions(threads=1)),
    ],
)
def test_options_mean_what_they_mean_in_python(
    folder: Path, search: Callable[..., Any], options: tuple[str, ...], meant: SearchOptions
) -> None:
    [expected] = open_index(folder).search(["bread in the oven"], k=7, options=meant)
    assert search("bread in the oven", "-k", "7", *options) == [hit._asdict() for hit in expected]
    assert len(expected) == 7


def test_the_filter_holds_and_k_is_kept(search: Callable[..., Any]) -> None:
    hits = search("moon", "--where", 'year >= 1990 and lang == "en"', "-k", "1000")
    assert sorted(hit["metadata"]["year"] for hit in hits) == list(range(1990, 2100))
    assert len(search("moon", "--top", "3")) == 3


def test_a_run_of_a_hybrid_search_with_a_filter(
    tmp_path: Path, folder: Path, write_lines: Callable[..., Path], llm2comp_command: Callable[..., Any]
) -> None:
    questions = {f"q{row}": " ".join(np.random.default_rng(row).choice(WORDS, 3)) for row in range(300)}
    queries = write_lines(tmp_path / "queries.jsonl", [{"_id": name, "text": text} for name, text in questions.items()])
    options = ("--mode", "hybrid", "--where", "year < 2000", "-k", "5")
    run = llm2comp_command("search", folder, "--queries", queries, "--run", tmp_path / "run.trec", *options)
    assert run.code == 0
    assert re.fullmatch(
        rf"{tmp_path / 'run.trec'}: 1,500 lines for 300 queries, [\d.]+ ms a query to encode, search and write\n",
        run.out,
    )
    lines = [line.split() for line in (tmp_path / "run.trec").read_text().splitlines()]
    assert [line[0] for line in lines[::5]] == list(questions)
    assert [line[3] for line in lines[:5]] == ["1", "2", "3", "4", "5"]
    meant = SearchOptions(mode="hybrid", where="year < 2000")
    for number in (0, 255, 256, 299):  # queries are searched 256 at a time
        [expected] = open_index(folder).search([questions[f"q{number}"]], k=5, options=meant)
        assert [line[2] for line in lines[5 * number :][:5]] == [hit.id for hit in expected]


def test_a_run_names_each_document_once_by_its_best_chunk(
    tmp_path: Path,
    write_lines: Callable[..., Path],
    llm2comp_command: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tests.indexes.live import ChunkingEncoder

    monkeypatch.setitem(vars(llm2comp), "load", lambda name=None: ChunkingEncoder())
    corpus = write_lines(tmp_path / "c.jsonl", [{"_id": f"d{row}", "text": "moon tides " * 20} for row in range(3)])
    queries = write_lines(tmp_path / "queries.jsonl", [{"_id": "q", "text": "moon"}])
    chunks = ("--chunk-tokens", "8", "--chunk-overlap", "2", "--chunk-at", "tokens")
    build = llm2comp_command("index", "build", corpus, "-o", tmp_path / "idx", *chunks, "--hybrid")
    assert build.code == 0
    assert re.search(
        r"(?m)^rows +21 chunks of 8 tokens, 2 shared, cut at tokens$",
        llm2comp_command("index", "info", tmp_path / "idx").out,
    )
    for mode in ("dense", "bm25", "hybrid"):
        llm2comp_command(
            "search", tmp_path / "idx", "--queries", queries, "--run", tmp_path / "run.trec", "-k", "5", "--mode", mode
        )
        assert [line.split()[2] for line in (tmp_path / "run.trec").read_text().splitlines()] == ["d0", "d1", "d2"]
    hits = json.loads(llm2comp_command("search", tmp_path / "idx", "moon", "--json").out)
    assert len(hits) == 10
    for hit in hits:  # people see the chunks
        assert hit["id"] == f"{hit['metadata']['llm2comp_document']}#{hit['metadata']['llm2comp_chunk']}"


def test_results_of_chunks_are_cited_with_their_neighbours(
    tmp_path: Path, llm2comp_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.indexes.live import ChunkingEncoder

    monkeypatch.setitem(vars(llm2comp), "load", lambda name=None: ChunkingEncoder())
    sections = "".join(f"## Part {n}\n\nThe word {word} is here. One more.\n\n" for n, word in enumerate("abc"))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "guide.md").write_text(f"# Guide\n\n{sections}")
    (tmp_path / "notes" / "other.md").write_text("# Other\n\nThe word b.\n")
    folder = tmp_path / "idx"
    llm2comp_command("index", "build", tmp_path / "notes", "-o", folder, "--chunk-tokens", "14")
    search = ("search", folder, "The word b is here", "-k", "1")
    assert llm2comp_command(*search, "--neighbours", "1").out.splitlines()[0].endswith("Guide")
    lines = [line.strip() for line in llm2comp_command(*search, "--neighbours", "1").out.splitlines()[1:]]
    assert lines == [
        "notes/guide.md#2 (Part 1)",
        "## Part 0 The word a is here. One more.",
        "> ## Part 1 The word b is here. One more.",
        "## Part 2 The word c is here. One more.",
    ]
    [hit] = json.loads(llm2comp_command(*search, "--neighbours", "2", "--json").out)
    assert [[chunk["id"] for chunk in hit[side]] for side in ("before", "after")] == [
        ["notes/guide.md#1"],
        ["notes/guide.md#3"],
    ]
    grouped = json.loads(llm2comp_command(*search[:3], "--group-by", "document", "--json").out)
    assert [hit["id"] for hit in grouped] == ["notes/guide.md#2", "notes/other.md"]
    assert "before" not in grouped[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ef-search", "50"), "--ef-search: without effect, as the index is IVF8,SQ8\n"),
        (("--ef-search", "50", "--nprobe", "3"), "--ef-search: without effect, as the index is IVF8,SQ8\n"),
        (("--nprobe", "3", "--rerank", "2"), ""),
    ],
)
def test_an_effort_that_the_index_does_not_know_is_told(
    folder: Path, llm2comp_command: Callable[..., Any], options: tuple[str, ...], message: str
) -> None:
    run = llm2comp_command("search", folder, "bread", *options)
    assert (run.code, run.err) == (0, message)


def test_nothing_found_is_said_and_why(folder: Path, llm2comp_command: Callable[..., Any]) -> None:
    for options, reason in (
        (("--where", "year > 5000"), "no document fits year > 5000"),
        (("--mode", "bm25"), "no document has a word of the question"),
        (("--mode", "bm25", "--where", "year > 1950"), "no document fits year > 1950 and has a word of the question"),
        (("--mode", "hybrid", "--weights", "0", "1"), "no document has a word of the question"),
        (
            ("--mode", "hybrid", "--weights", "0", "1", "--where", "year > 1950"),
            "no document fits year > 1950 and has a word of the question",
        ),
    ):
        run = llm2comp_command("search", folder, "zebra", *options)
        assert (run.code, run.out, run.err) == (0, "", f"nothing found: {reason}\n")
        assert json.loads(llm2comp_command("search", folder, "zebra", *options, "--json").out) == []


def test_an_empty_index_says_so(
    tmp_path: Path, write_lines: Callable[..., Path], llm2comp_command: Callable[..., Any]
) -> None:
    corpus = write_lines(tmp_path / "c.jsonl", [{"_id": "a", "text": "moon"}])
    llm2comp_command("index", "build", corpus, "-o", tmp_path / "idx")
    delete_documents(tmp_path / "idx", ["a"])
    run = llm2comp_command("search", tmp_path / "idx", "moon")
    assert (run.code, run.out, run.err) == (0, "", "nothing found: the index is empty\n")
    add_documents(tmp_path / "idx", [corpus])
    assert llm2comp_command("search", tmp_path / "idx", "moon").out.startswith("  1 ")


WRONG_USAGE: dict[str, tuple[tuple[str, ...], str]] = {
    "an empty question": ((" ",), "the question is empty"),
    "k too large": (("q", "-k", "1001"), "Invalid value for '-k'"),
    "k of nothing": (("q", "-k", "0"), "Invalid value for '-k'"),
    "no such mode": (("q", "--mode", "fuzzy"), "'fuzzy' is not one of"),
    "fusion without words": (("q", "--fusion", "ranks"), "--fusion goes with --mode hybrid"),
    "weights without words": (("q", "--weights", "1", "2"), "--weights goes with --mode hybrid"),
    "negative weights": (
        ("q", "--mode", "hybrid", "--weights", "-1", "2"),
        "weights is (-1.0, 2.0), expected two numbers from 0 to 1,000,000",
    ),
    "no weight at all": (("q", "--mode", "hybrid", "--weights", "0", "0"), "at least one above 0"),
    "a filter that is none": (("q", "--where", "year >="), "where 'year >='"),
    "a filter in SQL": (("q", "--where", "year BETWEEN 1 AND 2"), "in Python's syntax: 1 <= year <= 2"),
    "lists of words": (("q", "--mode", "bm25", "--nprobe", "3"), "which --mode bm25 does not use"),
    "no list": (("q", "--nprobe", "0"), "Invalid value for '--nprobe'"),
    "no thread": (("q", "--threads", "0"), "Invalid value for '--threads'"),
    "queries without a run": (("--queries", "q.jsonl"), "--queries and --run go together"),
}


@pytest.mark.parametrize(("arguments", "words"), WRONG_USAGE.values(), ids=WRONG_USAGE.keys())
def test_wrong_usage(
    folder: Path,
    llm2comp_command: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.setitem(vars(llm2comp), "load", lambda name=None: pytest.fail("loaded a model"))
    run = llm2comp_command("search", folder, *arguments)
    assert (run.code, run.out) == (2, "")
    assert words in " ".join(run.err.split())


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "a field that is not there": (
        ("q", "--where", "yaer > 1950"),
        'no document has the field "yaer"; did you mean "year"',
    ),
    "a text that is no number": (
        ("q", "--where", 'year == "1950"'),
        '"year" holds whole numbers, and is compared with text',
    ),
    "no such queries": (("--queries", "missing.jsonl", "--run", "r"), "missing.jsonl: no such file"),
    "queries that are none": (("--queries", "notes.txt", "--run", "r"), "notes.txt"),
    "a run that is a folder": (
        ("--queries", "queries.jsonl", "--run", "."),
        "not a plain file; name the run file to write",
    ),
}


@pytest.mark.parametrize(("arguments", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_end_in_one_clear_line_and_no_run(
    tmp_path: Path,
    folder: Path,
    write_lines: Callable[..., Path],
    llm2comp_command: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "queries.jsonl", [{"_id": "q", "text": "moon"}])
    (tmp_path / "notes.txt").write_text("not a query\n")
    run = llm2comp_command("search", folder, *arguments)
    assert (run.code, run.out, run.err.count("\n")) == (1, "", 1)
    assert words in run.err
    assert {path.name for path in tmp_path.iterdir()} == {"queries.jsonl", "notes.txt"}


def test_words_need_an_index_of_them(
    tmp_path: Path, write_lines: Callable[..., Path], llm2comp_command: Callable[..., Any]
) -> None:
    corpus = write_lines(tmp_path / "c.jsonl", [{"_id": "a", "text": "moon"}])
    llm2comp_command("index", "build", corpus, "-o", tmp_path / "idx")
    run = llm2comp_command("search", tmp_path / "idx", "moon", "--mode", "bm25")
    assert (run.code, run.err.count("\n")) == (1, 1)
    [advice] = re.findall("holds no BM25 index; add one with `llm2comp (.*?)`", run.err)
    assert llm2comp_command(*shlex.split(advice)).code == 0
    assert "moon" in llm2comp_command("search", tmp_path / "idx", "moon", "--mode", "bm25").out
