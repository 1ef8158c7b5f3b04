"""Stage 1: losses equal a slow and obvious reference, texts are cut as in the paper, all ways of running it agree."""

import json
import random
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM

from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.corpus.documents import Document
from llm2comp.corpus.python_docs import is_held_out
from llm2comp.errors import SettingsError
from llm2comp.model import LLM2Comp
from llm2comp.training import sources
from llm2comp.training.checkpoints import trained_weights
from llm2comp.training.compression import compression_loss, context_gain, train_compression
from llm2comp.training.metrics import read_metrics
from llm2comp.training.settings import Objective
from llm2comp.training.splits import Splits, passages
from tests.training.tiny import BACKBONE, LORA, compression, small_model, text, weights_of, write_corpus

OBJECTIVES: tuple[Objective, ...] = ("distillation", "continuation", "reconstruction")
CONTEXTS = [[1, *range(40, 40 + length)] for length in (11, 5, 23)]
CONTINUATIONS = [list(range(90, 90 + length)) for length in (7, 19, 10)]


def roughened(adapter: AdapterSettings | None) -> LLM2Comp:
    """A model whose adapter has an effect, or whose weights differ from the frozen copy."""
    model = small_model(adapter=adapter)
    if adapter is None:
        model.encoder.backbone.keep_frozen_copy()
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in trained_weights(model).values():
            weight.add_(torch.randn_like(weight), alpha=0.05)
    return model


class Reference:
    """The method row by row: one text at a time, all logits at once, plain transformers and peft models, no packing."""

    def __init__(self, model: LLM2Comp) -> None:
        plain = AutoModelForCausalLM.from_pretrained(BACKBONE, dtype=torch.float32, attn_implementation="eager")
        self.memory = nn.Parameter(model.encoder.memory.detach().clone())
        self.frozen = deepcopy(plain).requires_grad_(False)
        self.encoder: Any = plain
        backbone = model.encoder.backbone
        if backbone.has_adapter:
            plain.requires_grad_(False)
            targets = ["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
            self.encoder = get_peft_model(plain, LoraConfig(r=4, lora_alpha=8, target_modules=targets))
        self.encoder.load_state_dict(backbone.model.state_dict())

    def memory_states(self, context: list[int]) -> Tensor:
        embedded = self.encoder.get_input_embeddings()(torch.tensor(context))
        inputs = torch.cat([embedded, self.memory])[None]
        everyone_sees_all = torch.zeros(1, 1, inputs.shape[1], inputs.shape[1])
        decoder = self.encoder.get_base_model().model if hasattr(self.encoder, "peft_config") else self.encoder.model
        states: Tensor = decoder(inputs_embeds=inputs, attention_mask=everyone_sees_all).last_hidden_state[0]
        return states[-len(self.memory) :]

    def loss(
        self, contexts: list[list[int]], continuations: list[list[int]], objective: Objective, *, parts: int = 1
    ) -> Tensor:
        embed = self.frozen.get_input_embeddings()
        per_text, tokens = [], 0
        for context, continuation in zip(contexts, continuations, strict=True):
            following = context[1:] if objective == "reconstruction" else continuation
            number = 1 + len(context) % parts
            size = (len(context) - 1) / number
            cuts = [1 + int(size * part) for part in range(number + 1)]
            memory = torch.cat(
                [self.memory_states([context[0], *context[cuts[part] : cuts[part + 1]]]) for part in range(number)]
            )
            k = len(memory)
            reader_input = torch.cat([embed(torch.tensor(context[:1])), memory, embed(torch.tensor(following))])
            student = self.frozen(inputs_embeds=reader_input[None]).logits[0]
            s, length = len(context), len(following)
            if objective == "distillation":
                teacher = self.frozen(input_ids=torch.tensor([context + continuation])).logits[0]
                expected = teacher[s - 1 : s + length].softmax(-1).double()
                actual = student[k : k + length + 1].softmax(-1).double()
                per_text.append((expected * (expected / actual).log()).sum(-1).mean())
            else:
                per_text.append(
                    functional.cross_entropy(student[k : k + length], torch.tensor(following), reduction="sum")
                )
                tokens += length
        return (
            torch.stack(per_text).mean().float()
            if objective == "distillation"
            else torch.stack(per_text).sum() / tokens
        )


def assert_same(actual: Tensor | None, expected: Tensor | None) -> None:
    """Equal but for the order of float32 sums."""
    assert actual is not None
    assert expected is not None
    assert float((actual - expected).norm()) < 1e-4 * float(expected.norm())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_contexts_in_several_parts_are_read_from_the_memory_tokens_of_each(objective: Objective) -> None:
    model = roughened(LORA)
    reference = Reference(model)
    expected = reference.loss(CONTEXTS, CONTINUATIONS, objective, parts=4)
    expected.backward()
    assert {1 + len(context) % 4 for context in CONTEXTS} == {1, 3}
    loss = compression_loss(model.encoder, CONTEXTS, CONTINUATIONS, objective, context_parts=4)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    assert_same(model.encoder.memory.grad, reference.memory.grad)
    assert loss.item() != pytest.approx(compression_loss(model.encoder, CONTEXTS, CONTINUATIONS, objective).item())


@pytest.mark.parametrize("adapter", [LORA, None], ids=["lora", "all weights"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_losses_and_gradients_equal_the_reference(objective: Objective, adapter: AdapterSettings | None) -> None:
    model = roughened(adapter)
    reference = Reference(model)
    expected = reference.loss(CONTEXTS, CONTINUATIONS, objective)
    expected.backward()
    loss = compression_loss(model.encoder, CONTEXTS, CONTINUATIONS, objective, chunk_rows=4)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    assert_same(model.encoder.memory.grad, reference.memory.grad)
    gradients = {name: weight.grad for name, weight in reference.encoder.named_parameters() if weight.requires_grad}
    compared = 0
    for name, weight in model.encoder.backbone.model.named_parameters():
        if weight.requires_grad:
            assert_same(weight.grad, gradients[name])
            compared += 1
    assert compared == (36 if adapter else 29)
    assert all(weight.grad is None for weight in reference.frozen.parameters())


@pytest.mark.parametrize("adapter", [LORA, None], ids=["lora", "all weights"])
def test_gradient_checkpointing_changes_nothing(adapter: AdapterSettings | None) -> None:
    model = roughened(adapter).train()
    results = []
    for checkpointed in (False, True):
        if checkpointed:
            model.encoder.backbone.enable_checkpointing()
        model.zero_grad()
        loss = compression_loss(model.encoder, CONTEXTS, CONTINUATIONS, "distillation")
        loss.backward()
        results.append(
            (
                loss.item(),
                {
                    name: weight.grad.clone()
                    for name, weight in trained_weights(model).items()
                    if weight.grad is not None
                },
            )
        )
    assert results[0][0] == results[1][0]
    assert results[0][1].keys() == results[1][1].keys()
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, rtol=1e-5, atol=1e-8)


def test_context_gain_equals_the_reference() -> None:
    model = small_model()
    plain = AutoModelForCausalLM.from_pretrained(BACKBONE, dtype=torch.float32)
    splits = [{"context": context, "continuation": more} for context, more in zip(CONTEXTS, CONTINUATIONS, strict=True)]
    totals = []
    for shorten in (False, True):
        losses = []
        for split in splits:
            before = split["context"][:1] if shorten else split["context"]
            labels = torch.tensor([[-100] * len(before) + split["continuation"]])
            with torch.no_grad():
                losses.append(
                    plain(input_ids=torch.tensor([before + split["continuation"]]), labels=labels).loss.item()
                    * len(split["continuation"])
                )
        totals.append(sum(losses) / sum(map(len, CONTINUATIONS)))
    gain = context_gain(model.encoder, splits)
    assert gain.loss_with == pytest.approx(totals[0], rel=1e-5)
    assert gain.loss_without == pytest.approx(totals[1], rel=1e-5)
    assert gain.gain == pytest.approx(totals[1] - totals[0], abs=1e-5)


def test_splits_are_uniform_between_the_margins_and_always_the_same(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", [text(number, 80) for number in range(900)])
    settings = compression(corpus, max_tokens=20, margin=5, seed=3)
    model = small_model()
    splits = Splits(model.encoder, settings.corpora, settings, limit=900)
    cuts = Counter(len(splits[row]["context"]) for row in range(len(splits)))
    assert {len(splits[row]["context"]) + len(splits[row]["continuation"]) for row in range(len(splits))} == {20}
    assert set(cuts) == set(range(5, 16))
    expected = len(splits) / 11
    assert (
        sum((count - expected) ** 2 / expected for count in cuts.values()) < 29.6
    )  # chi-square, 10 degrees of freedom, p = 0.001
    again = Splits(model.encoder, settings.corpora, settings, limit=900)
    assert [again[row] for row in range(900)] == [splits[row] for row in range(900)]
    other = Splits(model.encoder, settings.corpora, compression(corpus, max_tokens=20, margin=5, seed=4), limit=900)
    assert [len(other[row]["context"]) for row in range(900)] != [len(splits[row]["context"]) for row in range(900)]


def test_texts_are_cut_before_they_are_split_and_short_ones_are_left_out(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", ["one two", text(1, 8), text(2, 400)])
    model = small_model()
    lengths = [len(tokens) for tokens in model.encoder.token_ids([text(1, 8), text(2, 400)])]
    settings = compression(corpus, min_characters=0, max_tokens=40, margin=lengths[0] // 2 - 1)
    splits = Splits(model.encoder, settings.corpora, settings, limit=10)
    assert [splits[row]["id"] for row in range(len(splits))] == ["d1", "d2"]
    whole = model.encoder.token_ids([text(2, 400)])[0]
    assert splits[1]["context"] + splits[1]["continuation"] == whole[:40]
    assert splits[0]["context"][0] == whole[0], "a context begins with the beginning token"


def test_reconstruction_is_given_the_whole_text(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", [text(2, 400)])
    settings = compression(corpus, objective="reconstruction")
    model = small_model()
    row = Splits(model.encoder, settings.corpora, settings, limit=1)[0]
    assert row["context"] == model.encoder.token_ids([text(2, 400)])[0][:48]
    assert row["continuation"] == []


def test_paragraphs_are_joined_until_they_are_long_enough() -> None:
    document = Document("7", "Title", "first\nsecond\nthird line\nx")
    assert list(passages([document], 10)) == [("7", "first\nsecond"), ("7", "third line")]
    assert list(passages([document], 1)) == [("7", "first"), ("7", "second"), ("7", "third line"), ("7", "x")]
    assert list(passages([document], 100)) == []


def test_held_out_docstrings_are_never_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [
        Document(str(number), "", f"Return the {number}-th value.\n\n{text(number, 60)}") for number in range(60)
    ]
    kept_out = {document.id for document in documents if is_held_out(document.text)}
    assert kept_out
    monkeypatch.setattr(sources, "read_corpus", lambda source, **_: iter(documents))
    settings = compression(Path("python-docs:"))
    splits = Splits(small_model().encoder, ("python-docs:",), settings, limit=1000)
    assert {splits[row]["id"] for row in range(len(splits))} == {document.id for document in documents} - kept_out


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(
        tmp_path_factory.mktemp("corpus") / "corpus.jsonl",
        [text(number, random.Random(number).randint(20, 80)) for number in range(40)],
    )


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_accumulated_passes_are_one_large_batch(corpus: Path, tmp_path: Path, objective: Objective) -> None:
    runs = []
    for accumulation in (1, 4):
        model = small_model()
        train_compression(
            model,
            compression(corpus, objective=objective, accumulation=accumulation, batch_size=8, steps=3),
            tmp_path / str(accumulation),
        )
        runs.append(
            (
                weights_of(model),
                [entry["loss"] for entry in read_metrics(tmp_path / str(accumulation)) if "loss" in entry],
            )
        )
    assert runs[0][1] == pytest.approx(runs[1][1], rel=1e-5)
    for name, weight in runs[0][0].items():
        torch.testing.assert_close(runs[1][0][name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("adapter", [LORA, None], ids=["lora", "all weights"])
def test_training_lowers_the_loss_and_leaves_the_reader_alone(
    corpus: Path, tmp_path: Path, objective: Objective, adapter: AdapterSettings | None
) -> None:
    model = small_model(adapter=adapter)
    before = AutoModelForCausalLM.from_pretrained(BACKBONE, dtype=torch.float32)
    settings = compression(corpus, objective=objective, steps=30, batch_size=8, learning_rate=1e-2)
    assert train_compression(model, settings, tmp_path) is model
    losses = [entry["loss"] for entry in read_metrics(tmp_path) if "loss" in entry]
    assert sum(losses[-5:]) < 0.97 * sum(losses[:5])
    assert model.stages == [f"compression:{objective}"]
    assert not model.training
    assert not any(module.training for module in model.modules())
    with torch.no_grad():
        tokens = torch.arange(3, 20)
        logits = model.encoder.backbone.head(
            model.encoder.backbone.read(model.encoder.backbone.embed_frozen(tokens), [17])
        )
        torch.testing.assert_close(logits, before(input_ids=tokens[None]).logits[0], rtol=1e-4, atol=1e-5)


def test_reports_hold_loss_rate_pace_and_held_out_loss(corpus: Path, tmp_path: Path) -> None:
    heldout = write_corpus(tmp_path / "heldout.jsonl", [text(500 + number, 50) for number in range(6)])
    for objective in OBJECTIVES:
        folder = tmp_path / objective
        train_compression(
            small_model(), compression(corpus, objective=objective, heldout=str(heldout), eval_steps=2), folder
        )
        entries = read_metrics(folder)
        assert {"step", "context_loss_with", "context_loss_without", "context_gain"} == entries[0].keys()
        training = [entry for entry in entries if "loss" in entry]
        assert [entry["step"] for entry in training] == [1, 2, 3, 4]
        assert all(
            entry.keys() == {"step", "loss", "learning_rate", "grad_norm", "tokens_per_second"} for entry in training
        )
        assert [entry["step"] for entry in entries if "eval_loss" in entry] == [2, 4]
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len([json.loads(line) for line in lines]) == 7


def test_the_held_out_loss_is_that_of_the_held_out_texts(corpus: Path, tmp_path: Path) -> None:
    heldout = write_corpus(tmp_path / "heldout.jsonl", [text(500 + number, 50) for number in range(8)])
    settings = compression(corpus, heldout=str(heldout), steps=2, eval_steps=2)
    model = train_compression(small_model(), settings, tmp_path / "run")
    splits = Splits(model.encoder, (str(heldout),), settings, limit=128)
    rows = [splits[row] for row in range(len(splits))]
    with torch.no_grad():
        expected = compression_loss(
            model.encoder, [row["context"] for row in rows], [row["continuation"] for row in rows], "distillation"
        )
    assert read_metrics(tmp_path / "run")[-1]["eval_loss"] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("adapter", [LORA, None], ids=["lora", "all weights"])
def test_bfloat16_follows_float32(corpus: Path, tmp_path: Path, adapter: AdapterSettings | None) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        dtype = torch.bfloat16 if precision == "bfloat16" and adapter else torch.float32
        model = small_model(adapter=adapter, dtype=dtype)
        settings = compression(
            corpus, precision=precision, steps=8, batch_size=8, learning_rate=5e-3, objective="continuation"
        )
        train_compression(model, settings, tmp_path / precision)
        losses[precision] = [entry["loss"] for entry in read_metrics(tmp_path / precision)]
        assert {weight.dtype for weight in trained_weights(model).values()} == {torch.float32}, (
            "small updates would be lost in half precision"
        )
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["bfloat16"] != losses["float32"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_characters": 10**6}, "no text of at least 1000000 characters and 9 tokens"),
        ({"batch_size": 64}, "40 rows for training, fewer than one batch of 64"),
        ({"max_tokens": 94}, "max_tokens 94 and 3 memory tokens exceed the model's max_length 96"),
        ({"report_to": ("wandb",)}, "report_to names wandb"),
    ],
)
def test_data_that_do_not_serve_are_refused(corpus: Path, tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        train_compression(small_model(), compression(corpus, **fields), tmp_path / "run")
