"""Questions in stage 1: the passage is the context, question and answer its continuation."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import SettingsError
from llm2comp.training.batches import MixedRows
from llm2comp.training.compression import train_compression
from llm2comp.training.pairs.derive import iterate_pairs
from llm2comp.training.pairs.settings import PairSettings
from llm2comp.training.question_rows import QuestionRows
from llm2comp.training.run_folder import settings_values
from llm2comp.training.sources import check_sources
from llm2comp.training.token_trainer import TextLoss
from tests.training.tiny import LORA, compression, small_model, text, write_corpus


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus.jsonl", [text(number, 80) for number in range(8)])


def test_tokens_of_a_row(tmp_path: Path, corpus: Path) -> None:
    encoder = small_model().encoder
    passages = [text(1, 12), text(2, 90)]
    questions = _write(
        tmp_path / "q.jsonl",
        [
            {"question": "What is it?", "context": passages[0], "answer": "a house"},
            {"query": "Who came?", "positive": passages[1], "answer": "a king", "negative": "n", "source": "s"},
        ],
    )
    settings = compression(corpus, questions=(str(questions),), max_tokens=60, margin=5)
    rows = QuestionRows(encoder, settings, limit=9)
    assert [rows[0]["id"], rows[1]["id"]] == ["q.jsonl:1", "q.jsonl:2"]
    tokenizer = encoder.tokenizer
    for row, passage, after in zip(
        (rows[0], rows[1]),
        passages,
        ("\n\nQuestion: What is it?\nAnswer: a house", "\n\nQuestion: Who came?\nAnswer: a king"),
        strict=True,
    ):
        continuation = tokenizer(after, add_special_tokens=False)["input_ids"]
        context = [encoder.beginning, *tokenizer(passage, add_special_tokens=False)["input_ids"]]
        assert row["continuation"] == continuation
        assert row["context"] == context[: 60 - len(continuation)]
    assert len(rows[1]["context"]) + len(rows[1]["continuation"]) == 60
    assert len(QuestionRows(encoder, settings, limit=1)) == 1


def test_mistakes(tmp_path: Path, corpus: Path) -> None:
    encoder = small_model().encoder
    questions = _write(tmp_path / "q.jsonl", [{"question": "q", "context": "c", "answer": ""}])
    with pytest.raises(SettingsError, match=r"q.jsonl:1: no answer; a row of questions needs question, context"):
        QuestionRows(encoder, compression(corpus, questions=(str(questions),)), limit=9)
    _write(questions, [{"question": text(1, 90), "context": text(2, 30), "answer": "a"}])
    with pytest.raises(SettingsError, match=r"leave the passage fewer than 5 tokens, left out \(max_tokens 40\): 1"):
        QuestionRows(encoder, compression(corpus, questions=(str(questions),), max_tokens=40, margin=5), limit=9)
    _write(questions, [{"question": "q", "context": "c", "answer": "a"}] * 2)
    with pytest.raises(SettingsError, match=r"passages of fewer than 5 tokens, left out \(margin\): 2$"):
        QuestionRows(encoder, compression(corpus, questions=(str(questions),), max_tokens=40, margin=5), limit=9)
    _write(questions, [])
    with pytest.raises(SettingsError, match="no question to train on: the files are empty"):
        QuestionRows(encoder, compression(corpus, questions=(str(questions),)), limit=9)
    with pytest.raises(SettingsError, match="not with reconstruction"):
        compression(corpus, questions=(str(questions),), objective="reconstruction")
    with pytest.raises(SettingsError, match=r"question_share is 1.0"):
        compression(corpus, questions=(str(questions),), question_share=1.0)
    with pytest.raises(SettingsError, match=r"question_share 0.1 of 4 rows \(steps x batch_size\) is not one question"):
        compression(corpus, questions=(str(questions),), question_share=0.1, steps=2, batch_size=2)


def test_a_run_takes_its_share_of_questions_and_knows_them_again(tmp_path: Path, corpus: Path) -> None:
    rows = [{"question": f"What is {n}?", "context": text(n, 20), "answer": f"number {n}"} for n in range(20)]
    questions = _write(tmp_path / "q.jsonl", rows)
    settings = compression(corpus, questions=(str(questions),), question_share=0.25, steps=4, batch_size=4)
    train_compression(small_model(adapter=LORA), settings, tmp_path / "run")
    sets = json.loads((tmp_path / "run" / "rows.json").read_text())["sets"]
    assert (sets["texts"][0], sets["questions"][0]) == (8, 4)
    assert settings_values(settings)["questions"] == [str(questions)]
    _write(questions, [{**row, "answer": "another"} for row in rows])
    with pytest.raises(SettingsError, match="the rows of questions are others"):
        train_compression(small_model(adapter=LORA), compression(corpus, **_fields(questions)), tmp_path / "run")


@pytest.mark.parametrize("few", ["questions", "texts"])
def test_the_share_holds_in_every_update_however_few_rows_there_are(
    tmp_path: Path, few: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(
        tmp_path / "corpus.jsonl", [text(number, 80) for number in range(4 if few == "texts" else 30)]
    )
    rows = [
        {"question": f"What is {n}?", "context": text(n, 20), "answer": f"number {n}"}
        for n in range(2 if few == "questions" else 30)
    ]
    questions = _write(tmp_path / "q.jsonl", rows)
    seen: list[list[str]] = []

    def collate(self: TextLoss, rows: list[dict[str, Any]]) -> Any:
        seen.append([row["id"] for row in rows])
        return {"ids": seen[-1], **{name: [row[name] for row in rows] for name in self.columns}}

    monkeypatch.setattr(TextLoss, "collate", collate)
    settings = compression(corpus, questions=(str(questions),), question_share=0.75, steps=5, batch_size=4)
    train_compression(small_model(adapter=LORA), settings, tmp_path / "run")
    asked = [name for names in seen for name in names if name.startswith("q.jsonl:")]
    assert [sum(name.startswith("q.jsonl:") for name in names) for names in seen] == [3] * 5
    assert len(set(asked)) == (2 if few == "questions" else 15), "all are read before one is read again"


def test_evenly_mixed_rows() -> None:
    texts, questions = [{"id": "t"}] * 7, [{"id": "q"}] * 3
    mixed = MixedRows(texts, questions, share=0.3)
    names = [mixed[place]["id"] for place in range(len(mixed))]
    assert "".join(names) == "tqttqtttqt"
    for count in range(11):
        assert abs(names[:count].count("q") - 0.3 * count) <= 0.5


def test_parts_that_the_language_model_cannot_read_are_refused_before_training(tmp_path: Path, corpus: Path) -> None:
    model = small_model(adapter=LORA)
    positions = model.encoder.backbone.max_positions
    assert positions is not None
    model.encoder.max_seq_length = positions
    fits = compression(corpus, max_tokens=positions - model.memory_tokens, margin=12, steps=1, batch_size=1)
    train_compression(model, fits, tmp_path / "one")
    parts = replace(fits, context_parts=11)
    with pytest.raises(SettingsError, match=rf"context_parts 11 .* its longest input is {positions}; lower"):
        train_compression(model, parts, tmp_path / "eleven")


def _fields(questions: Path) -> dict[str, Any]:
    return {"questions": (str(questions),), "question_share": 0.25, "steps": 4, "batch_size": 4}


def test_derived_questions_hold_the_sentence_that_answers(tmp_path: Path) -> None:
    sentences = [
        "The bridge was built by Anna Meyer in 1907.",
        "The river was crossed by ferries before that time, which carried wool and salt.",
        "The town has 40 houses near the old market and a school for children.",
        "Trade was moved to the harbour in 1950 because the river was too narrow for ships.",
    ]
    articles = write_corpus(tmp_path / "articles.jsonl", [" ".join(sentences) for _ in range(1)])
    settings = PairSettings(articles=(str(articles),), passage_words=(20, 60))
    asked = [pair for pair in iterate_pairs(settings) if pair.kind == "question-passage"]
    assert asked
    assert all(pair.answer in sentences and pair.answer in pair.positive for pair in asked)


def test_a_sentence_longer_than_any_passage_answers_with_what_is_left_of_it(tmp_path: Path) -> None:
    long = "The bridge was built by Anna Meyer in 1907 " + "and its arches carried wool and salt " * 8 + "to the town."
    other = "The river was crossed by ferries before that time, which carried wool and salt."
    articles = write_corpus(tmp_path / "articles.jsonl", [f"{long} {other} {other.replace('river', 'lake')}"])
    settings = PairSettings(articles=(str(articles),), passage_words=(10, 20))
    asked = [pair for pair in iterate_pairs(settings) if pair.kind == "question-passage"]
    assert all(pair.answer and pair.answer in pair.positive for pair in asked)
    assert any(long not in pair.positive and pair.positive.endswith(pair.answer or "-") for pair in asked)


def test_a_file_of_questions_that_is_missing_is_named_before_training(corpus: Path) -> None:
    with pytest.raises(SettingsError, match=r"questions\[0\]: no file or folder 'nowhere.jsonl'"):
        check_sources(compression(corpus, questions=("nowhere.jsonl",)))
