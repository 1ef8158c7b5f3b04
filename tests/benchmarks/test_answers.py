"""The benchmark of answers: its scores as SQuAD defines them, its questions, and a row for each context."""

import gzip
import json
from pathlib import Path

import pytest

from llm2comp import LLM2Comp
from llm2comp.errors import SettingsError
from llm2comp.reading import CompressedReader
from llm2comp_benchmarks.answers.run import CONTEXTS, measure_answers
from llm2comp_benchmarks.answers.squad import best, exact_match, f1, read_questions
from llm2comp_benchmarks.answers.tables import format_answers
from tests.training.tiny import BACKBONE, text


@pytest.mark.parametrize(
    ("given", "expected", "exact", "overlap"),
    [
        ("The Panthers.", "panthers", 1.0, 1.0),
        ("136 career sacks", "136", 0.0, 0.5),
        ("an apple a day", "apple day", 1.0, 1.0),
        ("Denver", "Carolina", 0.0, 0.0),
        ("", "Carolina", 0.0, 0.0),
    ],
)
def test_scores(given: str, expected: str, exact: float, overlap: float) -> None:
    assert (exact_match(given, expected), f1(given, expected)) == (exact, overlap)


def test_the_nearest_answer_counts() -> None:
    assert best(exact_match, "two", ["2", "two"]) == 1.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "qrels").mkdir()
    files = {
        "corpus": [{"_id": f"p{number}", "title": "T", "text": text(number, 12)} for number in range(3)],
        "queries": [{"_id": f"q{number}", "text": f"Question {number}?"} for number in range(4)],
        "answers": [{"_id": f"q{number}", "answers": [f"word {number}", "other"]} for number in range(4)],
    }
    for name, rows in files.items():
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt") as file:
            file.write("".join(f"{json.dumps(row)}\n" for row in rows))
    judged = [f"q{number}\tp{number % 3}\t1" for number in range(4)]
    (tmp_path / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]) + "\n")
    return tmp_path


def test_the_right_passage_comes_first(folder: Path) -> None:
    questions = read_questions(folder, passages=2)
    assert [question.passages for question in questions] == [
        [text(0, 12), text(1, 12)],
        [text(1, 12), text(2, 12)],
        [text(2, 12), text(0, 12)],
        [text(0, 12), text(1, 12)],
    ]
    assert questions[3].answers == ["word 3", "other"]
    assert [question.text for question in read_questions(folder, passages=1, every=2)] == ["Question 0?", "Question 2?"]
    with pytest.raises(SettingsError, match="4 passages for each question; .* has 3"):
        read_questions(folder, passages=4)
    (folder / "answers.jsonl.gz").unlink()
    with pytest.raises(SettingsError, match="answers.jsonl.gz is missing"):
        read_questions(folder, passages=1)


def test_a_row_for_each_context(folder: Path) -> None:
    reader = CompressedReader(LLM2Comp.from_backbone(BACKBONE, 2, dtype="float32", device="cpu"), max_new_tokens=3)
    questions = read_questions(folder, passages=2)
    rows = measure_answers(reader, questions)
    assert [row["context"] for row in rows] == list(CONTEXTS)
    nothing, memories, texts = (row["tokens_read"] for row in rows)
    assert memories - nothing == 2 * 2  # two passages of two memory tokens
    assert texts > memories
    expected = reader.log_likelihoods(
        [question.text for question in questions], [[]] * 4, [question.answers[0] for question in questions]
    )
    assert rows[0]["log_likelihood"][0] == pytest.approx(expected.mean(), abs=1e-3)
    table = format_answers({"rows": [{"model": "m", "memory_tokens": 2, "passages": 2, **row} for row in rows]})
    assert "memories, k = 2" in table
