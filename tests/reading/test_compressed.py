"""Reading memory tokens in place of texts, against the language model run plainly by transformers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from llm2comp import LLM2Comp
from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.backbone.generation import share_weights
from llm2comp.errors import SettingsError
from llm2comp.reading import CompressedReader
from tests.training.tiny import BACKBONE, text

QUESTION = "What is it?"


@pytest.fixture(scope="module")
def model() -> LLM2Comp:
    """Two memory tokens and an adapter that is not zero, so that the encoder is not the reader."""
    made = LLM2Comp.from_backbone(
        BACKBONE, 2, adapter=AdapterSettings(rank=2, alpha=4, dropout=0.0), dtype="float32", device="cpu"
    )
    generator = torch.Generator().manual_seed(1)
    for name, weight in made.encoder.backbone.adapter_weights().items():
        if "lora_B" in name:
            weight.data.copy_(torch.randn(weight.shape, generator=generator))
    made.changed()
    return made


@pytest.fixture(scope="module")
def plain() -> torch.nn.Module:
    """The language model as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(BACKBONE, dtype=torch.float32).eval()


def _plain_input(plain: torch.nn.Module, model: LLM2Comp, before: list[torch.Tensor], after: str) -> torch.Tensor:
    """Input embeddings: the beginning token, what stands before, and a text, (tokens, hidden)."""
    embed = plain.get_input_embeddings()
    encoder = model.encoder
    ids = encoder.tokenizer(after, add_special_tokens=False)["input_ids"]
    return torch.cat([embed(torch.tensor([encoder.beginning])), *before, embed(torch.tensor(ids))])


def _likelihood(plain: torch.nn.Module, before: torch.Tensor, ids: list[int]) -> float:
    """Log-likelihood of token ids after input embeddings."""
    after = plain.get_input_embeddings()(torch.tensor(ids))
    logits = plain(inputs_embeds=torch.cat([before, after])[None]).logits[0]
    rows = logits.log_softmax(-1)[len(before) - 1 : -1]
    return float(rows[range(len(ids)), ids].sum())


@torch.no_grad()
def test_likelihoods_are_those_of_the_language_model_after_memory_texts_or_nothing(
    model: LLM2Comp, plain: torch.nn.Module
) -> None:
    reader = CompressedReader(model)
    documents = [text(1, 20), text(2, 9)]
    memories = list(torch.from_numpy(model.encode_memory(documents)))
    written = plain.get_input_embeddings()(
        torch.tensor(model.encoder.tokenizer("\n\n".join(documents), add_special_tokens=False)["input_ids"])
    )
    asked, target = f"\n\nQuestion: {QUESTION}\nAnswer:", " a small house"
    ids = model.encoder.tokenizer(target, add_special_tokens=False)["input_ids"]
    expected = [
        _likelihood(plain, _plain_input(plain, model, before, asked), ids)
        for before in (memories, memories[:1], [written], [])
    ]
    given = [
        *reader.log_likelihoods([QUESTION] * 2, [documents, documents[:1]], ["a small house"] * 2),
        *reader.log_likelihoods([QUESTION], [documents], ["a small house"], compressed=False),
        *reader.log_likelihoods([QUESTION], [[]], ["a small house"]),
    ]
    np.testing.assert_allclose(given, expected, rtol=1e-4)
    assert len({round(score, 3) for score in given}) == 4, "each context says something else"


@torch.no_grad()
def test_the_answer_is_what_the_language_model_would_write(model: LLM2Comp, plain: torch.nn.Module) -> None:
    reader = CompressedReader(model, max_new_tokens=6, stop=())
    documents = [text(1, 20), text(2, 9)]
    memories = reader.compress(documents)
    before = _plain_input(plain, model, list(torch.from_numpy(memories)), f"\n\nQuestion: {QUESTION}\nAnswer:")
    tokens: list[int] = []
    for _ in range(6):  # without a cache
        after = [plain.get_input_embeddings()(torch.tensor(tokens))] if tokens else []
        tokens.append(int(plain(inputs_embeds=torch.cat([before, *after])[None]).logits[0, -1].argmax()))
        if tokens[-1] == model.encoder.tokenizer.eos_token_id:
            break
    expected = model.encoder.tokenizer.decode(tokens, skip_special_tokens=True).strip()
    for given in (documents, memories):
        answer = reader.answer(QUESTION, given)
        assert answer.text == expected
        assert answer.tokens_read == len(before)


def test_an_answer_ends_at_a_stop(model: LLM2Comp) -> None:
    whole = CompressedReader(model, max_new_tokens=12, stop=()).answer(QUESTION, [text(1, 20)]).text
    stop = whole[len(whole) // 2]
    assert CompressedReader(model, max_new_tokens=12, stop=[stop]).answer(QUESTION, [text(1, 20)]).text == (
        whole[: whole.index(stop)].strip()
    )


def test_generation_takes_no_second_copy_of_the_weights(model: LLM2Comp) -> None:
    ours = {weight.data_ptr() for weight in model.encoder.backbone.weights().values()}
    assert all(weight.data_ptr() in ours for weight in share_weights(model.encoder.backbone.frozen_model).parameters())


def test_the_model_still_encodes_as_before(model: LLM2Comp) -> None:
    before = model.encode_document([text(3, 12)])
    CompressedReader(model, max_new_tokens=2).answer(QUESTION, [text(1, 20)])
    np.testing.assert_array_equal(model.encode_document([text(3, 12)]), before)


def test_mistakes(model: LLM2Comp) -> None:
    reader = CompressedReader(model)
    with pytest.raises(SettingsError, match=r"memory tokens of shape \(1, 3, 64\); this model makes 2 of"):
        reader.answer(QUESTION, np.zeros((1, 3, 64), np.float32))
    with pytest.raises(SettingsError, match="documents is one text; give a list of texts"):
        reader.answer(QUESTION, "a text")
    with pytest.raises(SettingsError, match=r"input has \d+ tokens .* give fewer documents"):
        reader.answer(QUESTION, ["word " * 3000], compressed=False)
    with pytest.raises(SettingsError, match="answer 1 is ' '; give a text that is not empty"):
        reader.log_likelihoods([QUESTION] * 2, [[], []], ["yes", " "])
    with pytest.raises(SettingsError, match="2 questions, 1 lists of documents and 2 answers"):
        reader.log_likelihoods([QUESTION] * 2, [[]], ["yes", "no"])
    with pytest.raises(SettingsError, match="give lists with one of each"):
        reader.log_likelihoods("a?", [[], []], ["yes", "no"])
    with pytest.raises(SettingsError, match=r"the answer up to \d+; .* a shorter answer"):
        reader.log_likelihoods([QUESTION], [[]], ["yes " * 3000])
    with pytest.raises(SettingsError, match=r"lacks \{question\}"):
        CompressedReader(model, template="Answer:")
    with pytest.raises(SettingsError, match="max_new_tokens is 0"):
        CompressedReader(model, max_new_tokens=0)
    for stop in ("\n", [""], [3]):
        with pytest.raises(SettingsError, match=r"stop is .*; give a list of texts that are not empty"):
            CompressedReader(model, stop=stop)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("documents", "what"),
    [
        ("", "documents is one text"),
        (None, "documents is NoneType"),
        ((each for each in ["a"]), "documents is generator"),
        (["a", None], "document 1 is NoneType"),
        ([np.zeros((2, 64), np.float32)], "document 0 is ndarray"),
    ],
)
@pytest.mark.parametrize("compressed", [True, False])
def test_what_is_no_list_of_texts_is_named(model: LLM2Comp, documents: Any, what: str, compressed: bool) -> None:
    with pytest.raises(SettingsError, match=f"^{what}; give a list of texts, or one array"):
        CompressedReader(model).answer(QUESTION, documents, compressed=compressed)


def test_one_text_is_not_compressed_letter_by_letter(model: LLM2Comp) -> None:
    with pytest.raises(SettingsError, match="documents is one text"):
        CompressedReader(model).compress("a text")


@pytest.mark.parametrize("question", ["", " ", None])
def test_an_empty_question_is_refused(model: LLM2Comp, question: Any) -> None:
    with pytest.raises(SettingsError, match="the question is"):
        CompressedReader(model).answer(question, [])


def test_memory_tokens_that_are_not_finite_are_refused(model: LLM2Comp) -> None:
    with pytest.raises(SettingsError, match="memory tokens are not finite"):
        CompressedReader(model).answer(QUESTION, np.full((1, 2, 64), np.nan, np.float32))


def test_memory_tokens_may_lie_in_a_mapped_file(model: LLM2Comp, tmp_path: Path) -> None:
    reader = CompressedReader(model, max_new_tokens=3)
    memories = reader.compress([text(1, 20)])
    np.save(tmp_path / "memories.npy", memories)
    mapped = np.load(tmp_path / "memories.npy", mmap_mode="r")
    assert reader.answer(QUESTION, mapped) == reader.answer(QUESTION, memories)  # warnings are errors


def test_a_model_without_its_language_model_is_refused() -> None:
    with pytest.raises(SettingsError, match="no language model reads this model's memory tokens: all its weights"):
        CompressedReader.load("llm2comp-tiny")


def test_a_model_from_files_reads(model: LLM2Comp, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    loaded = CompressedReader.load(tmp_path / "model", device="cpu")
    documents = [text(1, 20)]
    np.testing.assert_allclose(
        loaded.log_likelihoods([QUESTION], [documents], ["yes"]),
        CompressedReader(model).log_likelihoods([QUESTION], [documents], ["yes"]),
        rtol=1e-2,  # bfloat16 where the machine multiplies it
    )
