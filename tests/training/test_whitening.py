"""Fitting a whitening: the texts it is fitted to, what it does to vectors, and stages and recipes around it."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import llm2comp
from llm2comp.errors import SettingsError
from llm2comp.training.contrastive import train_contrastive
from llm2comp.training.whitening import draw_texts, fit_whitening
from llm2comp.training.whitening_settings import WhiteningSettings
from llm2comp.whitening import whitening_matrix
from tests.training.tiny import small_model, supervised, text, write_corpus, write_pairs

TEXTS = [text(number, 8) for number in range(200)]


class TestDraw:
    def test_all_texts_of_small_sources(self, tmp_path: Path) -> None:
        corpus = write_corpus(tmp_path / "corpus.jsonl", ["one", "two", " "])
        pairs = write_pairs(tmp_path / "pairs.jsonl", 2, negatives=1)
        rows = [json.loads(line) for line in pairs.read_text().splitlines()]
        drawn = draw_texts(WhiteningSettings(corpora=(str(corpus),), pairs=(str(pairs),)))
        of_pairs = [row[name] for row in rows for name in ("query", "positive")]
        assert sorted(drawn) == sorted(["Bridge 0\none", "Bridge 1\ntwo", "Bridge 2", *of_pairs])

    def test_every_text_is_as_likely(self, tmp_path: Path) -> None:
        corpus = str(write_corpus(tmp_path / "corpus.jsonl", [f"text {number}" for number in range(40)]))
        counts = np.zeros(40)
        for seed in range(400):
            for drawn in draw_texts(WhiteningSettings(corpora=(corpus,), texts=10, seed=seed)):
                counts[int(drawn.split()[-1])] += 1
        assert counts.sum() == 4000
        assert np.abs(counts - 100).max() < 4 * np.sqrt(75)  # standard deviations of a binomial count

    def test_of_each_source_as_many(self, tmp_path: Path) -> None:
        corpora = [
            str(write_corpus(tmp_path / f"{name}.jsonl", [f"{name} {number}" for number in range(count)]))
            for name, count in (("large", 300), ("small", 20), ("tiny", 3))
        ]
        drawn = draw_texts(WhiteningSettings(corpora=tuple(corpora), texts=30))
        kinds = [entry.split()[-2] for entry in drawn]
        assert [kinds.count(name) for name in ("large", "small", "tiny")] == [10, 10, 3]

    def test_a_seed_draws_the_same(self, tmp_path: Path) -> None:
        corpus = str(write_corpus(tmp_path / "corpus.jsonl", [text(number, 400) for number in range(30)]))
        one, again, other = (draw_texts(WhiteningSettings(corpora=(corpus,), texts=9, seed=seed)) for seed in (1, 1, 2))
        assert one == again != other

    def test_a_long_document_gives_all_its_pieces(self, tmp_path: Path) -> None:
        whole = text(1, 2000).replace(". ", ".\n")
        corpus = str(write_corpus(tmp_path / "corpus.jsonl", [whole]))
        pieces = draw_texts(WhiteningSettings(corpora=(corpus,)))
        assert sorted(" ".join(pieces).split()) == sorted(f"Bridge 0 {whole}".split())
        assert all(500 < length <= 1000 for length in sorted(map(len, pieces))[1:])
        letters = str(write_corpus(tmp_path / "letters.jsonl", ["a" * 2500]))
        assert sorted(map(len, draw_texts(WhiteningSettings(corpora=(letters,))))) == [509, 1000, 1000]

    def test_a_long_positive_gives_a_part_from_a_word(self, tmp_path: Path) -> None:
        whole = text(1, 2000)
        (tmp_path / "pairs.jsonl").write_text(json.dumps({"query": "q", "positive": whole}) + "\n")
        drawn = [draw_texts(WhiteningSettings(pairs=(str(tmp_path / "pairs.jsonl"),), seed=seed)) for seed in range(20)]
        parts = [max(texts, key=len) for texts in drawn]
        assert len(set(parts)) > 15
        for part in parts:
            assert 990 <= len(part) <= 1000
            place = whole.find(part)
            assert place == 0 or (place > 0 and whole[place - 1].isspace())

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({}, "whitening is fitted to texts: give corpora or pairs"),
            ({"power": 0.0}, "power is 0; give a number above 0, at most 1"),
            ({"power": 1.5}, "power is 1.5; give"),
            ({"texts": 0}, "texts is 0; it must be at least 1"),
        ],
    )
    def test_settings_that_make_no_sense(self, fields: dict[str, Any], named: str) -> None:
        with pytest.raises(SettingsError, match=named):
            WhiteningSettings(**({"corpora": ("x",)} if fields else {}), **fields)


class TestFit:
    def test_it_is_the_map_of_the_vectors_of_the_texts(self) -> None:
        model = small_model()
        vectors = model.encode_document(TEXTS)
        seen: list[tuple[str, int]] = []
        fitted = fit_whitening(model, TEXTS, power=0.5, progress=lambda *step: seen.append(step))
        np.testing.assert_allclose(fitted.numpy(), whitening_matrix(vectors, 0.5), atol=1e-4)
        assert seen == [("texts encoded", 200)]
        white = model.variant(whitening=fitted)
        again = fit_whitening(white.variant(normalize=False), TEXTS, power=0.5)
        assert torch.equal(again, fitted), "the whitening that a model has is not used"

    def test_texts_that_are_too_few(self, caplog: pytest.LogCaptureFixture) -> None:
        model = small_model()
        with pytest.raises(SettingsError, match="dimension 64 is fitted to at least 64 texts, .*and there are 63"):
            fit_whitening(model, TEXTS[:63])
        with caplog.at_level(logging.WARNING, "llm2comp"):
            fit_whitening(model, TEXTS, power=0.5)
            assert not caplog.messages
            fit_whitening(model, TEXTS)
        assert "200 texts are few for vectors of dimension 64" in caplog.text

    def test_shortened_vectors(self) -> None:
        model = small_model()
        model.truncate_dim = 8
        with pytest.raises(SettingsError, match="without truncate_dim"):
            fit_whitening(model, TEXTS)

    def test_a_stage_after_it_trains_through_it_and_leaves_it(self, tmp_path: Path) -> None:
        model = small_model()
        white = model.variant(whitening=fit_whitening(model, TEXTS, power=0.5))
        before, vectors = white.whitening.linear.weight.clone(), white.encode(TEXTS[:5])
        train_contrastive(white, supervised(write_pairs(tmp_path / "pairs.jsonl", 16), steps=2), tmp_path / "run")
        assert torch.equal(white.whitening.linear.weight, before)
        assert np.abs(white.encode(TEXTS[:5]) - vectors).max() > 1e-4
        white.save(tmp_path / "trained")
        loaded = llm2comp.load(tmp_path / "trained", device="cpu", dtype="float32")
        np.testing.assert_allclose(loaded.encode(TEXTS[:5]), white.encode(TEXTS[:5]), atol=1e-6)
