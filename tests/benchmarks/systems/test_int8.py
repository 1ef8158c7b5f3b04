"""The int8 system: its products are those of whole numbers, and a text's vector is its own."""

from pathlib import Path

import numpy as np
import torch

import llm2comp
from llm2comp_benchmarks.systems.int8 import load_int8, rounded_to_int8
from llm2comp_benchmarks.systems.load import load_model

TEXTS = ["Remove a file or directory.", "Return the square root of x.", "sea ice " * 15]


def test_products_are_those_of_whole_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, weights = torch.randn(5, 16, generator=generator), torch.randn(3, 16, generator=generator)
    scales = [rows.abs().amax(1, keepdim=True) / 127 for rows in (inputs, weights)]
    whole = [(rows / scale).round().to(torch.int32) for rows, scale in zip((inputs, weights), scales, strict=True)]
    expected = (whole[0] @ whole[1].T) * (scales[0] @ scales[1].T)
    torch.testing.assert_close(rounded_to_int8(inputs) @ rounded_to_int8(weights).T, expected)


def test_a_row_of_zeros_stays() -> None:
    assert torch.equal(rounded_to_int8(torch.zeros(1, 4)), torch.zeros(1, 4))


def test_vectors_are_near_and_do_not_depend_on_other_texts(saved_model: Path) -> None:
    model = load_int8(str(saved_model))
    vectors = np.asarray(model.encode_document(TEXTS))
    exact = np.asarray(llm2comp.load(saved_model, device="cpu", dtype="float32").encode_document(TEXTS))
    cosines = (vectors * exact).sum(1)
    assert 0.98 < cosines.min() < cosines.max() < 0.999999
    alone = np.concatenate([np.asarray(model.encode_document([text])) for text in TEXTS])
    np.testing.assert_allclose(alone, vectors, atol=2e-2)
    assert (alone * vectors).sum(1).min() > 0.9995


def test_it_is_a_system_by_name(saved_model: Path) -> None:
    assert isinstance(load_model(f"int8:{saved_model}"), llm2comp.LLM2Comp)
