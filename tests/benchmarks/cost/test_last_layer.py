"""The benchmark of the last layer: both variants on the same texts, with the same vectors."""

import json
from collections.abc import Callable
from statistics import median

import numpy as np
import pytest

from llm2comp.model import LLM2Comp
from llm2comp_benchmarks.cost.encode.last_layer import _all_tokens, compare_last_layers
from tests.paths import RESULTS


def test_the_ratio_is_that_of_the_rounds(make_model: Callable[..., LLM2Comp]) -> None:
    entry = compare_last_layers(make_model(), ["one text", "another, longer text"], rounds=3)
    ours, full = entry["cpu_seconds"]["memory tokens"], entry["cpu_seconds"]["all tokens"]
    ratios = [whole / part for whole, part in zip(full, ours, strict=True)]
    assert (entry["speed"]["least"], entry["speed"]["most"]) == pytest.approx((min(ratios), max(ratios)))
    assert entry["texts"] == 2


def test_both_variants_give_the_same_vectors(make_model: Callable[..., LLM2Comp]) -> None:
    model, texts = make_model(), ["one text", "another, longer text"]
    mlp = model.encoder.backbone.language_model.model.layers[-1].mlp
    rows: list[int] = []
    handle = mlp.register_forward_hook(lambda module, args, output: rows.append(args[0].shape[1]))
    vectors = model.encode(texts)
    with _all_tokens(model):
        np.testing.assert_allclose(model.encode(texts), vectors, rtol=0, atol=1e-6)
    assert rows[0] == 2 * model.memory_tokens < rows[1]
    handle.remove()


def test_the_published_ratios_are_those_of_their_seconds() -> None:
    record = json.loads((RESULTS / "last-layer.json").read_text(encoding="utf-8"))
    entries = [entry for entry in record.values() if isinstance(entry, dict) and "cpu_seconds" in entry]
    assert len(entries) == 8
    for entry in entries:
        seconds = zip(entry["cpu_seconds"]["all tokens"], entry["cpu_seconds"]["memory tokens"], strict=True)
        assert entry["speed"]["median"] == pytest.approx(median(full / ours for full, ours in seconds))
        assert entry["speed"]["median"] > 1.05
