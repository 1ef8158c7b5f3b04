"""Whitening against a slow reading of its definition, and models that have one: saved, loaded, exported."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

import llm2comp
from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.errors import ModelFolderError
from llm2comp.model import LLM2Comp
from llm2comp.model_saving import save_whitened
from llm2comp.whitening import whitening_matrix

TEXTS = ["A text.", "Another text, which is longer than the first.", "🍵", "find: a bridge of stone"]


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def vectors_of(count: int, dimension: int) -> NDArray[np.float32]:
    """Unit vectors most of whose length is in a few directions."""
    draw = np.random.default_rng(5)
    spread = np.diag(0.8 ** np.arange(dimension))
    turned = draw.normal(size=(count, dimension)) @ spread @ np.linalg.qr(draw.normal(size=(dimension, dimension)))[0]
    return unit(turned).astype(np.float32)


def random_matrix(dimension: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(6).normal(size=(dimension, dimension)).astype(np.float32))


class TestMatrix:
    @pytest.mark.parametrize("power", [0.25, 0.5, 0.75, 1.0])
    def test_spreads_are_evened_out_by_the_power(self, power: float) -> None:
        """The components of V S^(1-p), by singular values of the vectors, up to signs and one factor."""
        vectors = vectors_of(5000, 12)
        mapped = vectors @ whitening_matrix(vectors, power).T
        moments = mapped.T.astype(np.float64) @ mapped / len(vectors)
        singular = np.linalg.svd(vectors.astype(np.float64), compute_uv=False)
        expected = singular ** (2 - 2 * power)
        np.testing.assert_allclose(np.diag(moments), expected / expected.sum(), rtol=1e-4)
        np.testing.assert_allclose(moments - np.diag(np.diag(moments)), 0, atol=1e-6)
        assert np.mean((mapped**2).sum(1)) == pytest.approx(1)

    def test_cosines_are_those_of_the_inverse_root_of_the_moments(self) -> None:
        vectors = vectors_of(400, 6)
        squares, directions = np.linalg.eigh(vectors.T.astype(np.float64) @ vectors)
        root = directions @ np.diag(squares**-0.5) @ directions.T
        expected = unit(vectors[:20] @ root)
        actual = unit(vectors[:20] @ whitening_matrix(vectors, 1.0).T)
        np.testing.assert_allclose(actual @ actual.T, expected @ expected.T, atol=1e-5)

    def test_the_first_components_are_the_ones_to_keep(self) -> None:
        vectors = vectors_of(2000, 16)
        mapped = vectors @ whitening_matrix(vectors, 0.5).T
        first, last = (unit(mapped[:300, part]) for part in (slice(0, 4), slice(12, 16)))
        whole = unit(mapped[:300])
        assert np.abs(first @ first.T - whole @ whole.T).mean() < 0.5 * np.abs(last @ last.T - whole @ whole.T).mean()

    def test_a_direction_that_no_text_has_gives_finite_numbers(self) -> None:
        flat = vectors_of(100, 8)
        flat[:, 3] = 0
        assert np.isfinite(whitening_matrix(flat, 1.0)).all()


class TestModel:
    @pytest.fixture
    def white(self, model: LLM2Comp) -> LLM2Comp:
        return model.variant(whitening=random_matrix(64))

    def test_vectors_are_mapped_and_memory_tokens_are_not(self, model: LLM2Comp, white: LLM2Comp) -> None:
        expected = unit(model.variant(normalize=False).encode(TEXTS) @ random_matrix(64).numpy().T)
        np.testing.assert_allclose(white.encode(TEXTS), expected, atol=1e-5)
        assert np.array_equal(white.encode_memory(TEXTS), model.encode_memory(TEXTS))
        both = white.encode_vectors(TEXTS)
        np.testing.assert_allclose(both.pooled, expected, atol=1e-5)
        np.testing.assert_allclose(both.memory, model.encode_vectors(TEXTS).memory, atol=1e-6)

    def test_the_model_it_was_made_of_stays(self, model: LLM2Comp, white: LLM2Comp) -> None:
        assert model.whitening is None
        assert model.fingerprint != white.fingerprint
        assert white.variant(whitening=None).fingerprint == model.fingerprint
        assert white.variant(whitening=random_matrix(64) * 2).fingerprint != white.fingerprint
        query = white.encode_query("a bridge")
        np.testing.assert_allclose(query, white.encode([white.prompts["query"] + "a bridge"])[0], atol=1e-6)

    def test_shortened_vectors_are_the_beginning_of_whole_ones(self, white: LLM2Comp) -> None:
        short = white.variant()
        short.truncate_dim = 10
        np.testing.assert_allclose(short.encode(TEXTS), unit(white.encode(TEXTS)[:, :10]), atol=1e-6)
        assert short.encode_vectors(TEXTS).pooled.shape == (4, 10)

    @pytest.mark.parametrize("weights", [None, "bfloat16", "int8"])
    def test_saved_and_loaded(self, make_model: Callable[..., LLM2Comp], tmp_path: Path, weights: str | None) -> None:
        model = make_model(adapter=None) if weights else make_model()
        white = model.variant(whitening=random_matrix(64))
        white.save(tmp_path / "white", weights_dtype=weights)
        loaded = llm2comp.load(tmp_path / "white", device="cpu", dtype="float32")
        assert loaded.whitening is not None
        assert torch.equal(loaded.whitening.linear.weight, random_matrix(64))
        config = json.loads((tmp_path / "white" / "llm2comp.json").read_text())
        assert loaded.fingerprint == config["fingerprint"]
        assert config["format_version"] == 3, "older versions would leave the whitening out"
        plain = SentenceTransformer(str(tmp_path / "white"), device="cpu", trust_remote_code=True)
        np.testing.assert_allclose(plain.encode(TEXTS), loaded.encode(TEXTS), atol=1e-6)
        if weights is None:
            assert np.array_equal(loaded.encode(TEXTS), white.encode(TEXTS))
            assert loaded.fingerprint == white.fingerprint

    @pytest.mark.parametrize("weights", [None, "int8"])
    def test_a_folder_made_of_another_one_has_its_files(
        self, make_model: Callable[..., LLM2Comp], tmp_path: Path, weights: str | None
    ) -> None:
        make_model(adapter=None if weights else AdapterSettings(rank=4)).save(tmp_path / "plain", weights_dtype=weights)
        save_whitened(tmp_path / "plain", tmp_path / "white", random_matrix(64))
        save_whitened(tmp_path / "white", tmp_path / "again", random_matrix(64) * 2)
        plain = llm2comp.load(tmp_path / "plain", device="cpu", dtype="float32")
        for folder, matrix in (("white", random_matrix(64)), ("again", random_matrix(64) * 2)):
            loaded = llm2comp.load(tmp_path / folder, device="cpu", dtype="float32")
            expected = plain.variant(whitening=matrix)
            assert np.array_equal(loaded.encode(TEXTS), expected.encode(TEXTS))
            assert loaded.fingerprint == expected.fingerprint
            config = json.loads((tmp_path / folder / "llm2comp.json").read_text())
            assert loaded.fingerprint == config["fingerprint"]
            saved = tmp_path / f"{folder} as saved"
            expected.save(saved)
            assert (saved / "modules.json").read_text() == (tmp_path / folder / "modules.json").read_text()

    def test_a_folder_without_its_map_is_refused(self, white: LLM2Comp, tmp_path: Path) -> None:
        white.save(tmp_path / "white")
        (tmp_path / "white" / "2_Dense" / "model.safetensors").unlink()
        with pytest.raises(
            ModelFolderError, match=r"2_Dense/model\.safetensors is missing: copy the model folder again"
        ):
            llm2comp.load(tmp_path / "white")
        config = json.loads((tmp_path / "white" / "llm2comp.json").read_text())
        del config["files"]["2_Dense/model.safetensors"]
        (tmp_path / "white" / "llm2comp.json").write_text(json.dumps(config))
        with pytest.raises(ModelFolderError, match="2_Dense/model.safetensors: .*copy the model folder again"):
            llm2comp.load(tmp_path / "white")

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_an_export_has_it(self, white: LLM2Comp, tmp_path: Path, dtype: str) -> None:
        report = white.export(tmp_path / "plain", dtype=dtype)
        plain = SentenceTransformer(str(tmp_path / "plain"), device="cpu")
        actual = unit(plain.encode(TEXTS).astype(np.float32))
        np.testing.assert_allclose((actual * white.encode(TEXTS)).sum(1), 1, atol=1e-5 if dtype == "float32" else 0.02)
        assert report.difference < 1e-5
