"""`--memory-vectors` of index commands, and `--rescore maxsim` of `search` and `eval`."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llm2comp
from llm2comp_indexes import SearchOptions, open_index
from tests.memory_encoder import MemoryWordEncoder
from tests.word_encoder import WORDS

Command = Callable[..., Any]
Write = Callable[[Path, list[Any]], Path]
TEXTS = {f"d{row}": " ".join(np.random.default_rng(row).choice(WORDS, 6)) for row in range(20)}
QUESTION = "bread moon rain"


@pytest.fixture
def corpus(tmp_path: Path, write_lines: Write, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(vars(llm2comp), "load", lambda name=None: MemoryWordEncoder())
    return write_lines(tmp_path / "corpus.jsonl", [{"_id": name, "text": text} for name, text in TEXTS.items()])


@pytest.fixture
def folder(tmp_path: Path, corpus: Path, llm2comp_command: Command) -> Path:
    built = llm2comp_command("index", "build", corpus, "-o", tmp_path / "idx", "--memory-vectors", "int8", "--hybrid")
    assert built.code == 0, built.err
    return tmp_path / "idx"


def best_by_maxsim(count: int) -> list[str]:
    """Documents by the sum, over the question's memory tokens, of the best inner product, computed here."""
    encoder = MemoryWordEncoder()
    [query] = encoder.memory_of([QUESTION])
    memory = np.round(encoder.memory_of(list(TEXTS.values())) * 127) / 127
    scores = [sum(max(one @ other for other in its) for one in query) for its in memory]
    return [list(TEXTS)[row] for row in np.argsort(scores)[::-1][:count]]


def test_info(folder: Path, llm2comp_command: Command) -> None:
    facts = json.loads(llm2comp_command("index", "info", folder, "--json").out)["memory_vectors"]
    assert facts == {"kind": "int8", "tokens": 3, "bytes_per_row": 96, "bytes": 64 + 20 * 96}
    text = llm2comp_command("index", "info", folder).out
    assert re.search("late +3 vectors a row as int8, for --rescore maxsim: .*, 96 bytes a row", text)


def test_rebuild(folder: Path, llm2comp_command: Command) -> None:
    for kind, expected in (("binary", "binary"), ("none", None)):
        done = llm2comp_command("index", "rebuild", folder, "--model", "words", "--memory-vectors", kind)
        assert done.code == 0, done.err
        facts = json.loads(llm2comp_command("index", "info", folder, "--json").out)["memory_vectors"]
        assert (facts and facts["kind"]) == expected
        if kind == "binary":  # without the option, as it is
            assert llm2comp_command("index", "rebuild", folder, "--model", "words").code == 0
            assert json.loads(llm2comp_command("index", "info", folder, "--json").out)["memory_vectors"] == facts


def test_plan(corpus: Path, llm2comp_command: Command) -> None:
    sizes = [
        json.loads(llm2comp_command("index", "plan", corpus, *options, "--json").out)["bytes"]
        for options in ((), ("--memory-vectors", "binary"))
    ]
    assert sizes[1] - sizes[0] == 64 + 20 * 3 * 4


def test_search(folder: Path, llm2comp_command: Command) -> None:
    found = llm2comp_command("search", folder, QUESTION, "-k", 5, "--rescore", "maxsim", "--json")
    assert found.code == 0, found.err
    assert [hit["id"] for hit in json.loads(found.out)] == best_by_maxsim(5)
    few = llm2comp_command("search", folder, QUESTION, "-k", 2, "--rescore", "maxsim", "--candidates", 4, "--json")
    dense = json.loads(llm2comp_command("search", folder, QUESTION, "-k", 4, "--json").out)
    nearest = {hit["id"] for hit in dense}
    assert [hit["id"] for hit in json.loads(few.out)] == [name for name in best_by_maxsim(20) if name in nearest][:2]


def test_search_by_words_first(folder: Path, llm2comp_command: Command) -> None:
    options = ("--mode", "bm25", "--rescore", "maxsim", "-k", 3, "--json")
    found = llm2comp_command("search", folder, QUESTION, *options)
    with open_index(folder, model=MemoryWordEncoder()) as index:
        words = {hit.id for hit in index.search([QUESTION], 20, options=SearchOptions(mode="bm25"))[0]}
    assert [hit["id"] for hit in json.loads(found.out)] == [name for name in best_by_maxsim(20) if name in words][:3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--candidates", 5), "--candidates goes with --rescore maxsim"),
        (("--rescore", "maxsim", "--candidates", 5), "--candidates 5 are fewer than --top 10"),
        (("--rescore", "colbert"), "'colbert' is not"),
        (("--store", "lancedb:///x.lance/t", "--rescore", "maxsim"), ""),
    ],
)
def test_wrong_usage(llm2comp_command: Command, options: tuple[Any, ...], message: str) -> None:
    done = llm2comp_command("search", "idx", QUESTION, *options)
    assert done.code == 2
    assert message in " ".join(done.err.replace("│", " ").split())


def test_an_index_without(tmp_path: Path, corpus: Path, llm2comp_command: Command) -> None:
    assert llm2comp_command("index", "build", corpus, "-o", tmp_path / "idx").code == 0
    done = llm2comp_command("search", tmp_path / "idx", QUESTION, "--rescore", "maxsim")
    assert done.code == 1
    assert done.err.startswith("llm2comp: ")
    [advice] = re.findall("holds no vectors of memory tokens .*? `llm2comp (.*?)`", done.err)
    assert done.err.count("\n") == 1
    assert shlex.split(advice) == ["index", "rebuild", str(tmp_path / "idx"), "--memory-vectors", "int8"]


@pytest.fixture
def beir(tmp_path: Path, corpus: Path, write_lines: Write) -> Path:
    """A BEIR folder whose one question has the document that MaxSim ranks first as its answer."""
    pytest.importorskip("pytrec_eval")
    write_lines(tmp_path / "queries.jsonl", [{"_id": "q", "text": QUESTION}])
    (tmp_path / "qrels").mkdir()
    write_lines(tmp_path / "qrels" / "test.tsv", ["query-id\tcorpus-id\tscore", f"q\t{best_by_maxsim(1)[0]}\t1"])
    return tmp_path


def test_eval_of_an_index(beir: Path, folder: Path, llm2comp_command: Command) -> None:
    judged = ("--queries", beir / "queries.jsonl", "--qrels", beir / "qrels" / "test.tsv")
    out, ranking = beir / "out.json", beir / "out.trec"
    options = ("--rescore", "maxsim", "--candidates", 15, "--json", out, "--run-out", ranking)
    done = llm2comp_command("eval", "--index", folder, *judged, *options)
    assert done.code == 0, done.err
    record = json.loads(out.read_text())
    assert record["idx"]["ndcg_at_10"] == 1.0
    task = record["settings"]["tasks"]["idx"]
    assert (task["mode"], task["rescore"], task["candidates"]) == ("dense", "maxsim", 15)
    assert len(ranking.read_text().splitlines()) == 15


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_eval_of_a_model(beir: Path, llm2comp_command: Command, mode: str, saved_model: Path, monkeypatch: Any) -> None:
    monkeypatch.undo()  # a real model, loaded by name
    monkeypatch.setenv("COLUMNS", "100")
    out = beir / "model.json"
    options = ("--mode", mode, "--rescore", "maxsim", "--candidates", 12, "--json", out)
    done = llm2comp_command("eval", "--beir", beir, "--model", saved_model, *options)
    assert done.code == 0, done.err
    settings = json.loads(out.read_text())["settings"]
    assert (settings["system"], settings["model"]) == ("maxsim", f"maxsim:{saved_model}")
    assert settings["parameters"]["candidates"] == 12
    assert settings["parameters"]["of"] == ("vectors" if mode == "dense" else "hybrid")
