"""Training for late interaction: the loss and its gradients against loops, in micro-batches too; who is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.util import cos_sim, dot_score
from torch import Tensor, nn

from llm2comp.errors import SettingsError
from llm2comp.late_interaction import maxsim
from llm2comp.training import late_interaction
from llm2comp.training.check import estimate_stage
from llm2comp.training.contrastive import train_contrastive
from llm2comp.training.late_interaction import LateInteractionLoss, diversity_penalty, mean_maxsim
from llm2comp.training.metrics import read_metrics
from llm2comp.training.recipe_file import read_recipe
from llm2comp.training.settings import ContrastiveSettings
from tests.training.tiny import small_model, supervised, text, weights_of, write_pairs, write_recipe

WEIGHTS = [
    {"maxsim_weight": 1.0},
    {"maxsim_weight": 0.3},
    {"diversity_weight": 0.7},
    {"maxsim_weight": 0.6, "diversity_weight": 2.0, "similarity": "dot"},
]


def cosine(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum() / one.norm() / other.norm()


def slow_maxsim(query: Tensor, document: Tensor) -> Tensor:
    """Of two texts' memory states, one cosine at a time."""
    best = [torch.stack([cosine(one, other) for other in document]).max() for one in query]
    return torch.stack(best).mean()


def slow_loss(columns: list[tuple[Tensor, Tensor]], settings: ContrastiveSettings) -> Tensor:
    """The loss of embeddings (rows, dim) and memory states (rows, k, dim) of each column, one score at a time."""
    rows = len(columns[0][0])
    documents = [(pooled[row], memory[row]) for pooled, memory in columns[1:] for row in range(rows)]

    def entropy(score: Callable[[tuple[Tensor, Tensor], tuple[Tensor, Tensor]], Tensor]) -> Tensor:
        losses = []
        for row in range(rows):
            query = columns[0][0][row], columns[0][1][row]
            scores = torch.stack([score(query, document) / settings.temperature for document in documents])
            losses.append(scores.exp().sum().log() - scores[row])
        return torch.stack(losses).mean()

    def of_pooled(query: tuple[Tensor, Tensor], document: tuple[Tensor, Tensor]) -> Tensor:
        return query[0] @ document[0] if settings.similarity == "dot" else cosine(query[0], document[0])

    alike = [
        cosine(memory[i], memory[j]) ** 2
        for _, column in columns
        for memory in column
        for i in range(len(memory))
        for j in range(len(memory))
        if i != j
    ]
    share = settings.maxsim_weight
    return (
        (1 - share) * entropy(of_pooled)
        + share * entropy(lambda query, document: slow_maxsim(query[1], document[1]))
        + settings.diversity_weight * torch.stack(alike).mean()
    )


class Lookup(nn.Module):
    """Memory states of texts from a table, (texts, k, dim), and their sum as the embedding."""

    def __init__(self, texts: int, tokens: int, dimension: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(texts, tokens, dimension))

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        states = self.table[features["input_ids"][:, 0]]
        return {"token_embeddings": states, "sentence_embedding": states.sum(1)}


def similarity(settings: ContrastiveSettings) -> Callable[[Tensor, Tensor], Tensor]:
    return dot_score if settings.similarity == "dot" else cos_sim


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("negatives", [0, 2])
@pytest.mark.parametrize("micro_batch", [None, 1, 2, 5])
def test_loss_and_gradients_are_those_of_loops(
    weights: dict[str, Any], negatives: int, micro_batch: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    rows, tokens, dimension = 5, 3, 8
    model = Lookup(rows * (2 + negatives), tokens, dimension)
    settings = ContrastiveSettings(
        pairs=("p",), steps=1, batch_size=rows, learning_rate=1e-3, temperature=0.5, **weights
    )
    numbers = torch.arange(len(model.table)).reshape(-1, rows, 1)
    states = [model.table[column[:, 0]] for column in numbers]
    expected = slow_loss([(column.sum(1), column) for column in states], settings)
    [gradient] = torch.autograd.grad(expected, [model.table])
    loss = LateInteractionLoss(model, settings, similarity(settings), micro_batch=micro_batch)
    monkeypatch.setattr(late_interaction, "_PRODUCTS_AT_ONCE", 200)  # so that products are computed in parts
    found = loss([{"input_ids": column} for column in numbers])
    torch.testing.assert_close(found.detach(), expected.detach())
    (2 * found).backward()
    assert model.table.grad is not None
    torch.testing.assert_close(model.table.grad, 2 * gradient, rtol=1e-4, atol=1e-6)


def test_maxsim_is_that_of_search_over_the_number_of_tokens() -> None:
    queries, documents = (np.random.default_rng(seed).normal(size=(size, 4, 16)) for seed, size in ((1, 5), (2, 7)))
    queries, documents = (array / np.linalg.norm(array, axis=2, keepdims=True) for array in (queries, documents))
    found = mean_maxsim(torch.tensor(queries), torch.tensor(documents))
    np.testing.assert_allclose(found.numpy(), maxsim(queries, documents) / 4, atol=1e-6)


def test_the_penalty_of_tokens_that_are_alike_orthogonal_and_between() -> None:
    east, north = torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0])
    between = torch.tensor([0.6, 0.8, 0])
    texts = torch.stack([torch.stack([east, east]), torch.stack([east, -east]), torch.stack([east, north])])
    assert diversity_penalty(texts).tolist() == [1.0, 1.0, 0.0]
    three = torch.stack([torch.stack([east, north, between])])
    assert diversity_penalty(three).item() == pytest.approx((0.36 + 0.64) / 3)


def test_the_first_loss_of_a_run_is_that_of_the_vectors_that_an_index_stores(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 6)
    untrained = small_model()
    settings = supervised(pairs, batch_size=6, steps=1, temperature=0.1, maxsim_weight=0.5, diversity_weight=0.2)
    train_contrastive(small_model(), settings, tmp_path / "run")
    rows = [(f"{text(10 * row, 5)} {row}", f"{text(10 * row + 1, 12)} {row}") for row in range(6)]
    columns = []
    for texts in zip(*rows, strict=True):
        vectors = untrained.encode_vectors(list(texts))
        columns.append((torch.tensor(vectors.pooled), torch.tensor(vectors.memory)))
    assert read_metrics(tmp_path / "run")[0]["loss"] == pytest.approx(float(slow_loss(columns, settings)), rel=1e-4)


def test_micro_batches_train_as_the_whole_batch_does(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 30, negatives=1)
    runs = []
    for micro_batch in (None, 3):
        folder = tmp_path / str(micro_batch)
        settings = supervised(pairs, batch_size=8, micro_batch=micro_batch, maxsim_weight=0.5, diversity_weight=0.1)
        model = train_contrastive(small_model(), settings, folder)
        runs.append((weights_of(model), [(entry["loss"], entry["grad_norm"]) for entry in read_metrics(folder)]))
    assert np.array(runs[0][1]) == pytest.approx(np.array(runs[1][1]), rel=1e-3)
    for name, weight in runs[0][0].items():
        torch.testing.assert_close(runs[1][0][name], weight, rtol=1e-3, atol=1e-4)


def test_the_penalty_drives_memory_tokens_apart(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 20)
    found = {}
    for weight in (0.0, 20.0):
        settings = supervised(pairs, steps=12, learning_rate=3e-3, maxsim_weight=0.5, diversity_weight=weight)
        model = train_contrastive(small_model(adapter=None), settings, tmp_path / str(weight))
        found[weight] = float(
            diversity_penalty(torch.tensor(model.encode_vectors([text(5, 20), text(6, 20)]).memory)).mean()
        )
    assert found[20.0] < found[0.0] - 0.05


def test_the_held_out_loss_is_of_the_same_kind(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 40)
    settings = supervised(pairs, heldout_rows=4, steps=2, eval_steps=2, maxsim_weight=1.0)
    model = train_contrastive(small_model(), settings, tmp_path / "run")
    rows = [(f"{text(10 * row, 5)} {row}", f"{text(10 * row + 1, 12)} {row}") for row in range(4)]
    queries, documents = (model.encode_vectors(list(texts)).memory for texts in zip(*rows, strict=True))
    scores = torch.tensor(maxsim(queries, documents)) / 3 / settings.temperature
    expected = float(nn.functional.cross_entropy(scores, torch.arange(4)))
    [loss] = [entry["eval_pairs_loss"] for entry in read_metrics(tmp_path / "run") if "eval_pairs_loss" in entry]
    assert loss == pytest.approx(expected, rel=1e-4)


def test_a_forecast_runs_the_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, losses = LateInteractionLoss.forward, []
    monkeypatch.setattr(LateInteractionLoss, "forward", lambda *given: losses.append(forward(*given)) or losses[-1])
    settings = supervised(write_pairs(tmp_path / "pairs.jsonl", 12), maxsim_weight=0.5, diversity_weight=0.1)
    assert estimate_stage("supervised", small_model(), settings).seconds > 0
    assert losses


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"maxsim_weight": 1.5}, "maxsim_weight is 1.5; give 0"),
        ({"maxsim_weight": -0.1}, "maxsim_weight is -0.1; give 0"),
        ({"diversity_weight": -1.0}, "diversity_weight is -1.0; it must be at least 0"),
        ({"maxsim_weight": 1.0, "similarity": "dot"}, "similarity dot is of embeddings, which maxsim_weight 1 leaves"),
    ],
)
def test_settings_that_contradict_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        supervised(Path("pairs.jsonl"), **fields)


@pytest.mark.parametrize("fields", [{"maxsim_weight": 0.5}, {"diversity_weight": 0.5}])
def test_a_single_memory_token_is_refused_everywhere(fields: dict[str, float], tmp_path: Path) -> None:
    [(name, value)] = fields.items()
    message = f"{name} {value}: several memory tokens of a text are compared, and the model has 1"
    settings = supervised(write_pairs(tmp_path / "pairs.jsonl", 8), **fields)
    with pytest.raises(SettingsError, match=message):
        train_contrastive(small_model(memory_tokens=1), settings, tmp_path / "run")
    with pytest.raises(SettingsError, match=message):
        estimate_stage("supervised", small_model(memory_tokens=1), settings)
    recipe = write_recipe(tmp_path, model={"memory_tokens": 1, "max_length": 64, "adapter": None})
    recipe.write_text(recipe.read_text().replace("micro_batch: 2", f"micro_batch: 2\n  {name}: {value}"))
    with pytest.raises(SettingsError, match=f"supervised: {message}"):
        read_recipe(recipe, data=tmp_path / "data", pairs=tmp_path / "pairs")
