"""The MNTP baseline: loss and vectors equal those of plain transformers, masks are seeded, all three stages run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

import llm2comp
from llm2comp.errors import BackboneError, ModelFolderError, SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.training.metrics import read_metrics
from llm2comp.training.settings import ModelSettings
from llm2comp.training.splits import Splits
from llm2comp_benchmarks.systems.load import describe_model, load_model, system_names
from llm2comp_benchmarks.systems.mntp.encoder import TextMeanModel, load_text_mean, text_mean_of
from llm2comp_benchmarks.systems.mntp.objective import (
    Masked,
    MaskedTexts,
    MntpSettings,
    mask,
    mask_token_of,
    mntp_like,
    mntp_loss,
    train_masked,
)
from llm2comp_benchmarks.systems.mntp.train import save_untrained_text_mean, train_mntp, train_text_mean
from tests.training.tiny import (
    BACKBONE,
    LORA,
    compression,
    small_model,
    supervised,
    text,
    unsupervised,
    weights_of,
    write_corpus,
    write_pairs,
)

FULL = ModelSettings(adapter=None, max_length=96)
ADAPTED = ModelSettings(adapter=LORA, max_length=96)
TEXTS = ["A bridge of stone.", "river", "The old clock tower and the market by the north road in winter. " * 3]
QUERY = "find: "
MASK = 65
"""Id of "_" in the golden tokenizer."""


def mntp(corpus: Path, **fields: Any) -> MntpSettings:
    return mntp_like(compression(corpus), **fields)


@pytest.fixture(scope="module")
def plain() -> LlamaForCausalLM:
    """The golden backbone in plain transformers."""
    model: Any = AutoModelForCausalLM.from_pretrained(BACKBONE, dtype=torch.float32, attn_implementation="eager")
    return model


def reading_both_ways(plain: LlamaForCausalLM, tokens: list[int]) -> Tensor:
    """States (tokens, hidden) of one text with bidirectional attention, by an additive mask of zeros."""
    everyone_sees_all = torch.zeros(1, 1, len(tokens), len(tokens))
    states: Tensor = plain.model(input_ids=torch.tensor([tokens]), attention_mask=everyone_sees_all).last_hidden_state[
        0
    ]
    return states


def test_the_loss_is_that_of_the_masked_tokens_from_the_states_before_them(plain: LlamaForCausalLM) -> None:
    shown = [[1, 40, MASK, 42, 43, MASK], [1, MASK, 51], [1, *range(60, 80), MASK, 90]]
    places, targets = [[2, 5], [1], [4, 21]], [[41, 44], [50], [63, 80]]
    losses = [
        functional.cross_entropy(plain.lm_head(reading_both_ways(plain, tokens)[place - 1]), torch.tensor(target))
        for tokens, positions, hidden in zip(shown, places, targets, strict=True)
        for place, target in zip(positions, hidden, strict=True)
    ]
    expected = torch.stack(losses).mean()
    model = text_mean_of(BACKBONE, FULL, device="cpu")
    for chunk_rows in (2, 256):
        loss = mntp_loss(model.encoder, shown, places, targets, chunk_rows=chunk_rows)
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    expected.backward()
    loss.backward()
    gradients = {name: weight.grad for name, weight in plain.named_parameters()}
    for name, weight in model.encoder.backbone.language_model.named_parameters():
        expected_gradient = gradients[name]  # the output layer's among them
        assert float((weight.grad - expected_gradient).norm()) <= 1e-4 * float(expected_gradient.norm())
    plain.zero_grad()


def test_a_later_token_changes_what_is_predicted() -> None:
    encoder = text_mean_of(BACKBONE, FULL, device="cpu").encoder
    with torch.no_grad():
        one, other = (float(mntp_loss(encoder, [[1, 40, MASK, 42, last]], [[2]], [[41]])) for last in (43, 200))
    assert abs(one - other) > 1e-3


def test_chosen_tokens_are_a_fifth_and_treated_as_bert_does() -> None:
    settings = mntp(Path("corpus"))
    tokens = [1, *np.random.default_rng(1).integers(100, 200, 20_000).tolist()]
    masked = mask(tokens, settings, mask_token=MASK, vocabulary=50, chance=np.random.default_rng(0))
    selected = np.array(masked.places)
    now, before = np.array(masked.shown)[selected], np.array(tokens)[selected]
    assert len(selected) / 20_000 == pytest.approx(0.2, abs=0.01)
    assert np.mean(now == MASK) == pytest.approx(0.8, abs=0.02)
    assert np.mean(now == before) == pytest.approx(0.1, abs=0.02)
    assert np.mean(now < 50) == pytest.approx(0.1, abs=0.02)
    assert masked.targets == before.tolist()
    assert masked.shown[0] == 1
    assert 0 not in masked.places
    untouched = np.setdiff1d(np.arange(len(tokens)), selected)
    assert np.array_equal(np.array(masked.shown)[untouched], np.array(tokens)[untouched])


def test_all_chosen_tokens_are_masked_if_asked_and_one_is_chosen_at_least() -> None:
    settings = mntp(Path("corpus"), treatment="mask", mask_share=0.5)
    masked = mask([1, *[100] * 1000], settings, mask_token=MASK, vocabulary=50, chance=np.random.default_rng(0))
    assert {masked.shown[place] for place in masked.places} == {MASK}
    assert len(masked.places) == pytest.approx(500, abs=60)
    rare = mntp(Path("corpus"), treatment="mask", mask_share=1e-9)
    assert mask([1, 100], rare, mask_token=MASK, vocabulary=50, chance=np.random.default_rng(0)) == Masked(
        [1, MASK], [1], [100]
    )


def test_masks_follow_from_seed_and_place(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", [text(number) for number in range(6)])
    settings, encoder = mntp(corpus), text_mean_of(BACKBONE, FULL, device="cpu").encoder
    texts = Splits(encoder, settings.corpora, settings, limit=6)

    def places(seed: int) -> list[list[int]]:
        rows = MaskedTexts(texts, encoder, settings, seed=seed)
        return [rows[number]["places"] for number in range(len(rows))]

    assert places(0) == places(0)
    assert places(0) != places(1)
    assert len(set(map(tuple, places(0)))) == 6


def test_mntp_reads_the_texts_of_stage_1(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", [text(number) for number in range(6)])
    stage = compression(corpus)
    settings = mntp_like(stage)
    ours = Splits(small_model().encoder, stage.corpora, stage, limit=6)
    theirs = Splits(text_mean_of(BACKBONE, FULL, device="cpu").encoder, settings.corpora, settings, limit=6)
    assert [row["context"] + row["continuation"] for row in map(ours.__getitem__, range(6))] == [
        theirs[row]["context"] for row in range(6)
    ]
    assert (settings.steps, settings.batch_size, settings.learning_rate) == (
        stage.steps,
        stage.batch_size,
        stage.learning_rate,
    )


def test_a_finished_run_tells_what_it_was_begun_with(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", [text(number) for number in range(6)])
    folder = train_mntp(BACKBONE, tmp_path / "run", mntp(corpus, steps=1), FULL)
    assert folder == tmp_path / "run" / "model"
    begun = json.loads((tmp_path / "run" / "settings.json").read_text(encoding="utf-8"))
    assert (begun["mask_share"], begun["treatment"], begun["mask_token"], begun["steps"]) == (0.2, "bert", "_", 1)


@pytest.mark.parametrize("training", [False, True])
def test_vectors_are_the_means_over_the_texts_own_tokens(plain: LlamaForCausalLM, training: bool) -> None:
    tokenizer = AutoTokenizer.from_pretrained(BACKBONE)
    model = text_mean_of(BACKBONE, FULL, device="cpu")
    tokens = [[1, *tokenizer.encode(entry, add_special_tokens=False)][: FULL.max_length] for entry in TEXTS]
    with torch.no_grad():
        means = torch.stack([reading_both_ways(plain, row)[1:].mean(0) for row in tokens])
        model.train(training)
        vectors = model(model.preprocess(TEXTS))["sentence_embedding"]
    torch.testing.assert_close(vectors, functional.normalize(means, dim=-1), rtol=0, atol=1e-5)


def test_the_instruction_is_seen_and_not_counted(plain: LlamaForCausalLM) -> None:
    tokenizer = AutoTokenizer.from_pretrained(BACKBONE)
    model = text_mean_of(BACKBONE, ModelSettings(adapter=None, max_length=96, query_instruction=QUERY), device="cpu")
    with torch.no_grad():
        for entry in TEXTS[:2]:
            length = len(tokenizer.encode(entry, add_special_tokens=False))
            states = reading_both_ways(plain, [1, *tokenizer.encode(QUERY + entry, add_special_tokens=False)])
            expected = functional.normalize(states[-length:].mean(0), dim=-1)
            torch.testing.assert_close(torch.from_numpy(model.encode_query(entry)), expected, rtol=0, atol=1e-5)
    assert not np.allclose(model.encode_query("river"), model.encode_document("river"), atol=1e-3)


def test_a_text_without_tokens_has_a_vector(plain: LlamaForCausalLM) -> None:
    model = text_mean_of(BACKBONE, FULL, device="cpu")
    with torch.no_grad():
        expected = functional.normalize(reading_both_ways(plain, [1])[0], dim=-1)
    torch.testing.assert_close(torch.from_numpy(model.encode_document(["", "river"])[0]), expected, rtol=0, atol=1e-5)


def learnable(number: int) -> str:
    """A text in which every word determines its neighbours."""
    words = ["the", "old", "stone", "bridge", "over", "the", "north", "river", "by", "the", "mill"]
    return " ".join(words[(number + place) % len(words)] for place in range(40))


@pytest.mark.parametrize(("model", "restart"), [(FULL, False), (FULL, True), (ADAPTED, False)])
def test_training_lowers_the_heldout_loss(tmp_path: Path, model: ModelSettings, restart: bool) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", [learnable(number) for number in range(60)])
    heldout = write_corpus(tmp_path / "heldout.jsonl", [learnable(number) for number in range(60, 68)])
    settings = mntp(corpus, heldout=str(heldout), steps=20, learning_rate=1e-2, eval_steps=20, restart_layers=restart)
    run = tmp_path / "run"
    trained = load_text_mean(train_mntp(BACKBONE, run, settings, model), device="cpu", dtype="float32")
    rows = read_metrics(run)
    before, after = rows[0]["untrained_loss"], next(row["eval_loss"] for row in rows if "eval_loss" in row)
    assert after < before - 0.3
    assert trained.stages == ["mntp"]
    # what is reported is the mean over the held-out tokens
    texts = MaskedTexts(
        Splits(trained.encoder, settings.corpora[:0] + (str(heldout),), settings, limit=8),
        trained.encoder,
        settings,
        seed=0,
    )
    batch = [texts[number] for number in range(8)]
    with torch.no_grad():
        loss = mntp_loss(trained.encoder, *([row[name] for row in batch] for name in Masked._fields))
    assert float(loss) == pytest.approx(after, rel=1e-4)


def test_accumulation_changes_nothing(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", [text(number, 10 + 5 * number) for number in range(8)])
    weights = []
    for accumulation in (1, 4):
        model = text_mean_of(BACKBONE, FULL, device="cpu")
        train_masked(model, mntp(corpus, steps=2, accumulation=accumulation), tmp_path / str(accumulation))
        weights.append(weights_of(model))
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], rtol=0, atol=2e-5)


def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", [text(number) for number in range(12)])
    whole, halved = (text_mean_of(BACKBONE, FULL, device="cpu") for _ in range(2))
    settings = mntp(corpus, steps=4, save_steps=2)
    train_masked(whole, settings, tmp_path / "whole")
    train_masked(text_mean_of(BACKBONE, FULL, device="cpu"), settings, tmp_path / "halved")
    for file in (tmp_path / "halved" / "checkpoint-4").iterdir():
        file.unlink()  # as if it had been killed after its second update
    train_masked(halved, settings, tmp_path / "halved")
    for name, weight in weights_of(whole).items():
        assert torch.equal(weight, weights_of(halved)[name])


@pytest.mark.parametrize("settings", [FULL, ADAPTED])
def test_stages_2_and_3_train_it_and_are_not_repeated(tmp_path: Path, settings: ModelSettings) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", [text(number) for number in range(20)])
    pairs = write_pairs(tmp_path / "pairs.jsonl", 16, negatives=1)
    untrained = save_untrained_text_mean(BACKBONE, tmp_path / "untrained", settings)
    adapter = "keep" if settings.adapter is None else "merge"
    second = train_text_mean(
        untrained, tmp_path / "2", unsupervised(corpus, steps=2, attention_dropout=0.2, adapter=adapter), settings
    )
    third = train_text_mean(second, tmp_path / "3", supervised(pairs, steps=2, micro_batch=2), settings)
    vectors = [
        load_text_mean(folder, device="cpu", dtype="float32").encode_document(TEXTS)
        for folder in (untrained, second, third)
    ]
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-4
    assert np.abs(vectors[1] - vectors[2]).max() > 1e-4
    assert load_text_mean(third, device="cpu").stages == ["unsupervised", "supervised"]
    written = (third / "text_mean.json").stat().st_mtime_ns
    assert train_text_mean(second, tmp_path / "3", supervised(pairs, steps=2, micro_batch=2), settings) == third
    assert (third / "text_mean.json").stat().st_mtime_ns == written
    with pytest.raises(SettingsError, match=r"temperature was 0.05, now 0.1"):
        train_text_mean(second, tmp_path / "3", supervised(pairs, steps=2, temperature=0.1), settings)


@pytest.mark.parametrize("settings", [FULL, ADAPTED])
def test_a_saved_model_gives_the_same_vectors(tmp_path: Path, settings: ModelSettings) -> None:
    model = text_mean_of(BACKBONE, settings, precision="float32", device="cpu")
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name or settings.adapter is None:
                weight.add_(torch.randn_like(weight), alpha=0.05)
    model.save(tmp_path / "model")
    loaded = load_text_mean(tmp_path / "model", device="cpu", dtype="float32")
    np.testing.assert_allclose(loaded.encode_document(TEXTS), model.encode_document(TEXTS), rtol=0, atol=1e-6)
    assert loaded.fingerprint == model.fingerprint
    assert loaded.max_seq_length == 96


def test_it_is_a_system_of_the_harness(tmp_path: Path) -> None:
    folder = save_untrained_text_mean(BACKBONE, tmp_path / "model", FULL)
    name = f"text-mean:{folder}"
    model = load_model(name)
    described = describe_model(model, name)
    assert (described["model"], described["system"], described["dimension"], described["memory_tokens"]) == (
        name,
        "text-mean",
        64,
        0,
    )
    assert described["parameters"] == {"stages": []}
    expected = load_text_mean(folder).encode_document(TEXTS)
    assert np.array_equal(model.encode_document(TEXTS), expected)
    assert "text-mean:FOLDER" in system_names()
    with pytest.raises(SettingsError, match="give text-mean:FOLDER"):
        load_model("text-mean:")
    with pytest.raises(ModelFolderError, match=r"has no text_mean\.json"):
        load_model(f"text-mean:{BACKBONE}")


def test_it_is_not_taken_for_a_model_with_memory_tokens(tmp_path: Path) -> None:
    folder = save_untrained_text_mean(BACKBONE, tmp_path / "model", FULL)
    for place in (folder, folder / "encoder"):
        with pytest.raises(ModelFolderError):
            llm2comp.load(place)
    model = small_model()
    model.save(tmp_path / "ours")
    with pytest.raises(ModelFolderError, match=r"has no text_mean\.json"):
        load_text_mean(tmp_path / "ours")
    with pytest.raises(ModelFolderError, match="holds no text-mean model"):
        text_mean_of(BACKBONE, FULL, device="cpu").save(tmp_path / "ours")
    (folder / "text_mean.json").write_text(json.dumps({"format_version": 1, "query_instruction": ""}), encoding="utf-8")
    with pytest.raises(ModelFolderError, match='"normalize" is missing; "stages" is missing'):
        load_text_mean(folder)


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", [text(number) for number in range(6)])
    with pytest.raises(SettingsError, match="mask_share is 0"):
        mntp(corpus, mask_share=0.0)
    with pytest.raises(SettingsError, match="objective"):
        MntpSettings(**{**vars_of(mntp(corpus)), "objective": "distillation"})
    with pytest.raises(SettingsError, match="context_parts is 2; it is of compression"):
        mntp(corpus, context_parts=2)
    model: LLM2Comp = text_mean_of(BACKBONE, ADAPTED, device="cpu")
    assert isinstance(model, TextMeanModel)
    with pytest.raises(BackboneError, match="no token 'unheard-of'"):
        mask_token_of(model.encoder, mntp(corpus, mask_token="unheard-of"))
    with pytest.raises(SettingsError, match="restart_layers needs a model without an adapter"):
        train_masked(model, mntp(corpus, restart_layers=True), tmp_path / "run")
    with pytest.raises(SettingsError, match="max_tokens 200 exceeds"):
        train_masked(model, mntp(corpus, max_tokens=200), tmp_path / "run")


def vars_of(settings: MntpSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}
