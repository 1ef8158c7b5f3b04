"""First steps with the bundled model: documents in, the right answer out, and the demo."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llm2comp

BUNDLED = Path(llm2comp.__file__).parent / "bundled" / "llm2comp-tiny"
pytestmark = pytest.mark.skipif(not BUNDLED.is_dir(), reason="the bundled model is not in this checkout")

DOCUMENTS = {
    "bread": "Flour, water, salt and yeast are kneaded to a dough, which rises for some hours before it is baked in a "
    "hot oven.",
    "tides": "The gravity of the Moon pulls the oceans, so that the sea level rises and falls about twice a day.",
    "chess": "Two players move sixteen pieces each on a board of sixty-four squares and try to checkmate the king of "
    "the other.",
    "rail": "Steam locomotives pulled the first passenger trains between Liverpool and Manchester in 1830.",
    "heart": "The heart pumps blood through the arteries of the body, and the veins bring it back.",
}
QUESTIONS = {
    "bread": "how to bake bread from flour and yeast",
    "tides": "why does the sea level rise and fall with the Moon",
    "chess": "a board game in which the king is checkmated",
    "rail": "the first trains with steam locomotives",
    "heart": "what pumps blood through the body",
}


def test_each_question_finds_its_document(tmp_path: Path, llm2comp_command: Callable[..., Any]) -> None:
    corpus, queries = tmp_path / "corpus.jsonl", tmp_path / "queries.jsonl"
    corpus.write_text("".join(json.dumps({"_id": name, "text": text}) + "\n" for name, text in DOCUMENTS.items()))
    queries.write_text("".join(json.dumps({"_id": name, "text": text}) + "\n" for name, text in QUESTIONS.items()))
    assert llm2comp_command("index", "build", corpus, "-o", tmp_path / "idx").code == 0
    assert (
        llm2comp_command(
            "search", tmp_path / "idx", "--queries", queries, "--run", tmp_path / "run.trec", "-k", "1"
        ).code
        == 0
    )
    first = [line.split() for line in (tmp_path / "run.trec").read_text().splitlines()]
    assert {fields[0]: fields[2] for fields in first} == {name: name for name in QUESTIONS}


def test_every_command_knows_it_by_name(
    tmp_path: Path, llm2comp_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.training.tiny import write_pairs

    monkeypatch.chdir(tmp_path)
    Path("corpus.jsonl").write_text(
        "".join(json.dumps({"_id": name, "text": text}) + "\n" for name, text in DOCUMENTS.items())
    )
    Path("sts.tsv").write_text("sentence1\tsentence2\tscore\na cat\ta kitten\t4\na cat\ta car\t1\na dog\ta hound\t5\n")
    write_pairs(Path("pairs.jsonl"), 6)
    fields = ("steps=1", "batch_size=4", "micro_batch=4", "warmup_steps=0", "precision=float32")
    few = [part for field in fields for part in ("--set", field)]
    named = ("--model", "llm2comp-tiny")
    for command in (
        ("index", "build", "corpus.jsonl", "-o", "idx", *named),
        ("index", "add", "idx", "corpus.jsonl", *named),
        ("search", "idx", "bread", *named),
        ("encode", "corpus.jsonl", "-o", "vectors", *named),
        ("eval", "--sts", "sts.tsv", *named, "--json", "scores.json"),
        ("train", "supervised", "llm2comp-tiny", "-o", "trained", "--pairs", "pairs.jsonl", *few),
        ("analyze", "llm2comp-tiny", "corpus.jsonl", "-o", "inside", "--samples", "0"),
    ):
        run = llm2comp_command(*command)
        assert run.code == 0, (command, run.err)
    assert json.loads(Path("scores.json").read_text())["settings"]["model"] == "llm2comp-tiny (bundled)"
    config = json.loads(Path("trained/model/llm2comp.json").read_text())
    assert config["stages"][:-1] == llm2comp.load().stages


@pytest.mark.parametrize(
    "command",
    [
        ("index", "build", "corpus.jsonl", "-o", "idx", "--model", "llm2comp-tinny"),
        ("encode", "corpus.jsonl", "-o", "vectors", "--model", "llm2comp-tinny"),
        ("eval", "--sts", "sts.tsv", "--model", "./llm2comp-tinny"),
        ("analyze", "llm2comp-tinny", "corpus.jsonl", "-o", "inside"),
        ("export", "llm2comp-tinny", "plain"),
    ],
)
def test_a_name_that_is_none_lists_those_that_are(
    command: tuple[str, ...], tmp_path: Path, llm2comp_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("corpus.jsonl").write_text('{"_id": "1", "text": "bread"}\n' * 1)
    Path("sts.tsv").write_text("sentence1\tsentence2\tscore\na cat\ta kitten\t4\na cat\ta car\t1\n")
    run = llm2comp_command(*command)
    assert run.code == 1
    assert run.err.count("\n") == 1
    assert "llm2comp-tinny'" in run.err
    assert "llm2comp-tiny" in run.err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are of Unix")
def test_no_bar_counts_weights_on_a_terminal(tmp_path: Path, llm2comp_command: Callable[..., Any]) -> None:
    from tests.cli.terminal import Terminal

    corpus, folder = tmp_path / "corpus.jsonl", tmp_path / "idx"
    corpus.write_text("".join(json.dumps({"_id": name, "text": text}) + "\n" for name, text in DOCUMENTS.items()))
    assert llm2comp_command("index", "build", corpus, "-o", folder).code == 0
    for command in (("search", folder, QUESTIONS["tides"], "-k", "1"), ("encode", corpus, "-o", tmp_path / "vectors")):
        with Terminal(*command, code="from llm2comp.cli import main; main()") as terminal:
            assert terminal.wait() == 0
        assert "Loading weights" not in terminal.output
        if command[0] == "search":
            assert terminal.output.startswith("  1   0.")


@pytest.mark.slow
def test_the_demo_answers_and_is_quicker_the_second_time(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from llm2comp.cli import main; main()", "demo", "-o", str(tmp_path / "demo")]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=900).stdout for _ in range(2)
    )
    for out in (first, second):
        assert out.count("\nQ: ") == 3
        assert len(re.findall(r"^  [123]  +0\.\d{3} ", out, re.MULTILINE)) == 9
        assert re.findall(r"(?m)^     from  (\S+?):\d+", out) == ["heapq.py", "random.py", "shutil.py"]
        assert "\n            _" not in out  # no names with an underscore
    assert "encoded a second" in first
    assert "unchanged" in second
    assert "encoded a second" not in second
