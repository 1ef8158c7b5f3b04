"""Fidelity against full passes of the transformers model, one text at a time, and its errors."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedModel

from llm2comp.analysis import Fidelity, measure_fidelity
from llm2comp.bundled_models import bundled_folder
from llm2comp.errors import BackboneError, SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.reading import set_reader
from tests.conftest import BACKBONE
from tests.training.tiny import text
from tests.word_encoder import WordEncoder

TEXTS = [text(1, 12), text(2, 20), text(3, 16)]


@pytest.fixture(scope="module")
def model(make_model: Callable[..., LLM2Comp]) -> LLM2Comp:
    return make_model(max_length=300)


@pytest.fixture(scope="module")
def plain() -> PreTrainedModel:
    """The backbone as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(BACKBONE, dtype=torch.float32, attn_implementation="eager")


def ids(model: LLM2Comp, content: str) -> list[int]:
    return [model.encoder.beginning, *model.tokenizer.encode(content, add_special_tokens=False)]


@torch.no_grad()
def loss(plain: PreTrainedModel, before: Tensor, after: list[int]) -> float:
    """Mean cross-entropy of the tokens after input embeddings (tokens, hidden), by one pass of the whole model."""
    inputs = torch.cat([before, plain.get_input_embeddings()(torch.tensor(after))])
    logits = plain(inputs_embeds=inputs[None]).logits[0, len(before) - 1 : -1]
    return float(functional.cross_entropy(logits, torch.tensor(after)))


@torch.no_grad()
def expected(model: LLM2Comp, plain: PreTrainedModel, context: list[int], after: list[int]) -> tuple[float, ...]:
    text = plain.get_input_embeddings()(torch.tensor(context))
    memory = model.encoder.memory_states(torch.tensor(context), [len(context)])[0]
    return tuple(loss(plain, before, after) for before in (text[:1], torch.cat([text[:1], memory]), text))


def losses(fidelity: Fidelity) -> tuple[float, ...]:
    return fidelity.nothing, fidelity.memory, fidelity.text


class TestAgainstFullPasses:
    def test_reconstruction(self, model: LLM2Comp, plain: PreTrainedModel) -> None:
        for content, measured in zip(TEXTS, measure_fidelity(model, TEXTS), strict=True):
            tokens = ids(model, content)
            nothing, memory, whole = expected(model, plain, tokens, tokens[1:])
            assert losses(measured) == pytest.approx((nothing, memory, whole), abs=1e-5)
            assert measured.share == (
                None if nothing <= whole else pytest.approx((nothing - memory) / (nothing - whole), abs=1e-3)
            )
            assert (measured.tokens, measured.cut) == (len(tokens) - 1, False)

    def test_continuation_of_a_text_cut_in_the_middle(self, model: LLM2Comp, plain: PreTrainedModel) -> None:
        for content, measured in zip(TEXTS, measure_fidelity(model, TEXTS, "continuation"), strict=True):
            tokens = ids(model, content)
            half = len(tokens) // 2
            assert losses(measured) == pytest.approx(expected(model, plain, tokens[:half], tokens[half:]), abs=1e-5)

    def test_continuation_by_a_given_text(self, model: LLM2Comp, plain: PreTrainedModel) -> None:
        after = [text(10 + number, 6) for number in range(3)]
        measured = measure_fidelity(model, TEXTS, "continuation", following=after)
        for content, following, fidelity in zip(TEXTS, after, measured, strict=True):
            reference = expected(model, plain, ids(model, content), ids(model, following)[1:])
            assert losses(fidelity) == pytest.approx(reference, abs=1e-5)

    def test_a_text_beyond_the_limit_is_read_in_part_and_says_so(self, model: LLM2Comp, plain: PreTrainedModel) -> None:
        [measured] = measure_fidelity(model, [TEXTS[1]], max_tokens=9)
        tokens = ids(model, TEXTS[1])[:9]
        assert losses(measured) == pytest.approx(expected(model, plain, tokens, tokens[1:]), abs=1e-5)
        assert (measured.tokens, measured.cut) == (8, True)
        [long] = measure_fidelity(model, [text(4, 200)])
        assert (long.tokens, long.cut) == (300 - 4 - 1, True)  # the model's longest, less memory and first token

    def test_many_texts_are_measured_as_each_alone(self, model: LLM2Comp, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("llm2comp.analysis.fidelity._TEXTS_AT_ONCE", 3)
        monkeypatch.setitem(__import__("llm2comp.reading.frozen_reader", fromlist="_")._TOKENS_PER_PASS, "cpu", 100)
        texts = [text(number, 5 + number % 7) for number in range(10)]
        together = measure_fidelity(model, texts)
        for content, measured in zip(texts, together, strict=True):
            [alone] = measure_fidelity(model, [content])
            assert losses(measured) == pytest.approx(losses(alone), abs=1e-5)
        assert together == measure_fidelity(model, texts)


def test_shares_by_hand() -> None:
    assert Fidelity(5.0, 4.0, 3.0, 10).share == 0.5
    assert Fidelity(5.0, 6.0, 3.0, 10).share == -0.5
    assert Fidelity(5.0, 2.0, 3.0, 10).share == 1.5
    assert Fidelity(5.0, 4.0, 5.0, 10).share is None
    assert Fidelity(5.0, 4.0, 6.0, 10).share is None


class TestReader:
    def test_one_given_reads(self, make_model: Callable[..., LLM2Comp], plain: PreTrainedModel) -> None:
        model = make_model(adapter=None, max_length=300)
        model.changed("compression:reconstruction")
        vectors = model.encode_document(TEXTS)
        with pytest.raises(SettingsError, match=r"no language model reads.*all its weights were trained.*--reader"):
            measure_fidelity(model, TEXTS)
        set_reader(model, str(BACKBONE))
        np.testing.assert_array_equal(model.encode_document(TEXTS), vectors)
        with torch.no_grad():
            for weight in model.encoder.backbone.language_model.parameters():
                weight.mul_(1.1)  # training goes on; the reader stays
        tokens = ids(model, TEXTS[0])
        [measured] = measure_fidelity(model, TEXTS[:1])
        assert losses(measured) == pytest.approx(expected(model, plain, tokens, tokens[1:]), abs=1e-5)

    def test_of_a_model_of_the_first_layers(
        self, make_model: Callable[..., LLM2Comp], plain: PreTrainedModel, tmp_path: Any
    ) -> None:
        import llm2comp

        make_model(layers=1, max_length=300).save(tmp_path / "first")
        model = llm2comp.load(tmp_path / "first", device="cpu", dtype="float32")
        with pytest.raises(SettingsError, match="only the first 1 layers"):
            measure_fidelity(model, TEXTS)
        set_reader(model, str(BACKBONE))
        tokens = ids(model, TEXTS[0])
        [measured] = measure_fidelity(model, TEXTS[:1])
        assert losses(measured) == pytest.approx(expected(model, plain, tokens, tokens[1:]), abs=1e-5)

    def test_of_a_trimmed_vocabulary_is_trimmed_too(
        self, make_model: Callable[..., LLM2Comp], plain: PreTrainedModel
    ) -> None:
        model = make_model()
        whole = ids(model, TEXTS[0])
        kept = sorted({*whole, *range(len(model.tokenizer) - 40), *model.tokenizer.added_tokens_decoder})
        model.encoder.trim_vocabulary(kept)
        set_reader(model, str(BACKBONE))
        assert model.encoder.backbone.has_other_reader
        [measured] = measure_fidelity(model, TEXTS[:1])
        assert measured.tokens == len(ids(model, TEXTS[0])) - 1

    def test_one_that_does_not_fit_is_named(self, make_model: Callable[..., LLM2Comp]) -> None:
        with pytest.raises(BackboneError, match="the reader's width is 256, the encoder's 64: give the"):
            set_reader(make_model(), str(bundled_folder("llm2comp-tiny") / "backbone"))

    def test_one_of_another_vocabulary_does_not_become_the_reader(
        self, make_model: Callable[..., LLM2Comp], tmp_path: Path
    ) -> None:
        shutil.copytree(BACKBONE, tmp_path / "other")
        file = tmp_path / "other" / "tokenizer.json"
        content = json.loads(file.read_text())
        words = content["model"]["vocab"]
        one, other = sorted(words)[-2:]
        words[one], words[other] = words[other], words[one]
        file.write_text(json.dumps(content))
        model = make_model()
        with pytest.raises(SettingsError, match="has another vocabulary than the encoder"):
            set_reader(model, str(tmp_path / "other"))
        assert not model.encoder.backbone.has_other_reader


class TestMistakes:
    def test_one_text_is_not_read_letter_by_letter(self, model: LLM2Comp) -> None:
        with pytest.raises(SettingsError, match=r"texts is a string, expected a list: \['Stone"):
            measure_fidelity(model, "Stone and water.")
        with pytest.raises(SettingsError, match="following is a string"):
            measure_fidelity(model, TEXTS[:1], "continuation", following="S")
        with pytest.raises(SettingsError, match=r"texts\[1\] is NoneType, expected a text"):
            measure_fidelity(model, [TEXTS[0], None])  # type: ignore[list-item]

    def test_losses_that_are_not_finite(self, make_model: Callable[..., LLM2Comp]) -> None:
        model = make_model()
        model.encoder.memory.data.fill_(torch.nan)
        with pytest.raises(SettingsError, match="a loss of the reader is not finite: load the model with dtype"):
            measure_fidelity(model, TEXTS[:1])

    @pytest.mark.parametrize("most", [1, 0, -3])
    def test_a_length_without_a_token(self, model: LLM2Comp, most: int) -> None:
        with pytest.raises(SettingsError, match=f"max_tokens is {most}, expected at least 2"):
            measure_fidelity(model, TEXTS[:1], max_tokens=most)

    def test_texts_too_short(self, model: LLM2Comp) -> None:
        with pytest.raises(SettingsError, match=r"text 1: it, or what follows it, has no tokens"):
            measure_fidelity(model, [TEXTS[0], ""])
        with pytest.raises(SettingsError, match=r"text 0: \d+ tokens are too few to be cut in two: give at least 20"):
            measure_fidelity(model, ["one"], "continuation")

    def test_arguments(self, model: LLM2Comp) -> None:
        with pytest.raises(SettingsError, match="measure is 'words', expected one of reconstruction, continuation"):
            measure_fidelity(model, TEXTS, "words")  # type: ignore[arg-type]
        with pytest.raises(SettingsError, match="3 texts, and 1 that follow them"):
            measure_fidelity(model, TEXTS, "continuation", following=["a"])
        with pytest.raises(SettingsError, match="only the measure continuation reads"):
            measure_fidelity(model, TEXTS, following=TEXTS)
        with pytest.raises(SettingsError, match="WordEncoder has no memory tokens"):
            measure_fidelity(WordEncoder(), TEXTS)  # type: ignore[arg-type]
