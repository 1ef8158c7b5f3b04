"""`--check`: mistakes that only the data show, and time and memory, without training."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm2comp.errors import LLM2CompError, SettingsError
from llm2comp.training import check, probe
from llm2comp.training.check import estimate_recipe, estimate_stage
from llm2comp.training.metrics import read_metrics
from llm2comp.training.recipe_file import Recipe, read_recipe
from tests.paths import BACKBONE
from tests.training.tiny import compression, small_model, supervised, text, write_corpus, write_pairs, write_recipe


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus.jsonl", [text(number, 40) for number in range(30)])


def test_a_stage_of_texts(corpus: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    settings = compression(corpus, steps=500, batch_size=8, accumulation=2, save_steps=1, warmup_steps=50)
    estimate = estimate_stage("compression", small_model(), settings)
    assert (estimate.updates, estimate.batch_size, estimate.more_rows) == (500, 8, False)
    assert 30 <= estimate.rows <= 200
    assert 0 < estimate.seconds < 20
    assert estimate.total_seconds == pytest.approx(500 * estimate.seconds)
    assert 0 < estimate.memory < estimate.available
    assert sorted(tmp_path.iterdir()) == before, "nothing is left behind"


def _write_questions(path: Path, count: int, words: int) -> str:
    rows = ({"question": f"What is {n}?", "context": text(n, words), "answer": f"number {n}"} for n in range(count))
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def test_questions_count_in_rows_tokens_and_memory(tmp_path: Path) -> None:
    """Passages fill the longest length, texts do not: tokens are the mean of both, the memory is that of passages."""
    corpus = write_corpus(tmp_path / "short.jsonl", [text(number, 14) for number in range(30)])
    fields: dict[str, Any] = {"steps": 50, "batch_size": 8, "max_tokens": 80, "margin": 5}
    texts = estimate_stage("compression", small_model(), compression(corpus, **fields))
    fields |= {"questions": (_write_questions(tmp_path / "q.jsonl", 20, 90),), "question_share": 0.25}
    mixed = estimate_stage("compression", small_model(), compression(corpus, **fields))
    assert mixed.rows == texts.rows + 20
    assert mixed.notes[0] == "100 rows are questions: 5 passes over 20"
    assert mixed.tokens == pytest.approx(0.75 * texts.tokens + 0.25 * 8 * 80)
    assert mixed.memory > texts.memory


def test_mistakes_in_questions_are_found_before_a_model_is_loaded(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = tmp_path / "q.jsonl"
    questions.write_text('{"question": "q", "context": "c"}\n')
    stage = {"corpora": [str(corpus)], "questions": [str(questions)], "min_characters": 100, "steps": 5}
    file = tmp_path / "r.yaml"
    model = {"backbone": str(BACKBONE), "max_length": 64, "memory_tokens": 8}
    file.write_text(yaml.safe_dump({"name": "mine", "about": "", "model": model, "compression": stage}))
    monkeypatch.setattr(check, "first_model", lambda *_: pytest.fail("a model is loaded"))
    with pytest.raises(SettingsError, match=r"compression: .*q\.jsonl:1: no answer"):
        list(estimate_recipe(read_recipe(file)))
    questions.write_text("")
    with pytest.raises(SettingsError, match=r"q\.jsonl: no question to train on: the files are empty"):
        list(estimate_recipe(read_recipe(file)))


def test_the_time_of_an_update_is_that_of_its_rows(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 600)
    small, large = (
        estimate_stage("supervised", small_model(), supervised(pairs, steps=10, batch_size=size)) for size in (32, 256)
    )
    assert 4 < large.seconds / small.seconds < 16
    assert (large.rows, large.more_rows) == (600, False)


def test_too_few_texts_are_found(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(LLM2CompError, match="rows for training, fewer than one batch of 5000"):
        estimate_stage("compression", small_model(), compression(corpus, batch_size=5000))
    pairs = write_pairs(tmp_path / "pairs.jsonl", 20)
    with pytest.raises(LLM2CompError, match="20 rows for training, fewer than one batch of 64"):
        estimate_stage("supervised", small_model(), supervised(pairs, batch_size=64))


def recipe(tmp_path: Path, **sections: Any) -> Recipe:
    file = write_recipe(tmp_path, **sections)
    return read_recipe(file, data=tmp_path / "data", pairs=tmp_path / "run" / "pairs", sources=True)


def test_a_recipe_from_its_backbone_to_its_last_stage(tmp_path: Path) -> None:
    estimates = {estimate.name: estimate for estimate in estimate_recipe(recipe(tmp_path))}
    assert list(estimates) == ["pretrain", "compression", "unsupervised", "supervised"]
    assert all(estimate.seconds > 0 for estimate in estimates.values())
    assert estimates["supervised"].notes == (
        "the pairs are still to be derived: at most, with the longest texts allowed",
    )
    assert not (tmp_path / "run").exists()


def test_stage_0_has_its_time_and_memory(tmp_path: Path) -> None:
    estimate = next(estimate_recipe(recipe(tmp_path)))
    assert (estimate.name, estimate.tokens) == ("pretrain", 4 * 32)
    weights = 300 * 16 + 2 * (4 * 16 * 16 + 3 * 16 * 32 + 2 * 16) + 16  # embeddings, two layers, the last norm
    assert estimate.memory > 12 * weights, "gradients and moments, and activations beside them"
    assert estimate.memory < 12 * weights + 128 * 50_000
    assert 0 < estimate.seconds < 5


def test_nothing_is_loaded_before_the_data_are_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", [text(number, 40) for number in range(30)])
    write_corpus(tmp_path / "heldout.jsonl", ["short"])
    stages = {
        "compression": {"corpora": [str(corpus)], "heldout": str(tmp_path / "heldout.jsonl"), "min_characters": 100},
        "unsupervised": {"corpora": [str(corpus)], "batch_size": 500, "steps": 5},
        "supervised": {
            "pairs": [str(write_pairs(tmp_path / "pairs.jsonl", 40))],
            "batch_size": 8,
            "max_query_tokens": 5,
        },
    }
    file = tmp_path / "r.yaml"
    model = {"backbone": str(BACKBONE), "max_length": 64, "memory_tokens": 8}
    file.write_text(yaml.safe_dump({"name": "mine", "about": "", "model": model, **stages}))

    def refuse(*_: Any) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(check, "first_model", refuse)
    with pytest.raises(SettingsError) as refused:
        list(estimate_recipe(read_recipe(file)))
    first, second, third = refused.value.problems
    assert re.match(r"compression: no text of at least 100 characters .* in .*heldout\.jsonl", first)
    assert second.startswith("unsupervised: ")
    assert "fewer than one batch of 500" in second
    assert third == "supervised: a query of at most 5 tokens has no room for 8 memory tokens; give 10 or more"


def test_the_time_of_an_update_is_that_of_its_tokens(tmp_path: Path) -> None:
    """Long texts among short ones count by their number, whichever are measured."""
    texts = [text(number, 12) for number in range(40)] + [text(100 + number, 40) for number in range(40)]
    estimates = [
        estimate_stage("compression", small_model(), compression(write_corpus(tmp_path / f"{n}.jsonl", chosen)))
        for n, chosen in enumerate((texts, texts[40:]))
    ]
    assert estimates[0].tokens < estimates[1].tokens <= 4 * 48


def test_a_brief_run_ends_after_some_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", [text(number, 40) for number in range(30)])
    monkeypatch.setattr(probe, "_ENOUGH_SECONDS", 0.0)
    settings = probe.small(compression(corpus, steps=500), 2)
    probe.train_compression(small_model(), settings, tmp_path / "run", callbacks=[probe.BriefRun()])
    reports = read_metrics(tmp_path / "run")
    assert [entry["step"] for entry in reports] == [1, 2], "one to warm up, one that is timed"
    assert probe.rate_of(tmp_path / "run") == pytest.approx(reports[1]["tokens_per_second"])


def test_mistakes_of_all_stages_are_found_in_the_data(tmp_path: Path) -> None:
    write_corpus(tmp_path / "empty.jsonl", ["short"])
    pairs = write_pairs(tmp_path / "pairs.jsonl", 5)
    stages = {
        "compression": {"corpora": [str(tmp_path / "empty.jsonl")], "min_characters": 1000, "steps": 5},
        "supervised": {"pairs": [str(pairs)], "batch_size": 32, "steps": 5},
    }
    file = tmp_path / "r.yaml"
    model = {"backbone": str(BACKBONE), "max_length": 64}
    file.write_text(yaml.safe_dump({"name": "mine", "about": "", "model": model, **stages}))
    with pytest.raises(SettingsError) as refused:
        list(estimate_recipe(read_recipe(file)))
    first, second = refused.value.problems
    assert first.startswith("compression: no text of at least 1000 characters")
    assert second.startswith("supervised: ")
    assert "5 rows for training, fewer than one batch of 32" in second
