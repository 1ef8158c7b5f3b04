"""What a run says about itself: columns, the picture of its losses, texts that were not used, and its divergence."""

import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import SettingsError, TrainingError
from llm2comp.training import arguments
from llm2comp.training.arguments import tracker_problems
from llm2comp.training.compression import train_compression
from llm2comp.training.contrastive import train_contrastive
from llm2comp.training.divergence import divergence
from llm2comp.training.loss_plot import draw_loss
from llm2comp.training.metrics import append_metrics, read_metrics
from llm2comp.training.pretrain import pretrain
from llm2comp.training.progress import format_entry
from llm2comp.training.settings import BackboneShape, PretrainSettings
from tests.training.tiny import compression, small_model, supervised, text, unsupervised, write_corpus, write_pairs


def test_entries_of_training_have_columns() -> None:
    entries: list[dict[str, Any]] = [
        {"step": 5, "loss": 12.5, "learning_rate": 1e-4, "grad_norm": 0.25, "tokens_per_second": 950.4},
        {"step": 100, "loss": 0.123456, "learning_rate": 9.123e-05, "grad_norm": 12.0, "tokens_per_second": 12345.6},
    ]
    first, second = (format_entry(entry, 100, seconds) for entry, seconds in zip(entries, (125.2, 0.0), strict=True))
    assert first == "step   5/100  loss 12.5       rate 0.0001     norm 0.25            950 tokens/s  0:02:05 left"
    assert second == "step 100/100  loss 0.12346    rate 9.12e-05   norm 12           12,346 tokens/s  0:00:00 left"


def test_other_entries_are_named() -> None:
    entry = {"step": 10, "eval_loss": 1.5, "eval_questions_loss": 0.25, "context_gain": 0.66}
    entry["eval_questions_runtime"] = 0.7
    expected = "step 10/20  held-out loss 1.5  held-out loss (questions) 0.25  context gain 0.66"
    assert format_entry(entry, 20) == expected


@pytest.mark.parametrize(
    ("losses", "diverged"),
    [
        ([3.0] * 10 + [6.9] * 30, True),
        ([3.0] * 10 + [5.9] * 30, False),
        ([0.1] * 10 + [1.0] * 30, False),
        ([0.1] * 10 + [1.2] * 30, True),
        ([3.0] * 10 + [50.0] * 9, False),
        ([3.0] * 10 + [0.5] * 20 + [50.0] * 10, True),
        ([9.0, 1.0] * 40, False),
        ([], False),
    ],
    ids=["twice", "less", "below a nat", "above a nat", "too early", "late", "noise", "nothing"],
)
def test_a_loss_far_above_its_start_is_divergence(losses: list[float], diverged: bool) -> None:
    entries = [{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)]
    assert bool(divergence([{"step": 0, "context_gain": 1.0}, *entries])) == diverged


def test_sparse_reports_show_divergence_too() -> None:
    entries = [{"step": 50 * place, "loss": loss} for place, loss in enumerate([3.0, 2.0, 9.0], 1)]
    assert divergence(entries) == "the run diverges: its loss is 9 at step 150 and was 3 at the beginning"


def test_a_run_that_diverges_stops_and_leaves_its_checkpoint(tmp_path: Path) -> None:
    corpus, heldout = (
        write_corpus(tmp_path / name, [text(number + first, 40) for number in range(40)])
        for name, first in (("corpus.jsonl", 0), ("heldout.jsonl", 100))
    )
    shape = BackboneShape(vocabulary=300, hidden=16, layers=1, heads=2, intermediate=32, max_positions=64)
    fields: dict[str, Any] = {"steps": 60, "batch_size": 4, "log_steps": 1, "save_steps": 5, "sequence_length": 32}
    settings = PretrainSettings(
        corpora=(str(corpus),),
        heldout=str(heldout),
        shape=shape,
        learning_rate=3.0,
        warmup_steps=20,
        precision="float32",
        **fields,
    )
    with pytest.raises(TrainingError, match=r"the run diverges: its loss is [\d.]+ at step \d+ and was") as stopped:
        pretrain(settings, tmp_path / "run")
    assert re.search(r"checkpoint-\d+ is whole and untouched", str(stopped.value))
    assert read_metrics(tmp_path / "run")[-1]["step"] < 60


def test_the_picture_shows_what_was_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    assert draw_loss(tmp_path) is None, "nothing to draw"
    for step in range(1, 41):
        append_metrics(tmp_path, {"step": step, "loss": 3.0 / step, "learning_rate": 1e-3 / step})
    append_metrics(tmp_path, {"step": 40, "eval_loss": float("nan")})
    append_metrics(tmp_path, {"step": 40, "eval_questions_loss": 0.5})
    assert draw_loss(tmp_path) == tmp_path / "loss.png"
    assert (tmp_path / "loss.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert draw_loss(tmp_path) is None, "without matplotlib"


def test_texts_that_are_not_used_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = ["too short", text(1, 100), text(2, 100), "x" * 200, "also short"]
    corpus = write_corpus(tmp_path / "corpus.jsonl", texts)
    settings = compression(corpus, steps=1, batch_size=2, min_characters=100, max_tokens=40, margin=4)
    with caplog.at_level(logging.INFO, logger="llm2comp.training.splits"):
        train_compression(small_model(), settings, tmp_path / "run")
    assert "too short: 2 of " in caplog.text
    assert "min_characters 100" in caplog.text
    assert "cut after 40 tokens (max_tokens): " in caplog.text


def test_sentences_and_pairs_that_are_not_used_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sentences = [
        "One two.",
        "The water of the river is cold.",
        "The water of the river is cold.",
        "A boat on the river.",
    ]
    corpus = write_corpus(tmp_path / "corpus.jsonl", [" ".join(sentences)])
    with caplog.at_level(logging.INFO, logger="llm2comp.training.contrastive_data"):
        train_contrastive(small_model(), unsupervised(corpus, steps=1, batch_size=2), tmp_path / "a")
    assert "2 sentences; under 5 or over 60 words: 1; repeated: 1" in caplog.text
    few, many = write_pairs(tmp_path / "few.jsonl", 3), write_pairs(tmp_path / "many.jsonl", 20, start=50)
    with caplog.at_level(logging.INFO, logger="llm2comp.training.contrastive_data"):
        train_contrastive(small_model(), supervised(few, many, steps=1), tmp_path / "b")
    assert "20 pairs in 1 data set; of data sets too small for a batch of 4: 3" in caplog.text


def test_a_missing_tracker_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "get_available_reporting_integrations", list)
    settings = supervised(Path("p"), report_to="tensorboard")
    assert tracker_problems(settings) == [
        'report_to names tensorboard; installed here: none. To install it: pip install "llm2comp[tensorboard]"'
    ]


def test_what_is_no_tracker_is_not_to_be_installed() -> None:
    (problem,) = tracker_problems(supervised(Path("p"), report_to="tensorbord"))
    assert problem.startswith("report_to names tensorbord, which is no tracker; known: azure_ml, ")
    assert "pip install" not in problem


@pytest.mark.parametrize(
    ("text", "names"),
    [("tensorboard, wandb", ("tensorboard", "wandb")), ("wandb,mlflow", ("wandb", "mlflow")), ("none", ()), ("", ())],
)
def test_a_text_names_one_tracker_or_several(text: str, names: tuple[str, ...]) -> None:
    assert supervised(Path("p"), report_to=text).report_to == names


def test_tensorboard_gets_the_reports(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    pairs = write_pairs(tmp_path / "pairs.jsonl", 20)
    train_contrastive(small_model(), supervised(pairs, report_to="tensorboard"), tmp_path / "run")
    assert list((tmp_path / "run").rglob("events.out.tfevents.*"))


def test_pairs_without_a_positive_are_refused_by_line(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"query": "who", "positive": "she"}\n{"query": "what"}\n')
    with pytest.raises(Exception, match=r"pairs.jsonl:2: no positive") as refused:
        train_contrastive(small_model(), supervised(file), tmp_path / "run")
    assert not isinstance(refused.value, SettingsError)
    assert not (tmp_path / "run").exists()
