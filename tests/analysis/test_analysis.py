"""Figures of embeddings whose figures are known, and readings from memory against stage 1 and the published code."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, PreTrainedModel

from llm2comp.analysis import (
    alignment,
    analyze_vectors,
    describe_embeddings,
    entropy_rank,
    mean_cosine,
    memory_similarity,
    participation_ratio,
    read_held_out,
    singular_values,
    split_texts,
    uniformity,
    write_samples,
)
from llm2comp.analysis.reading import BEGINNINGS, Share, Split, pooled_share
from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.backbone.backbone import Backbone, BackboneReference
from llm2comp.errors import BackboneError, SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.reading.frozen_reader import find_own_reader
from llm2comp.training.compression import compression_loss, context_gain
from tests.conftest import BACKBONE
from tests.test_golden import CASES
from tests.test_golden import model as golden_model  # noqa: F401  a fixture
from tests.test_model import TEXTS
from tests.word_encoder import WordEncoder

SPLITS = [
    Split([1, *range(40, 52)], list(range(90, 101))),
    Split([1, *range(60, 90)], list(range(20, 34))),
    Split([1, *range(30, 40)], list(range(70, 100))),
]


@pytest.fixture(scope="module")
def plain() -> PreTrainedModel:
    """The backbone as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(BACKBONE, dtype=torch.float32, attn_implementation="eager")


def gaussian(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns))


class TestEffectiveDimension:
    @pytest.mark.parametrize("dimension", [4, 16])
    def test_of_equal_variances_is_their_number(self, dimension: int) -> None:
        values = singular_values(gaussian(20_000, dimension), centred=True)
        assert participation_ratio(values) == pytest.approx(dimension, rel=0.01)
        assert entropy_rank(values) == pytest.approx(dimension, rel=0.01)

    def test_of_few_texts_is_what_is_said_of_them(self) -> None:
        ratio = participation_ratio(singular_values(gaussian(400, 100), centred=True))
        assert ratio == pytest.approx(400 * 100 / (400 + 100), rel=0.02)

    def test_of_rank_one_is_one(self) -> None:
        line = np.outer(np.linspace(-1, 2, 50), gaussian(1, 8)[0])
        for centred in (True, False):
            values = singular_values(line, centred=centred)
            assert participation_ratio(values) == pytest.approx(1)
            assert entropy_rank(values) == pytest.approx(1)
            assert (values[1:] == 0).all()

    def test_of_an_identity_is_its_size(self) -> None:
        values = singular_values(np.eye(7), centred=False)
        assert entropy_rank(values) == pytest.approx(7)
        assert participation_ratio(values) == pytest.approx(7)

    def test_of_given_values(self) -> None:
        assert participation_ratio(np.array([3.0, 1.0])) == pytest.approx((9 + 1) ** 2 / (81 + 1))
        entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
        assert entropy_rank(np.array([3.0, 1.0, 0.0])) == pytest.approx(math.exp(entropy))

    def test_of_one_vector_for_every_text_is_zero(self) -> None:
        collapsed = np.tile(gaussian(1, 16).astype(np.float32), (30, 1))
        values = singular_values(collapsed, centred=True)
        assert participation_ratio(values) == entropy_rank(values) == 0

    def test_centring_takes_the_mean_off(self) -> None:
        vectors = gaussian(200, 6)
        shifted = vectors + 100
        np.testing.assert_allclose(
            singular_values(shifted, centred=True), singular_values(vectors, centred=True), rtol=1e-6
        )
        assert participation_ratio(singular_values(shifted, centred=False)) == pytest.approx(1, abs=1e-3)
        covariance = np.linalg.eigvalsh(np.cov(vectors.T, bias=True))[::-1]
        np.testing.assert_allclose(singular_values(vectors, centred=True) ** 2 / 200, covariance, rtol=1e-9)


class TestPairs:
    def test_uniformity_by_hand(self) -> None:
        opposite = np.array([[2.0, 0.0], [-5.0, 0.0]])  # of unit length, at distance 2
        assert uniformity(opposite) == pytest.approx(-8)
        right = np.array([[1.0, 0.0], [0.0, 1.0]])
        assert uniformity(right) == pytest.approx(-4)
        assert uniformity(right, t=1) == pytest.approx(-2)
        assert uniformity(np.ones((5, 3))) == pytest.approx(0)

    def test_uniformity_and_cosine_against_loops_over_several_blocks(self) -> None:
        vectors = gaussian(1100, 3)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        first, second = np.triu_indices(len(unit), 1)
        expected = np.log(np.exp(-2 * ((unit[first] - unit[second]) ** 2).sum(1)).mean())
        assert uniformity(vectors) == pytest.approx(expected)
        assert mean_cosine(vectors) == pytest.approx((unit[first] * unit[second]).sum(1).mean())

    def test_uniformity_of_a_sphere(self) -> None:
        assert uniformity(gaussian(1500, 400)) == pytest.approx(-4 + 8 / 400, abs=0.01)

    def test_alignment_by_hand(self) -> None:
        x, y = np.array([[3.0, 0.0], [0.0, 1.0]]), np.array([[7.0, 0.0], [2.0, 0.0]])
        assert alignment(x, y) == pytest.approx((0 + 2) / 2)
        with pytest.raises(SettingsError, match=r"\(2, 2\) and \(1, 2\)"):
            alignment(x, y[:1])

    def test_a_row_of_zeros_stays(self) -> None:
        with_zeros = np.array([[0.0, 0.0], [1.0, 0.0]])
        assert mean_cosine(with_zeros) == 0
        assert uniformity(with_zeros) == pytest.approx(-2)

    def test_values_that_are_not_finite_are_named(self) -> None:
        vectors = gaussian(5, 3)
        vectors[3, 1] = np.nan
        with pytest.raises(SettingsError, match="text 3 holds a value that is not finite"):
            analyze_vectors(vectors)
        with pytest.raises(SettingsError, match="at least 2 texts"):
            analyze_vectors(gaussian(1, 3))


def test_memory_similarity_against_a_loop() -> None:
    memory = np.random.default_rng(1).standard_normal((6, 3, 5))
    similarity = memory_similarity(memory)
    for first, second in itertools.product(range(3), repeat=2):
        cosines = [
            text[first] @ text[second] / np.linalg.norm(text[first]) / np.linalg.norm(text[second]) for text in memory
        ]
        assert similarity[first, second] == pytest.approx(np.mean(cosines))


class TestDescription:
    def test_of_one_of_ours(self, model: LLM2Comp) -> None:
        numbers = describe_embeddings(model, TEXTS, pairs=[("a question", "an answer"), ("one more", "the other")])
        assert {name: numbers[name] for name in analyze_vectors(gaussian(2, 2))._fields} == pytest.approx(
            analyze_vectors(model.encode_document(TEXTS))._asdict(), rel=1e-4
        )
        similarity = memory_similarity(model.encode_memory(TEXTS))
        np.testing.assert_allclose(numbers["memory_similarity"], similarity, atol=1e-5)
        assert numbers["memory_tokens"] == 4
        assert numbers["memory_similarity_mean"] == pytest.approx(similarity[~np.eye(4, dtype=bool)].mean(), abs=1e-5)
        queries, positives = (
            model.encode_query(["a question", "one more"]),
            model.encode_document(["an answer", "the other"]),
        )
        assert numbers["alignment"] == pytest.approx(float(((queries - positives) ** 2).sum(1).mean()), rel=1e-4)

    def test_of_one_memory_token(self, make_model: Callable[..., LLM2Comp]) -> None:
        numbers = describe_embeddings(make_model(memory_tokens=1), TEXTS)
        assert numbers["memory_similarity"] == [[pytest.approx(1)]]
        assert numbers["memory_similarity_mean"] is None

    def test_of_another_encoder(self) -> None:
        numbers = describe_embeddings(WordEncoder(8), ["a b", "c", "d e f"])
        assert (numbers["texts"], numbers["dimension"]) == (3, 8)
        assert not {"memory_tokens", "memory_similarity", "alignment"} & numbers.keys()
        with pytest.raises(SettingsError, match="1 text to analyse; give at least 2"):
            describe_embeddings(WordEncoder(8), ["a b"])

    def test_of_a_plain_model(self, exported_model: Any, model: LLM2Comp) -> None:
        plain = SentenceTransformer(str(exported_model), device="cpu")
        assert describe_embeddings(plain, TEXTS)["uniformity"] == pytest.approx(
            describe_embeddings(model, TEXTS)["uniformity"], rel=1e-4
        )


class TestReading:
    def test_is_that_of_the_published_code(self, golden_model: LLM2Comp) -> None:  # noqa: F811
        case = CASES["compression"]
        split = Split(case["context_ids"][0], case["continuation_ids"][0])
        reading = read_held_out(golden_model.encoder, [split, split])
        assert reading.nll["memory"] == pytest.approx(case["continuation"]["loss"], abs=1e-5)
        assert reading.ctkd["memory"] == pytest.approx(case["distillation"]["loss"], abs=1e-5)
        assert reading.nll["another text"] == reading.nll["memory"]

    def test_is_that_of_stage_1(self, model: LLM2Comp) -> None:
        reading = read_held_out(model.encoder, SPLITS)
        parts = [split.context for split in SPLITS], [split.continuation for split in SPLITS]
        with torch.no_grad():
            assert reading.nll["memory"] == pytest.approx(
                float(compression_loss(model.encoder, *parts, "continuation")), abs=1e-5
            )
            assert reading.ctkd["memory"] == pytest.approx(
                float(compression_loss(model.encoder, *parts, "distillation")), abs=1e-5
            )
            shifted = [parts[0][-1], *parts[0][:-1]]
            assert reading.nll["another text"] == pytest.approx(
                float(compression_loss(model.encoder, shifted, parts[1], "continuation")), abs=1e-5
            )
        gain = context_gain(model.encoder, [split._asdict() for split in SPLITS])
        assert reading.nll["whole text"] == pytest.approx(gain.loss_with, abs=1e-5)
        assert reading.nll["nothing"] == pytest.approx(gain.loss_without, abs=1e-5)
        assert reading.ctkd["whole text"] == 0
        assert (reading.texts, reading.tokens) == (3, 55)

    @torch.no_grad()
    def test_divergence_from_nothing_against_plain_logits(self, model: LLM2Comp, plain: PreTrainedModel) -> None:
        reading = read_held_out(model.encoder, SPLITS)
        divergences = []
        for context, continuation in SPLITS:
            whole, nothing = (
                plain(torch.tensor([[*before, *continuation]])).logits[0, len(before) - 1 :].double().log_softmax(-1)
                for before in (context, context[:1])
            )
            divergences.append(float((whole.exp() * (whole - nothing)).sum(-1).mean()))
        assert reading.ctkd["nothing"] == pytest.approx(np.mean(divergences), abs=1e-5)

    def test_shares(self) -> None:
        kept, whole = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])
        assert pooled_share(kept, whole) == pytest.approx(Share(0.5, 0.5, 0.5))
        spread = pooled_share(np.array([0.0, 1.0] * 50), np.ones(100))
        assert spread is not None
        assert spread.value == 0.5
        assert (spread.low, spread.high) == pytest.approx((0.4, 0.6), abs=0.02)  # 1.96 * 0.5 / sqrt(100)
        assert pooled_share(kept, -whole) is None
        assert pooled_share(kept, np.array([6.0, -1.0, -1.0])) is None  # in some resamples the context is worth nothing

    @torch.no_grad()
    def test_what_is_written_is_what_generate_writes(self, model: LLM2Comp, plain: PreTrainedModel) -> None:
        memory = model.encoder.memory_states(torch.tensor(SPLITS[1].context), [len(SPLITS[1].context)])[0]
        embed = plain.get_input_embeddings()
        beginnings = {
            "nothing": embed(torch.tensor([1])),
            "memory": torch.cat([embed(torch.tensor([1])), memory]),
            "whole text": embed(torch.tensor(SPLITS[1].context)),
        }
        samples = write_samples(model.encoder, SPLITS, count=2, tokens=6)
        assert len(samples) == 2
        assert set(samples[1].written) == set(BEGINNINGS)
        for name, before in beginnings.items():
            mask = torch.ones(1, len(before), dtype=torch.long)
            ids = plain.generate(
                inputs_embeds=before[None], attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=0
            )[0]
            assert samples[1].written[name] == model.encoder.tokenizer.decode(ids, skip_special_tokens=True), name

    def test_texts_are_cut_within_their_margins(self, model: LLM2Comp) -> None:
        texts = ["short", *(" ".join(f"word{number}" for number in range(length)) for length in (9, 12, 40))]
        splits = split_texts(model.encoder, texts, limit=10, max_tokens=30, seed=1)
        ids = [tokens[:30] for tokens in model.encoder.token_ids(texts)]
        assert sorted(split.context + split.continuation for split in splits) == sorted(
            tokens for tokens in ids if len(tokens) >= 21
        )
        assert splits
        assert all(min(len(split.context), len(split.continuation)) >= 10 for split in splits)
        assert splits == split_texts(model.encoder, texts, limit=10, max_tokens=30, seed=1)
        assert len(split_texts(model.encoder, texts, limit=1, max_tokens=30, seed=1)) == 1

    def test_texts_are_drawn_from_the_whole_corpus_and_their_neighbours_are_not_its_neighbours(
        self, model: LLM2Comp
    ) -> None:
        texts = [" ".join(f"word{number}" for number in range(row, row + 12)) for row in range(200)]
        row_of = {tuple(ids[:30]): row for row, ids in enumerate(model.encoder.token_ids(texts))}
        splits = split_texts(model.encoder, texts, limit=40, max_tokens=30, seed=1)
        rows = [row_of[tuple(split.context + split.continuation)] for split in splits]
        assert len(set(rows)) == 40
        assert min(rows) < 50
        assert max(rows) > 150
        assert sum(abs(first - second) == 1 for first, second in itertools.pairwise(rows)) < 5


class TestReader:
    def test_who_has_one(self, make_model: Callable[..., LLM2Comp]) -> None:
        with_adapter, whole = make_model(), make_model(adapter=None)
        assert find_own_reader(with_adapter) == find_own_reader(whole) == ""
        for trained in (with_adapter, whole):
            trained.changed("compression:distillation")
        assert find_own_reader(with_adapter) == ""
        assert "all its weights were trained" in find_own_reader(whole)
        whole.encoder.backbone.keep_frozen_copy()
        assert find_own_reader(whole) == ""
        with_adapter.changed("unsupervised")
        assert "adapter of an earlier stage" in find_own_reader(with_adapter)
        with_adapter.encoder.backbone.reference = BackboneReference("owner/name", "0" * 40)
        assert find_own_reader(with_adapter) == ""

    def test_one_given_reads(self, make_model: Callable[..., LLM2Comp]) -> None:
        whole, expected = make_model(adapter=None), make_model(adapter=None)
        expected.encoder.backbone.keep_frozen_copy()
        whole.encoder.backbone.read_with(Backbone.load(BACKBONE))
        for model in (whole, expected):
            with torch.no_grad():
                for weight in model.encoder.backbone.parameters():
                    weight.mul_(1.1)
        assert read_held_out(whole.encoder, SPLITS) == read_held_out(expected.encoder, SPLITS)
        assert (
            read_held_out(whole.encoder, SPLITS).nll["nothing"]
            == read_held_out(make_model().encoder, SPLITS).nll["nothing"]
        )

    def test_one_of_another_shape_is_refused(self, make_model: Callable[..., LLM2Comp]) -> None:
        from tests.families import build

        with pytest.raises(
            BackboneError,
            match="the reader's (width|vocabulary|longest text) is [0-9]+, the encoder's [0-9]+: give the language",
        ):
            make_model().encoder.backbone.read_with(Backbone(build("llama")))
        with pytest.raises(BackboneError, match="the reader's attention is padded, the encoder's packed"):
            make_model(adapter=AdapterSettings(rank=2)).encoder.backbone.read_with(
                Backbone.load(BACKBONE, attention="padded")
            )
