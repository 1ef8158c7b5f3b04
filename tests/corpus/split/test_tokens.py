"""Numbers of tokens by those of words, beside what the bundled model's tokenizer counts for whole texts."""

from array import array
from itertools import islice
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from llm2comp.corpus.documents import Document
from llm2comp.corpus.python_docs import read_python_docs
from llm2comp.corpus.split.splitter import Splitter
from llm2comp.corpus.split.tokens import TokenEnds, Tokens

TEXTS = [
    "One, two.\n\n  Three's a\tcrowd: (four)...  \n",
    "x\n\n  def f(x):\n        return x  # no\u00a0break\u3000space\r\n",
    "我爱北京天安门。 你好 world! \U0001f600\U0001f600 e\u0301 ﷺ",
    "x" * 300 + " " + "-" * 70,
    " \ud800 half",
    "",
]


def offsets(tokenizer: Any, text: str) -> list[int]:
    whole = text.replace("\ud800", "\ufffd")
    return [end for _, end in tokenizer.backend_tokenizer.encode(whole, add_special_tokens=False).offsets]


@pytest.mark.parametrize("text", TEXTS)
def test_each_token_ends_where_the_tokenizer_says(text: str, bundled_tokenizer: Any) -> None:
    tokens = Tokens(bundled_tokenizer)
    for _ in range(2):  # the second time from memory
        ends = tokens.ends(text)
        expected = offsets(bundled_tokenizer, text)
        assert [ends.count(0, place) for place in range(len(text) + 1)] == [
            sum(end <= place for end in expected) for place in range(len(text) + 1)
        ]


def test_the_documentation_of_python_has_as_many_tokens_as_its_words(bundled_tokenizer: Any) -> None:
    tokens = Tokens(bundled_tokenizer)
    for document in islice(read_python_docs(), 300):
        text = document.text
        assert tokens.ends(text).count(0, len(text)) == len(offsets(bundled_tokenizer, text))


def test_memory_of_words_is_bounded(bundled_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm2comp.corpus.split.tokens._REMEMBERED", 50)
    tokens = Tokens(bundled_tokenizer)
    for number in range(20):
        text = " ".join(f"w{number}n{word}" for word in range(30)) + " " + "y" * 1000
        assert tokens.ends(text).count(0, len(text)) == len(offsets(bundled_tokenizer, text))
        assert len(tokens._known) <= 81
        assert all(len(segment) <= 64 for segment in tokens._known)


class _Short(Tokens):
    """Finds four of five tokens of a text that is cut."""

    def ends(self, text: str) -> TokenEnds:
        ends = super().ends(text)
        return TokenEnds(array("Q", [end for number, end in enumerate(ends._ends) if number % 5]))


def test_the_limit_holds_where_words_have_more_tokens_than_expected(
    bundled_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a tokenizer that makes other tokens of a text than of its words; such a text is cut once more."""
    text = "Every word of this sentence is common enough. " * 40
    monkeypatch.setattr("llm2comp.corpus.split.splitter.Tokens", _Short)
    split = Splitter(bundled_tokenizer, 64).split(Document("d", "", text))
    counts = Tokens(bundled_tokenizer).counts([text[piece.begin : piece.end] for piece in split.pieces])
    assert max(counts) <= 64


def _train(kind: str) -> Any:
    """A tokenizer of another kind than byte-level BPE, trained on a few docstrings."""
    texts = [document.text for document in islice(read_python_docs(), 200)]
    settings: dict[str, Any] = {"vocab_size": 800, "special_tokens": ["[UNK]"], "show_progress": False}
    if kind == "unigram":
        backend = Tokenizer(models.Unigram())
        trainer: Any = trainers.UnigramTrainer(**settings, unk_token="[UNK]")
    elif kind == "wordpiece":
        backend, trainer = Tokenizer(models.WordPiece(unk_token="[UNK]")), trainers.WordPieceTrainer(**settings)
        backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    else:
        backend, trainer = Tokenizer(models.BPE(unk_token="[UNK]")), trainers.BpeTrainer(**settings)
        backend.normalizer = normalizers.Replace(" ", "\u2581")
    if kind == "metaspace":
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize("kind", ["unigram", "wordpiece", "metaspace", "whole"])
def test_the_limit_holds_with_tokenizers_of_other_kinds(kind: str) -> None:
    """Unigram and `whole` make tokens of parts of two words."""
    tokenizer = _train(kind)
    splitter, tokens = Splitter(tokenizer, 48), Tokens(tokenizer)
    for document in islice(read_python_docs(), 150, 300):
        split = splitter.split(document)
        texts = [
            splitter.encoded_text(document.title, piece.headings, document.text[piece.begin : piece.end])
            for piece in split.pieces
        ]
        texts = texts if len(texts) > 1 else [splitter.whole_text(document.title, document.text)]
        assert max(tokens.counts(texts)) <= 48


@pytest.mark.parametrize(("context", "expected"), [(True, "Word word word word\nShort text."), (False, "Short text.")])
def test_a_long_title_of_a_short_text_is_cut(context: bool, expected: str, bundled_tokenizer: Any) -> None:
    splitter = Splitter(bundled_tokenizer, 20, context=context)
    title = "Word" + " word" * 30
    assert len(splitter.split(Document("d", title, "Short text.")).pieces) == 1
    assert splitter.whole_text(title, "Short text.") == expected
    assert splitter.whole_text("A short title", "Short text.") == "A short title\nShort text."
    assert splitter.whole_text(title, "") == title
