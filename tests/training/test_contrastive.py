"""Stages 2 and 3: contents of a batch, which weights are trained, and equal losses for all ways of computing them."""

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

import llm2comp
from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.corpus.documents import Document
from llm2comp.corpus.python_docs import is_held_out
from llm2comp.errors import CorpusError, SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.training import sources
from llm2comp.training.checkpoints import trained_weights
from llm2comp.training.contrastive import contrastive_loss, train_contrastive
from llm2comp.training.contrastive_data import distinct_sentences
from llm2comp.training.loop import StageMixin
from llm2comp.training.metrics import read_metrics
from tests.training.tiny import LORA, small_model, supervised, text, unsupervised, weights_of, write_corpus, write_pairs

LONG = text(77, 200)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Inputs of every forward and backward pass."""
    met: list[dict[str, Any]] = []

    def note(trainer: StageMixin, inputs: dict[str, Any]) -> int:
        met.append(dict(inputs))
        return 1

    monkeypatch.setattr(StageMixin, "tokens_of", note)
    return met


def texts_of(model: LLM2Comp, batch: dict[str, Any], column: str) -> list[str]:
    rows = zip(batch[f"{column}_input_ids"], batch[f"{column}_attention_mask"], strict=True)
    return [str(model.encoder.tokenizer.decode(ids[mask.bool()][1:])) for ids, mask in rows]


def columns_of(batch: dict[str, Any]) -> list[str]:
    return [name.removesuffix("_input_ids") for name in batch if name.endswith("_input_ids")]


def slow_loss(columns: list[Tensor], temperature: float, similarity: str) -> Tensor:
    """Each query against every positive and negative, one pair at a time."""
    queries, candidates = columns[0], torch.cat(columns[1:])
    losses = []
    for place, query in enumerate(queries):
        scores = []
        for candidate in candidates:
            product = (query * candidate).sum()
            scores.append((product if similarity == "dot" else product / query.norm() / candidate.norm()) / temperature)
        losses.append(-(scores[place] - torch.logsumexp(torch.stack(scores), 0)))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("negatives", [0, 1, 2])
def test_the_loss_equals_the_reference(similarity: str, negatives: int) -> None:
    torch.manual_seed(0)
    columns = [torch.randn(5, 8, requires_grad=True) for _ in range(2 + negatives)]
    expected = slow_loss(columns, 0.5, similarity)
    gradients = torch.autograd.grad(expected, columns)
    loss = contrastive_loss(columns, temperature=0.5, similarity=similarity)
    torch.testing.assert_close(loss, expected)
    for gradient, reference in zip(torch.autograd.grad(loss, columns), gradients, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_the_first_loss_of_a_run_is_that_of_the_untrained_vectors(
    accumulation: int, tmp_path: Path, batches: list[dict[str, Any]]
) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 6, negatives=2)
    model = small_model()
    untrained = small_model()
    settings = supervised(pairs, batch_size=6, accumulation=accumulation, max_negatives=2, temperature=0.1, steps=1)
    train_contrastive(model, settings, tmp_path / "run")
    losses = []
    for batch in batches:
        columns = columns_of(batch)
        assert columns == ["anchor", "positive", "negative_1", "negative_2"]
        vectors = [torch.tensor(untrained.encode(texts_of(model, batch, column))) for column in columns]
        losses.append(float(slow_loss(vectors, 0.1, "cosine")))
    assert len(losses) == accumulation
    assert read_metrics(tmp_path / "run")[0]["loss"] == pytest.approx(sum(losses) / accumulation, rel=1e-4)


@pytest.mark.parametrize("adapter", [LORA, None], ids=["lora", "all weights"])
def test_micro_batches_give_the_gradients_of_the_whole_batch(adapter: AdapterSettings | None, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 30, negatives=1)
    runs = []
    for micro_batch in (None, 3):
        folder = tmp_path / str(micro_batch)
        model = train_contrastive(
            small_model(adapter=adapter), supervised(pairs, batch_size=8, micro_batch=micro_batch), folder
        )
        runs.append((weights_of(model), [(entry["loss"], entry["grad_norm"]) for entry in read_metrics(folder)]))
    assert np.array(runs[0][1]) == pytest.approx(np.array(runs[1][1]), rel=1e-3)
    for name, weight in runs[0][0].items():
        torch.testing.assert_close(runs[1][0][name], weight, rtol=1e-3, atol=1e-4)


def test_gradient_checkpointing_changes_nothing_and_ends_with_the_stage(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 20)
    models = [
        train_contrastive(small_model(), supervised(pairs, gradient_checkpointing=on), tmp_path / str(on))
        for on in (False, True)
    ]
    for name, weight in weights_of(models[0]).items():
        torch.testing.assert_close(weights_of(models[1])[name], weight, rtol=1e-4, atol=1e-6)
    layers = [module for module in models[1].modules() if hasattr(module, "gradient_checkpointing")]
    assert layers
    assert not any(layer.gradient_checkpointing for layer in layers)


def test_rows_with_and_without_hard_negatives_are_all_used(tmp_path: Path, batches: list[dict[str, Any]]) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    rows = [json.loads(line) for line in write_pairs(tmp_path / "all.jsonl", 16, negatives=2).read_text().splitlines()]
    for number, row in enumerate(rows):
        row["negative"] = row["negative"][: number % 3] or None
    (folder / "some.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = train_contrastive(
        small_model(), supervised(folder, max_negatives=2, steps=6, batch_size=2), tmp_path / "run"
    )
    kinds = Counter(len(columns_of(batch)) for batch in batches)
    assert set(kinds) == {2, 3, 4}
    queries = [query for batch in batches for query in texts_of(model, batch, "anchor")]
    assert len(set(queries)) == len(queries) == 12


def write_folder(folder: Path, instructions: dict[str, str]) -> Path:
    folder.mkdir()
    for place, name in enumerate(("one", "two", "three")):
        write_pairs(folder / f"{name}.jsonl", 8, negatives=1, start=100 * place)
    (folder / "instructions.yaml").write_text(yaml.safe_dump(instructions))
    return folder


def test_instructions_reach_the_queries_of_their_set_only(tmp_path: Path, batches: list[dict[str, Any]]) -> None:
    folder = write_folder(tmp_path / "pairs", {"one": "find stone: ", "two": "name a bird\n"})
    model = small_model(query_instruction="the model asks: ")
    train_contrastive(model, supervised(folder, steps=6), tmp_path / "run")
    expected = {"one": "find stone: ", "two": "name a bird\n", "three": "the model asks: "}
    met = Counter[str]()
    for batch in batches:
        name = str(batch["dataset_name"]).removesuffix("-1neg")
        met[name] += 1
        prefix = str(model.encoder.tokenizer.decode(model.encoder.token_ids([expected[name]])[0][1:]))
        assert all(query.startswith(prefix) for query in texts_of(model, batch, "anchor"))
        for column in ("positive", "negative_1"):
            assert not any(other.startswith(prefix) for other in texts_of(model, batch, column))
    assert met == {"one": 2, "two": 2, "three": 2}


def test_the_mixture_says_how_often_a_file_counts(tmp_path: Path, batches: list[dict[str, Any]]) -> None:
    folder = write_folder(tmp_path / "pairs", {"one": "1", "two": "2", "three": "3"})
    mixture = {"one": 2.0, "two": 0, "three": 0.5}
    train_contrastive(small_model(), supervised(folder, mixture=mixture, steps=5), tmp_path / "run")  # 16 + 4 rows
    assert Counter(str(batch["dataset_name"]) for batch in batches) == {"one-1neg": 4, "three-1neg": 1}
    with pytest.raises(SettingsError, match="mixture names five, but pairs hold one, three, two"):
        train_contrastive(small_model(), supervised(folder, mixture={"five": 1.0}), tmp_path / "other")


def test_limits_shorten_queries_and_passages_in_training_only(tmp_path: Path, batches: list[dict[str, Any]]) -> None:
    rows = [{"query": f"{number} {LONG}", "positive": f"not {number} {LONG}"} for number in range(8)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = small_model()
    full = len(model.preprocess([LONG])["input_ids"][0])
    train_contrastive(
        model,
        supervised(tmp_path / "pairs.jsonl", max_query_tokens=10, max_passage_tokens=21, steps=2),
        tmp_path / "run",
    )
    assert {batch["anchor_attention_mask"].sum(1).max().item() for batch in batches} == {10 - 3}
    assert {batch["positive_attention_mask"].sum(1).max().item() for batch in batches} == {21 - 3}
    assert model.encoder.task_limits == {}
    assert len(model.preprocess([LONG], task="query")["input_ids"][0]) == full == 96 - 3
    with pytest.raises(
        SettingsError, match="a query of at most 4 tokens has no room for 3 memory tokens; give 5 or more"
    ):
        train_contrastive(model, supervised(tmp_path / "pairs.jsonl", max_query_tokens=4), tmp_path / "run")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus.jsonl", [text(number, 60) for number in range(20)])


def test_attention_dropout_makes_two_views_and_ends_with_the_stage(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    differences: dict[float, list[float]] = {0.0: [], 0.4: []}
    for share, distances in differences.items():

        def compare(trainer: StageMixin, inputs: dict[str, Any], distances: list[float] = distances) -> int:
            views = []
            assert trainer.model is not None
            trainer.model.train()
            for column in ("anchor", "positive"):
                assert torch.equal(inputs[f"{column}_input_ids"], inputs["anchor_input_ids"])
                features = {name: inputs[f"{column}_{name}"] for name in ("input_ids", "attention_mask")}
                with torch.no_grad():
                    views.append(trainer.model(features)["sentence_embedding"])
            distances.append(float((views[0] - views[1]).norm(dim=1).min()))
            return 1

        monkeypatch.setattr(StageMixin, "tokens_of", compare)
        model = train_contrastive(
            small_model(), unsupervised(corpus, attention_dropout=share, steps=2), tmp_path / str(share)
        )
        features = model.train().preprocess([LONG])
        with torch.no_grad():
            assert torch.equal(model(features)["sentence_embedding"], model(features)["sentence_embedding"])
    assert max(differences[0.0]) < 1e-6
    assert min(differences[0.4]) > 1e-3


def test_merging_keeps_the_vectors_and_starts_a_fresh_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 20)
    model = small_model()
    with torch.no_grad():
        for weight in trained_weights(model).values():
            weight.add_(torch.randn_like(weight), alpha=0.05)
    texts = [text(number, 20) for number in range(5)]
    before = model.encode(texts)
    merged: list[Any] = []
    monkeypatch.setattr(
        StageMixin,
        "begin",
        lambda trainer: merged.extend(
            [model.encode(texts), model.encoder.backbone.weights()["model.embed_tokens.weight"].clone()]
        ),
    )
    original = {name: weight.clone() for name, weight in model.encoder.backbone.weights().items()}
    fresh = AdapterSettings(rank=2, alpha=4, dropout=0.0)
    train_contrastive(model, supervised(pairs, adapter="merge"), tmp_path / "run", fresh_adapter=fresh)
    np.testing.assert_allclose(merged[0], before, atol=1e-5)
    ranks = {weight.shape[0] for name, weight in trained_weights(model).items() if "lora_A" in name}
    assert ranks == {2}
    now = model.encoder.backbone.weights()
    moved = {name for name, weight in original.items() if not torch.equal(now[name], weight)}
    assert moved == {name for name in original if "proj" in name and "k_proj" not in name}
    assert np.abs(model.encode(texts) - before).max() > 1e-4


def test_a_fresh_adapter_depends_on_the_seed_alone(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 20)
    adapters = []
    for place, seed in enumerate((0, 0, 1)):
        model = small_model()
        torch.manual_seed(place)
        train_contrastive(
            model, supervised(pairs, adapter="merge", seed=seed), tmp_path / str(place), fresh_adapter=LORA
        )
        adapters.append(torch.cat([weight.flatten() for name, weight in weights_of(model).items() if "lora_A" in name]))
    assert torch.equal(adapters[0], adapters[1])
    assert float((adapters[0] - adapters[2]).norm()) > 0.5 * float(adapters[0].norm())


def test_keeping_trains_the_adapter_on(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 20)
    model = small_model()
    original = {name: weight.clone() for name, weight in model.encoder.backbone.weights().items()}
    train_contrastive(model, supervised(pairs), tmp_path / "run")
    assert all(torch.equal(model.encoder.backbone.weights()[name], weight) for name, weight in original.items())
    assert {weight.shape[0] for name, weight in trained_weights(model).items() if "lora_A" in name} == {4}


def test_memory_tokens_can_be_left_as_they_are(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 20)
    for frozen in (True, False):
        model = small_model()
        before = model.encoder.memory.detach().clone()
        train_contrastive(model, supervised(pairs, freeze_memory=frozen), tmp_path / str(frozen))
        assert torch.equal(model.encoder.memory, before) is frozen
        assert model.encoder.memory.requires_grad


def test_training_all_weights_leaves_the_head_out(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 20)
    model = train_contrastive(small_model(adapter=None), supervised(pairs, weight_decay=0.1), tmp_path / "run")
    assert not [name for name in trained_weights(model) if "lm_head" in name]
    assert len(trained_weights(model)) == 3 * 9 + 3
    untrained = small_model(adapter=None).encoder.backbone.weights()
    assert {
        name for name, weight in model.encoder.backbone.weights().items() if torch.equal(weight, untrained[name])
    } == {"lm_head.weight"}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_model_in_hand_is_the_model_on_disk(precision: str, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 20)
    model = train_contrastive(small_model(), supervised(pairs, precision=precision), tmp_path / "run")
    assert not any(module.training for module in model.modules())
    assert all(weight.grad is None for weight in model.parameters())
    assert model.stages == ["supervised"]
    model.save(tmp_path / "model")
    loaded = llm2comp.load(tmp_path / "model", device="cpu", dtype="float32")
    np.testing.assert_allclose(model.encode([LONG, "a bird"]), loaded.encode([LONG, "a bird"]), atol=1e-6)
    assert loaded.fingerprint == model.fingerprint


def test_the_held_out_loss_is_that_of_the_held_out_rows(tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    rows = [
        {"query": text(number // 3, 6), "positive": text(1000 + number, 10)} for number in range(60)
    ]  # queries come up three times
    (folder / "repeated.jsonl").write_text("\n".join(map(json.dumps, rows)))
    write_pairs(folder / "small.jsonl", 20)
    model = train_contrastive(
        small_model(query_instruction="find: "),
        supervised(folder, heldout_rows=6, steps=3, eval_steps=3),
        tmp_path / "run",
    )
    entries = [entry for entry in read_metrics(tmp_path / "run") if any(name.startswith("eval") for name in entry)]
    assert [set(entry) - {"step"} for entry in entries] == [{"eval_repeated_loss", "eval_repeated_runtime"}], (
        "a set of 20 rows spares none"
    )
    queries, positives = ([row[part] for row in rows[:6]] for part in ("query", "positive"))
    vectors = [torch.tensor(model.encode_query(queries)), torch.tensor(model.encode_document(positives))]
    assert entries[0]["eval_repeated_loss"] == pytest.approx(float(slow_loss(vectors, 0.05, "cosine")), rel=1e-3)


def test_held_out_rows_are_not_trained_on(tmp_path: Path, batches: list[dict[str, Any]]) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 40)
    model = train_contrastive(small_model(), supervised(pairs, heldout_rows=4, steps=9), tmp_path / "run")
    trained = {query for batch in batches for query in texts_of(model, batch, "anchor")}
    rows = [json.loads(line)["query"] for line in pairs.read_text().splitlines()]
    spelled = [model.encoder.tokenizer.decode(ids[1:]) for ids in model.encoder.token_ids(rows)]
    assert trained == set(spelled[4:])


def test_sentences_are_met_once_and_paired_with_themselves(
    corpus: Path, tmp_path: Path, batches: list[dict[str, Any]]
) -> None:
    model = train_contrastive(small_model(), unsupervised(corpus, steps=10, heldout_rows=5), tmp_path / "run")
    met = [sentence for batch in batches for sentence in texts_of(model, batch, "anchor")]
    assert len(met) == len(set(met)) == 40
    assert model.stages == ["unsupervised"]


def test_sentences_are_distinct_of_fit_length_and_never_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [
        Document(
            str(number), "", f"Return the {number}-th of all the values.\n\n{text(number, 60)} Too short. {text(1, 30)}"
        )
        for number in range(60)
    ]
    monkeypatch.setattr(sources, "read_corpus", lambda source, **_: iter(documents))
    sentences = list(distinct_sentences(("python-docs:",)))
    assert len(sentences) == len(set(sentences))
    assert all(5 <= len(sentence.split()) <= 60 for sentence in sentences)
    kept_out = [document for document in documents if is_held_out(document.text)]
    assert kept_out
    joined = " ".join(sentences)
    for number, document in enumerate(documents):
        assert (f"Return the {number}-th of all the values." in joined) is (document not in kept_out)
    assert len(list(distinct_sentences(("articles.jsonl",)))) > len(sentences), "only docstrings are kept out"


def test_small_sets_are_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, batches: list[dict[str, Any]]
) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    write_pairs(folder / "large.jsonl", 12)
    write_pairs(folder / "tiny.jsonl", 3, start=50)
    with caplog.at_level(logging.WARNING, "llm2comp"):
        train_contrastive(small_model(), supervised(folder, steps=3), tmp_path / "run")
    assert [record.message for record in caplog.records] == [
        "tiny is not trained on: its 3 pairs do not fill a batch of 4"
    ]


def test_a_part_of_a_file_is_named_by_its_negatives(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, batches: list[dict[str, Any]]
) -> None:
    """The whole file is not said to be left out where only its rows without a negative are too few."""
    file = write_pairs(tmp_path / "wikiqa.jsonl", 12, negatives=1)
    with file.open("a", encoding="utf-8") as rows:
        rows.write(write_pairs(tmp_path / "few.jsonl", 3, start=50).read_text(encoding="utf-8"))
    with caplog.at_level(logging.WARNING, "llm2comp"):
        train_contrastive(small_model(), supervised(file, steps=3), tmp_path / "run")
    assert [record.message for record in caplog.records] == [
        "wikiqa is not trained on as a whole: its 3 pairs without a negative do not fill a batch of 4"
    ]


def test_labels_of_zero_make_negatives_only_if_asked(tmp_path: Path, batches: list[dict[str, Any]]) -> None:
    rows = [
        {"query": f"query {number}", "passage": f"{kind} of {number}", "label": label}
        for number in range(8)
        for kind, label in (("answer", 1), ("distractor", 0))
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(CorpusError, match=r"pairs\.jsonl:2: a label or score of 0 .*negatives_from_label: true"):
        train_contrastive(small_model(), supervised(file, steps=1), tmp_path / "run")
    train_contrastive(small_model(), supervised(file, steps=1, negatives_from_label=True), tmp_path / "run2")
    assert "negative_1_input_ids" in batches[0]


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (["{}"], CorpusError, "pairs.jsonl:1: no query"),
        (['{"query": "a", "positive": "b"}', "{"], CorpusError, "pairs.jsonl:2: not JSON"),
        (['{"query": "a", "positive": "b"}'], SettingsError, "1 rows for training, fewer than one batch of 4"),
        (
            [json.dumps({"query": f"a{number}", "positive": "b"}) for number in range(9)],
            SettingsError,
            "no batch without a text twice can be made",
        ),
    ],
)
def test_pairs_that_do_not_serve_are_refused(
    rows: list[str], error: type[Exception], message: str, tmp_path: Path
) -> None:
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows))
    with pytest.raises(error, match=message):
        train_contrastive(small_model(), supervised(tmp_path / "pairs.jsonl"), tmp_path / "run")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_pairs(tmp_path / name / "pairs.jsonl", 8)
    with pytest.raises(SettingsError, match="pairs hold two files named pairs"):
        train_contrastive(
            small_model(), supervised(tmp_path / "a" / "pairs.jsonl", tmp_path / "b" / "pairs.jsonl"), tmp_path / "run"
        )


def test_too_few_sentences_are_refused(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", [text(1, 10)])
    with pytest.raises(SettingsError, match="corpus.jsonl: 1 rows for training, fewer than one batch of 4"):
        train_contrastive(small_model(), unsupervised(corpus), tmp_path / "run")
