"""Tokenisation, truncation, and memory states that do not depend on the other texts or their order."""

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from llm2comp import encoder as encoder_module
from llm2comp.encoder import MemoryEncoder
from llm2comp.errors import BackboneError, SettingsError
from llm2comp.model import LLM2Comp

ROOM = 64 - 4 - 1
"""Room for text in the fixture's 64 tokens, beside 4 memory tokens and the beginning token."""


@pytest.fixture(scope="module")
def encoder(model: LLM2Comp) -> MemoryEncoder:
    return model.encoder


def by_transformers(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


TEXTS = {
    "plain": "A short sentence, with punctuation.",
    "empty": "",
    "blank": " \n\t ",
    "emoji": "tea 🍵 or 👩‍👩‍👧‍👦 or 🇫🇷",
    "control": "a\x00b\x07c\x1b[31m\r\nd\u2028e\ufeff",
    "right to left": "שלום עולם مرحبا بالعالم",
    "combining": "e\u0301\u0323 Å ﬁ ①",
    "special": "<s> and </s> and <|endoftext|> and <unk>",
    "memory": "<|mem_0|> [MEM] <memory>",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_tokens_are_the_tokenizers_after_the_beginning(encoder: MemoryEncoder, text: str) -> None:
    (ids,) = encoder.token_ids([text])
    assert ids == [encoder.beginning, *by_transformers(encoder.tokenizer, text)[:ROOM]]


def test_special_token_strings_are_text(encoder: MemoryEncoder) -> None:
    """`<s>` is token 1 of this tokenizer; it comes first and nowhere else."""
    special = {encoder.tokenizer.convert_tokens_to_ids(token) for token in encoder.tokenizer.all_special_tokens}
    assert encoder.beginning in special
    assert (
        encoder.tokenizer("a<s>b", add_special_tokens=False)["input_ids"].count(encoder.beginning) == 1
    )  # so it would be, unguarded
    for text in (TEXTS["special"], "<s>", "</s>", *encoder.tokenizer.all_special_tokens):
        (ids,) = encoder.token_ids([text])
        assert special.isdisjoint(ids[1:])
        assert len(ids) > 2


def test_half_a_surrogate_pair_becomes_the_replacement_character(encoder: MemoryEncoder) -> None:
    assert encoder.token_ids(["a\ud83db"]) == encoder.token_ids(["a\ufffdb"])
    assert encoder.token_ids(["\ud83c\udf75"]) == encoder.token_ids(["🍵"])


LONG = {
    "words": "word " * 30_000,
    "one word": "x" * 100_000,
    "blanks": " " * 100_000,
    "lines": "\n" * 50_000 + "end",
    "umlauts": "Bäume über Bächen; " * 2000,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_long_text_keeps_its_beginning(encoder: MemoryEncoder, text: str) -> None:
    encoder.pop_truncated()
    (ids,) = encoder.token_ids([text])
    assert ids == [encoder.beginning, *by_transformers(encoder.tokenizer, text)[:ROOM]]
    assert encoder.pop_truncated() == 1


def test_a_text_of_long_tokens_is_read_on(encoder: MemoryEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an estimate of one character per token, the first cut of the text is too short."""
    text = "the memory of a text " * 200
    expected = encoder.token_ids([text])
    monkeypatch.setattr(encoder_module, "_CHARACTERS_PER_TOKEN", 1)
    assert encoder.token_ids([text]) == expected
    assert len(expected[0]) == ROOM + 1


def test_only_the_beginning_of_a_long_text_is_tokenised(
    encoder: MemoryEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    tokenize = encoder.whole_ids

    def watched(texts: list[str]) -> list[list[int]]:
        seen.append(sum(map(len, texts)))
        return tokenize(texts)

    monkeypatch.setattr(encoder, "whole_ids", watched)
    encoder.token_ids(["word " * 200_000, "short"])
    assert sum(seen) < 10_000


def test_cut_and_counted(encoder: MemoryEncoder) -> None:
    encoder.pop_truncated()
    just, over = "a" * ROOM, "b " * ROOM
    assert len(by_transformers(encoder.tokenizer, just)) <= ROOM < len(by_transformers(encoder.tokenizer, over))
    ids = encoder.token_ids([just, over, "short"])
    assert [len(row) for row in ids] == [
        1 + len(by_transformers(encoder.tokenizer, just)),
        1 + ROOM,
        1 + len(by_transformers(encoder.tokenizer, "short")),
    ]
    other: list[int] = []
    thread = threading.Thread(target=lambda: other.append(encoder.pop_truncated()))
    thread.start()
    thread.join()
    assert other == [0]
    assert encoder.pop_truncated() == 1
    assert encoder.pop_truncated() == 0


def test_a_lower_limit_for_a_task(make_model: Callable[..., LLM2Comp]) -> None:
    encoder = make_model().encoder
    encoder.task_limits = {"query": 10}
    text = "many words in a row, more than ten of them"
    lengths = {
        task: encoder.preprocess([text], task=task)["attention_mask"].sum().item()
        for task in ("query", "document", None)
    }
    assert lengths["query"] == 10 - 4
    assert lengths["document"] == lengths[None] > 6


def test_features_are_padded_on_the_right(encoder: MemoryEncoder) -> None:
    features = encoder.preprocess(["a longer text", "b"], prompt="find: ")
    rows = encoder.token_ids(["find: a longer text", "find: b"])
    assert features["attention_mask"].tolist() == [
        [1] * len(rows[0]),
        [1] * len(rows[1]) + [0] * (len(rows[0]) - len(rows[1])),
    ]
    for row, ids in zip(features["input_ids"].tolist(), rows, strict=True):
        assert row[: len(ids)] == ids


def states_of(encoder: MemoryEncoder, texts: list[str]) -> Tensor:
    with torch.no_grad():
        features = encoder(encoder.preprocess(texts))
    assert features["attention_mask"].tolist() == [[1] * encoder.memory_tokens] * len(texts)
    states: Tensor = features["token_embeddings"]
    return states


def test_states_stand_at_the_memory_tokens_behind_each_text(encoder: MemoryEncoder) -> None:
    """Computed by hand: embeddings of the text, then the memory vectors, one text at a time."""
    texts = ["a first text", "another one that is longer", ""]
    by_hand = []
    with torch.no_grad():
        for ids in encoder.token_ids(texts):
            embedded = torch.cat([encoder.backbone.embed(torch.tensor(ids)), encoder.memory])
            by_hand.append(encoder.backbone.encode(embedded, [len(embedded)])[-4:])
    torch.testing.assert_close(states_of(encoder, texts), torch.stack(by_hand), atol=1e-5, rtol=1e-5)


def test_neither_company_nor_order_nor_passes_matter(encoder: MemoryEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{'word ' * length}{length}" for length in (9, 1, 30, 4, 0, 17, 9)]
    together = states_of(encoder, texts)
    alone = torch.cat([states_of(encoder, [text]) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(states_of(encoder, texts[::-1]).flip(0), together, atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(encoder_module, "_TOKENS_PER_PASS", {"cpu": 20})
    torch.testing.assert_close(states_of(encoder, texts), together, atol=1e-5, rtol=1e-5)


def test_passes_keep_to_their_tokens(make_model: Callable[..., LLM2Comp], monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make_model().encoder
    monkeypatch.setattr(encoder_module, "_TOKENS_PER_PASS", {"cpu": 20})
    lengths = [3, 30, 5, 1, 8]
    with torch.no_grad():
        passes = list(encoder._passes(lengths, 1))
    assert passes == [[1], [4], [2, 0], [3]]  # of 34, 12, 9 + 7 and 5 tokens, memory tokens included
    assert len(list(encoder._passes(lengths, 1))) == 1  # gradients need one graph
    encoder.train()
    with torch.no_grad():  # GradCache runs both ways with one random state, and expects one dropout
        assert len(list(encoder._passes(lengths, 1))) == 1


@pytest.mark.parametrize("at_once", [1, 2, 3, 8])
def test_passes_side_by_side_end_together(make_model: Callable[..., LLM2Comp], at_once: int) -> None:
    encoder = make_model().encoder
    lengths = [(7 * row) % 50 + 1 for row in range(1000)]
    with torch.no_grad():
        passes = list(encoder._passes(lengths, at_once))
    tokens = [sum(lengths[row] + 4 for row in rows) for rows in passes]
    assert sorted(row for rows in passes for row in rows) == list(range(1000))
    assert max(tokens) <= 2048
    if at_once > 1:
        assert len(passes) % at_once == 0
        assert max(tokens) - min(tokens) <= 2 * 54  # the longest text, half of it at either end
    with torch.no_grad():
        assert len(list(encoder._passes([3, 4], at_once))) == 1  # a few tokens are not divided


def test_maximum_length_is_checked(make_model: Callable[..., LLM2Comp]) -> None:
    encoder = make_model().encoder
    encoder.max_seq_length = 32
    assert len(encoder.token_ids(["word " * 100])[0]) == 32 - 4
    for tokens in (5, 0, -1, 2000):
        with pytest.raises(
            SettingsError,
            match=f"a maximum length of {tokens} tokens: give between 6 .4 memory tokens and a text. and 1024",
        ):
            encoder.max_seq_length = tokens
    assert encoder.max_seq_length == 32


def test_a_tokenizer_that_does_not_go_with_the_model(
    encoder: MemoryEncoder, make_model: Callable[..., LLM2Comp]
) -> None:
    other = make_model().encoder
    other.backbone.language_model.resize_token_embeddings(40, mean_resizing=False)
    with pytest.raises(
        BackboneError, match=r"the tokenizer has \d+ tokens, LlamaForCausalLM knows 40: they do not belong together"
    ):
        MemoryEncoder(other.backbone, encoder.tokenizer, other.memory.detach(), max_length=64)


def test_a_text_begins_with_what_the_model_or_tokenizer_names(make_model: Callable[..., LLM2Comp]) -> None:
    parts = make_model().encoder
    config, tokenizer = parts.backbone.language_model.config, parts.tokenizer

    def beginning() -> int:
        return MemoryEncoder(parts.backbone, tokenizer, parts.memory.detach(), max_length=64).beginning

    assert beginning() == tokenizer.bos_token_id == 1
    tokenizer.bos_token = None
    config.bos_token_id = 7
    assert beginning() == 7
    config.bos_token_id = None
    assert beginning() == tokenizer.eos_token_id
    tokenizer.eos_token = None
    with pytest.raises(BackboneError, match="names no token for a text to begin with"):
        beginning()


def test_threads_may_tokenise_at_once(encoder: MemoryEncoder) -> None:
    """Also while another thread switches settings of transformers' tokenizer."""
    texts = [f"{'word ' * number} <s>" for number in range(40)]
    expected = encoder.token_ids(texts)
    failures: list[object] = []

    def work() -> None:
        try:
            failures.extend(1 for _ in range(20) if encoder.token_ids(texts) != expected)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        encoder.tokenizer(
            "a b c <s>", padding="max_length" if encoder.tokenizer.pad_token else False, max_length=9, truncation=True
        )
        encoder.tokenizer("a b c <s>", split_special_tokens=True)
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize("text", [None, 3, b"bytes", ["list"]])
def test_what_is_no_text_is_named_by_position(encoder: MemoryEncoder, text: object) -> None:
    with pytest.raises(TypeError, match=f"input 1 of this batch is {type(text).__name__}"):
        encoder.preprocess(["fine", text])
