"""Stage 0: a tokenizer that loses nothing, rows without held-out text, and a backbone that everything else loads."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from llm2comp.corpus.documents import Document
from llm2comp.corpus.python_docs import is_held_out
from llm2comp.errors import CorpusError, SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.training import sources
from llm2comp.training.metrics import read_metrics
from llm2comp.training.pretrain import Rows, pretrain, train_tokenizer, training_texts
from llm2comp.training.settings import BackboneShape, PretrainSettings
from tests.training.tiny import text, write_corpus, write_pairs

SHAPE = BackboneShape(vocabulary=320, hidden=16, layers=2, heads=2, intermediate=32, max_positions=64)
TEXTS = [text(number, 40) for number in range(60)]


def settings(folder: Path, **fields: Any) -> PretrainSettings:
    corpus = write_corpus(folder / "corpus.jsonl", TEXTS)
    heldout = write_corpus(folder / "heldout.jsonl", [text(900 + number, 40) for number in range(6)])
    defaults: dict[str, Any] = {
        "steps": 6,
        "batch_size": 4,
        "learning_rate": 3e-3,
        "sequence_length": 32,
        "log_steps": 1,
        "eval_steps": 3,
        "shape": SHAPE,
    }
    return PretrainSettings(
        **{
            "corpora": (str(corpus),),
            "heldout": str(heldout),
            "tokenizer_share": 1.0,
            "precision": "float32",
            **defaults,
            **fields,
        }
    )


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, 320)


@pytest.mark.parametrize(
    "words",
    [
        "The Bridge over the River.",
        "ÀÉÎÕÜ ß İstanbul ǅ",
        "e\u0301 and \u00e9 are one letter",
        "日本語 한국어 ไทย עברית العربية हिन्दी",
        "😀 👩‍👩‍👧‍👦 🏳️‍🌈 \U0001f9ff",
        "tabs\tand\nnew lines\r\n  and   spaces ",
        "\x00\x01\x7f\u200b\u202e\ufeff\ufffd",
        "\U0010ffff\U00010000",
        "",
        " leading",
        "a" * 5000,
        "<s> </s> <pad> <|endoftext|> <|mem_0|>",
    ],
)
def test_any_text_comes_back_in_lower_case(tokenizer: PreTrainedTokenizerFast, words: str) -> None:
    ids = tokenizer(words, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert not {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id} & set(ids), (
        "a string in a text is text"
    )
    plain = tokenizer.backend_tokenizer.normalizer.normalize_str(words)
    assert (
        plain == unicodedata.normalize("NFC", words).lower() or "İ" in words
    )  # Python gives a lone combining dot its own form
    assert str(tokenizer.decode(ids)).removeprefix(" ") == plain.removeprefix(" ")


def test_texts_begin_with_the_beginning_token(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer("the river")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id == 1
    assert tokenizer.decode(ids[1:]) == " the river"
    assert len(tokenizer) <= 320
    assert tokenizer("THE RIVER")["input_ids"] == ids


def test_rows_are_the_texts_laid_end_to_end(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    texts = ["the river </s> bridge", "old", "stone tower <s>"]
    rows = Rows(tmp_path / "tokens.npy", texts, tokenizer, 5)
    laid = [
        token
        for entry in texts
        for token in (1, *tokenizer(entry, add_special_tokens=False, split_special_tokens=True)["input_ids"], 2)
    ]
    assert len(rows) == len(laid) // 5
    assert [token for row in range(len(rows)) for token in rows[row]["input_ids"].tolist()] == laid[: 5 * len(rows)]
    assert sum(token in (1, 2) for token in laid) == 6
    assert np.load(tmp_path / "tokens.npy").dtype == np.uint16
    again = Rows(tmp_path / "tokens.npy", iter(()), tokenizer, 5)
    assert len(again) == len(rows), "texts are tokenised once"


def test_the_largest_vocabulary_fits_two_bytes() -> None:
    assert np.array([65_535]).astype(np.uint16) == 65_535 == np.iinfo(np.uint16).max


def test_held_out_docstrings_and_repeated_texts_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    documents = [
        Document(str(number), "Title", f"Return the {number}-th value.\n\n{text(number, 30)}") for number in range(60)
    ]
    monkeypatch.setattr(sources, "read_corpus", lambda source, **_: iter(documents * 2))
    texts = list(training_texts(("python-docs:all",)))
    assert texts == [document.content for document in documents if not is_held_out(document.text)]
    assert 0 < len(texts) < 60
    assert len(list(training_texts(("other.jsonl",)))) == 60


def test_pairs_are_read_as_texts(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 2, negatives=1)
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    assert list(training_texts((f"pairs:{pairs}",))) == [f"{row['query']}\n{row['positive']}" for row in rows]
    pairs.write_text('{"query": "a"}\n')
    with pytest.raises(CorpusError, match="pairs.jsonl:1: no positive"):
        list(training_texts((f"pairs:{pairs}",)))


def test_the_backbone_is_a_language_model_that_learned(tmp_path: Path) -> None:
    folder = pretrain(settings(tmp_path, steps=40, batch_size=8, learning_rate=1e-2), tmp_path / "run")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert model.config.tie_word_embeddings
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", "<pad>")
    entries = read_metrics(tmp_path / "run")
    losses = [entry["eval_loss"] for entry in entries if "eval_loss" in entry]
    assert losses[-1] < losses[0] - 0.5
    assert (tmp_path / "run" / "loss.png").is_file()
    ids = [
        token
        for number in range(6)
        for token in (
            1,
            *tokenizer(f"Bridge {number}\n{text(900 + number, 40)}", add_special_tokens=False)["input_ids"],
            2,
        )
    ]
    rows = torch.tensor(ids[: len(ids) // 32 * 32]).view(-1, 32)
    rows = rows[: len(rows) // 8 * 8]
    with torch.no_grad():
        expected = model.float()(input_ids=rows, labels=rows).loss
    assert losses[-1] == pytest.approx(float(expected), rel=0.01)  # the file's weights are rounded
    encoder = LLM2Comp.from_backbone(folder, 2, adapter=None, max_length=64, device="cpu")
    assert encoder.encode(["the river", "<s>"]).shape == (2, 16)


def test_a_finished_backbone_is_returned(tmp_path: Path) -> None:
    begun = settings(tmp_path)
    folder = pretrain(begun, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert pretrain(begun, tmp_path / "run") == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    with pytest.raises(SettingsError, match="run was begun with other settings: shape.hidden was 16, now 32"):
        pretrain(
            settings(
                tmp_path,
                shape=BackboneShape(vocabulary=320, hidden=32, layers=2, heads=2, intermediate=32, max_positions=64),
            ),
            tmp_path / "run",
        )


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"batch_size": 400}, SettingsError, "corpus.jsonl: .* rows for training, fewer than one batch of 400"),
        ({"corpora": ("nowhere.jsonl",)}, CorpusError, "nowhere.jsonl: no such file"),
        ({"heldout": "empty.jsonl"}, CorpusError, "empty.jsonl: an empty corpus"),
        ({"heldout": "short.jsonl"}, SettingsError, "short.jsonl: 0 rows"),
    ],
)
def test_texts_that_do_not_serve_are_refused(
    fields: dict[str, Any], error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").touch()
    write_corpus(Path("short.jsonl"), ["one word"])
    with pytest.raises(error, match=message):
        pretrain(settings(tmp_path, **fields), tmp_path / "run")
    assert not (tmp_path / "run" / "backbone").exists()
