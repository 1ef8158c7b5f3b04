"""Answers: exact, in order, whole, from the model the index was built with."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llm2comp
from llm2comp.errors import IndexFolderError, ModelFolderError, SettingsError
from llm2comp_indexes import Hit, build, build_index, open_index, search, vectors
from tests.word_encoder import WordEncoder

WORDS = ["bread", "moon", "list", "rain", "prime", "harbour", "tides", "oven", "butter", "numbers", "sea", "field", "stone", "light"]


def random_texts(count: int, words: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, words)) + f" n{row}" for row in range(count)]


@pytest.mark.parametrize("queries", [3, 40])  # FAISS takes another path from 20 queries on
def test_answers_equal_brute_force(
    tmp_path: Path, write_corpus: Callable[..., Path], encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch, queries: int
) -> None:
    monkeypatch.setattr(build, "BLOCK", 64)  # several blocks
    texts = random_texts(300, 5, seed=1)
    build_index([write_corpus({"_id": f"d{row}", "text": text} for row, text in enumerate(texts))], tmp_path / "idx", model=encoder)
    questions = random_texts(queries, 3, seed=2)
    answers = open_index(tmp_path / "idx", model=encoder).search(questions, k=20)
    scores = encoder.encode_query(questions).astype(np.float64) @ encoder.encode_query(texts).astype(np.float64).T  # (queries, documents)
    for row, hits in zip(scores, answers, strict=True):
        best = np.argsort(-row, kind="stable")[:20]
        assert [hit.id for hit in hits] == [f"d{document}" for document in best]
        np.testing.assert_allclose([hit.score for hit in hits], row[best], atol=1e-6)


def test_a_hit_holds_the_whole_document(index_folder: Path, encoder: WordEncoder) -> None:
    [[hit]] = open_index(index_folder, model=encoder).search(["the moon and the tides"], k=1)
    assert isinstance(hit, Hit)
    assert hit._replace(score=0.0) == Hit("d1", 0.0, "Title 1", "the moon and the tides", {"year": 2001})


def test_k_beyond_the_index_gives_every_document(index_folder: Path, encoder: WordEncoder) -> None:
    [hits] = open_index(index_folder, model=encoder).search(["bread"], k=1000)
    assert sorted(hit.id for hit in hits) == ["d0", "d1", "d2", "d3", "d4"]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_no_queries_give_no_answers(index_folder: Path, encoder: WordEncoder) -> None:
    assert open_index(index_folder, model=encoder).search([]) == []


@pytest.mark.parametrize("k", [7, 150])  # FAISS collects more than 100 results in another way
def test_identical_documents_keep_the_corpus_order(tmp_path: Path, write_corpus: Callable[..., Path], encoder: WordEncoder, k: int) -> None:
    build_index([write_corpus({"_id": f"d{row}", "text": "the same"} for row in range(200))], tmp_path / "idx", model=encoder)
    [hits] = open_index(tmp_path / "idx", model=encoder).search(["the same"], k=k)
    assert [hit.id for hit in hits] == [f"d{row}" for row in range(k)]


def test_any_text_comes_back_as_it_was(tmp_path: Path, write_corpus: Callable[..., Path], encoder: WordEncoder) -> None:
    texts = ["", "🦜 and ‮right to left‬", "\x00\x1b[31m\x7f\u2028", "long " * 250_000, "</s><|endoftext|>"]
    ids = ["a b", "ü/../é", "-1", "0", "x" * 500]
    source = write_corpus({"_id": name, "text": text} for name, text in zip(ids, texts, strict=True))
    build_index([source], tmp_path / "idx", model=encoder)
    [hits] = open_index(tmp_path / "idx", model=encoder).search(["long"], k=10)
    assert {hit.id: hit.text for hit in hits} == dict(zip(ids, texts, strict=True))


def test_a_string_instead_of_a_list_is_refused(index_folder: Path, encoder: WordEncoder) -> None:
    with pytest.raises(SettingsError, match="expected a list"):
        open_index(index_folder, model=encoder).search("bread")


def test_k_below_one_is_refused(index_folder: Path, encoder: WordEncoder) -> None:
    with pytest.raises(SettingsError, match="k is 0"):
        open_index(index_folder, model=encoder).search(["bread"], k=0)


def test_another_model_is_refused(index_folder: Path) -> None:
    with pytest.raises(IndexFolderError, match=r"built with .*fingerprint words-32.*--model"):
        open_index(index_folder, model=WordEncoder(fingerprint="other"))


def test_another_dimension_is_refused(index_folder: Path) -> None:
    with pytest.raises(IndexFolderError, match="dimension 32, the model gives 16"):
        open_index(index_folder, model=WordEncoder(dimension=16))


def test_query_vectors_of_another_dimension_are_refused(index_folder: Path, encoder: WordEncoder) -> None:
    with pytest.raises(IndexFolderError, match=r"\(2, 16\), expected \(queries, 32\)"):
        open_index(index_folder, model=encoder).search_vectors(np.zeros((2, 16), dtype=np.float32))


def test_a_query_vector_that_is_not_finite_is_refused(index_folder: Path, encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    index = open_index(index_folder, model=encoder)
    monkeypatch.setattr(encoder, "encode_query", lambda texts, **_: np.full((len(texts), 32), np.nan))
    with pytest.raises(IndexFolderError, match="not finite for the text 'bread'"):
        index.search(["bread"])


def test_the_model_is_loaded_by_its_recorded_name_at_the_first_query(
    tmp_path: Path, corpus: Path, encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str | None] = []

    def load(name: str | None = None) -> WordEncoder:
        loaded.append(name)
        return encoder

    monkeypatch.setitem(vars(llm2comp), "load", load)  # setattr would import torch to know the old value
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-model").mkdir()
    for given, recorded in ((None, None), ("some/hub-model", "some/hub-model"), ("my-model", str(tmp_path / "my-model"))):
        build_index([corpus], tmp_path / "idx", model=given, overwrite=True)
        loaded.clear()
        index = open_index(tmp_path / "idx")
        assert loaded == []
        index.search(["bread"])
        index.search(["bread"])
        assert loaded == ([recorded] if recorded else [None])


def test_a_model_that_is_gone_is_an_error_of_the_index(index_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str | None = None) -> WordEncoder:
        raise ModelFolderError("no model at /gone")

    monkeypatch.setitem(vars(llm2comp), "load", load)
    with pytest.raises(IndexFolderError, match=r"idx: its model cannot be loaded: no model at /gone; .*--model"):
        open_index(index_folder).search(["bread"])


def test_an_index_overwritten_while_it_is_opened_opens_as_the_new_one(
    index_folder: Path, write_corpus: Callable[..., Path], encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = write_corpus([{"_id": "new", "text": "bread"}], "new.jsonl")

    def overwrite_first(*arguments: Any) -> Any:
        monkeypatch.undo()
        build_index([new], index_folder, model=encoder, overwrite=True)
        return vectors.read_flat(*arguments)

    monkeypatch.setattr(search, "read_flat", overwrite_first)
    assert [hit.id for hit in open_index(index_folder, model=encoder).search(["bread"])[0]] == ["new"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="lists open files through /proc")
def test_a_closed_index_keeps_no_file_open(index_folder: Path, encoder: WordEncoder) -> None:
    with open_index(index_folder, model=encoder) as index:
        assert len(index.search(["bread"], k=2)[0]) == 2
    assert not [name for name in os.listdir("/proc/self/fd") if str(index_folder) in os.path.realpath(f"/proc/self/fd/{name}")]
