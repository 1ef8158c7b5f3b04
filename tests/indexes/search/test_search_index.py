"""Answers of an index: order, completeness, every type and option, and the model of the queries."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

import llm2comp
from llm2comp.errors import IndexFolderError, ModelFolderError, SettingsError
from llm2comp_indexes import (
    Effort,
    Hit,
    IndexOptions,
    SearchOptions,
    add_documents,
    build_index,
    delete_documents,
    open_index,
)
from llm2comp_indexes.builder import blocks as row_blocks
from llm2comp_indexes.search.options import Mode
from llm2comp_indexes.search.segment import OpenSegment
from tests.word_encoder import WORDS, WordEncoder


def random_texts(count: int, words: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, words)) + f" n{row}" for row in range(count)]


@pytest.mark.parametrize("queries", [3, 40])  # FAISS takes another path from 20 queries on
def test_answers_equal_brute_force(
    tmp_path: Path,
    write_corpus: Callable[..., Path],
    encoder: WordEncoder,
    monkeypatch: pytest.MonkeyPatch,
    queries: int,
) -> None:
    monkeypatch.setattr(row_blocks, "BLOCK", 64)  # several blocks
    texts = random_texts(300, 5, seed=1)
    build_index(
        [write_corpus({"_id": f"d{row}", "text": text} for row, text in enumerate(texts))],
        tmp_path / "idx",
        model=encoder,
    )
    questions = random_texts(queries, 3, seed=2)
    answers = open_index(tmp_path / "idx", model=encoder).search(questions, k=20)
    scores = (
        encoder.encode_query(questions).astype(np.float64) @ encoder.encode_query(texts).astype(np.float64).T
    )  # (queries, documents)
    for row, hits in zip(scores, answers, strict=True):
        best = np.argsort(-row, kind="stable")[:20]
        assert [hit.id for hit in hits] == [f"d{document}" for document in best]
        np.testing.assert_allclose([hit.score for hit in hits], row[best], atol=1e-6)


def test_a_hit_holds_the_whole_document(index_folder: Path, encoder: WordEncoder) -> None:
    [[hit]] = open_index(index_folder, model=encoder).search(["the moon and the tides"], k=1)
    assert isinstance(hit, Hit)
    assert hit._replace(score=0.0) == Hit("d1", 0.0, "Title 1", "the moon and the tides", {"year": 2001})


def test_no_queries_give_no_answers(index_folder: Path, encoder: WordEncoder) -> None:
    assert open_index(index_folder, model=encoder).search([]) == []


@pytest.mark.parametrize("k", [7, 150])  # FAISS collects more than 100 results in another way
def test_identical_documents_keep_the_corpus_order(
    tmp_path: Path, write_corpus: Callable[..., Path], encoder: WordEncoder, k: int
) -> None:
    build_index(
        [write_corpus({"_id": f"d{row}", "text": "the same"} for row in range(200))], tmp_path / "idx", model=encoder
    )
    [hits] = open_index(tmp_path / "idx", model=encoder).search(["the same"], k=k)
    assert [hit.id for hit in hits] == [f"d{row}" for row in range(k)]


@pytest.mark.parametrize("kind", ["flat", "HNSW4"])
def test_any_text_and_any_id_come_back_as_they_were(
    tmp_path: Path, write_corpus: Callable[..., Path], encoder: WordEncoder, kind: str
) -> None:
    texts = [
        "-",
        "🦜 and ‮right to left‬",
        "\x00\x1b[31m\x7f\u2028",
        "long " * 250_000,
        "</s><|endoftext|>",
        "a\nb",
        "x",
        "y",
    ]
    ids = ["a b", "ü/../é", "-1", "0", "x" * 500, "line\nbreak\t\x00", "🦜‮", "../../etc/passwd"]
    source = write_corpus({"_id": name, "text": text} for name, text in zip(ids, texts, strict=True))
    build_index([source], tmp_path / "idx", model=encoder, options=IndexOptions(kind))
    [hits] = open_index(tmp_path / "idx", model=encoder).search(["long"], k=10)
    assert {hit.id: hit.text for hit in hits} == dict(zip(ids, texts, strict=True))
    assert delete_documents(tmp_path / "idx", ids[2:]).missing == ()
    [hits] = open_index(tmp_path / "idx", model=encoder).search(["long"], k=10)
    assert {hit.id for hit in hits} == set(ids[:2])


def test_a_thousand_and_more_queries_are_answered_as_each_alone(index_folder: Path, encoder: WordEncoder) -> None:
    questions = random_texts(1500, 3, seed=4)
    index = open_index(index_folder, model=encoder)
    answers = index.search(questions, k=2)
    assert len(answers) == 1500
    for position in (0, 1023, 1024, 1499):  # FAISS sums in another order for many queries at once
        [alone] = index.search([questions[position]], k=2)
        assert [hit.id for hit in answers[position]] == [hit.id for hit in alone]


@pytest.mark.parametrize("kind", ["flat", "HNSW4", "IVF2,Flat"])
def test_an_index_that_all_was_deleted_from_finds_nothing_and_can_be_filled_again(
    tmp_path: Path, corpus: Path, write_corpus: Callable[..., Path], encoder: WordEncoder, kind: str
) -> None:
    build_index([corpus], tmp_path / "idx", model=encoder, options=IndexOptions(kind, hybrid=True))
    assert delete_documents(tmp_path / "idx", [f"d{row}" for row in range(5)]).deleted == 5
    index = open_index(tmp_path / "idx", model=encoder)
    assert len(index) == 0
    for mode in ("dense", "bm25", "hybrid"):
        assert index.search(["bread", "moon"], options=SearchOptions(mode=mode)) == [[], []]
    neighbors = index.search_vectors(encoder.encode_query(["bread", "moon"]), 3)
    assert neighbors.rows.shape == neighbors.scores.shape == (2, 0)
    add_documents(tmp_path / "idx", [write_corpus([{"_id": "new", "text": "moon"}], "new.jsonl")], model=encoder)
    for mode in ("dense", "bm25", "hybrid"):
        [hits] = open_index(tmp_path / "idx", model=encoder).search(["moon"], options=SearchOptions(mode=mode))
        assert [hit.id for hit in hits] == ["new"]


def test_rows_of_a_search_by_vectors_can_be_fetched(index_folder: Path, encoder: WordEncoder) -> None:
    index = open_index(index_folder, model=encoder)
    [hits] = index.search(["bread"], k=5)
    neighbors = index.search_vectors(encoder.encode_query(["bread"]), 5)
    assert [
        index.fetch(row, score)
        for row, score in zip(neighbors.rows[0].tolist(), neighbors.scores[0].tolist(), strict=True)
    ] == hits
    with pytest.raises(SettingsError, match="mode is 'hybrid', which needs the queries' words"):
        index.search_vectors(encoder.encode_query(["bread"]), 5, options=SearchOptions(mode="hybrid"))


def test_a_string_instead_of_a_list_is_refused(index_folder: Path, encoder: WordEncoder) -> None:
    with pytest.raises(SettingsError, match="expected a list"):
        open_index(index_folder, model=encoder).search("bread")


@pytest.mark.parametrize("mode", ["dense", "bm25"])
def test_a_query_that_is_no_string_is_refused_with_its_place(
    index_folder: Path, encoder: WordEncoder, mode: Mode
) -> None:
    queries: Any = ["a cat", None]
    with pytest.raises(SettingsError, match="query 1 is NoneType 'None', expected a string"):
        open_index(index_folder, model=encoder).search(queries, options=SearchOptions(mode=mode))


@pytest.mark.parametrize("k", [-1, 0, 1001, 10**9])
def test_k_is_from_one_to_a_thousand(index_folder: Path, encoder: WordEncoder, k: int) -> None:
    index = open_index(index_folder, model=encoder)
    for find in (
        lambda: index.search(["bread"], k=k),
        lambda: index.search_vectors(encoder.encode_query(["bread"]), k),
    ):
        with pytest.raises(SettingsError, match=f"k is {k}, expected 1 to 1,000"):
            find()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mode": "fuzzy"}, "mode is 'fuzzy', expected dense, bm25 or hybrid"),
        ({"by": "page"}, "by is 'page'"),
        ({"threads": 0}, "threads is 0"),
        ({"weights": (0, 0)}, "weights is"),
        ({"weights": (-1, 1)}, "weights is"),
        ({"weights": (float("nan"), 1)}, "weights is"),
        ({"weights": (1, 2e6)}, "weights is \\(1, 2000000.0\\), expected two numbers from 0 to 1,000,000"),
        ({"weights": (1, 1, 1)}, "weights is"),
        ({"weights": ("1", 1)}, "weights is"),
        ({"weights": (None, 1)}, "weights is"),
        ({"weights": 0.5}, "weights is 0.5"),
        ({"weights": np.array([0.3, 0.7])}, "weights is"),
        ({"where": "year >="}, "where 'year >='"),
        ({"effort": {"nprobe": 0}}, "nprobe is 0"),
        ({"effort": {"ef_search": -3}}, "ef_search is -3"),
        ({"effort": {"rerank": 0}}, "rerank is 0"),
    ],
)
def test_options_that_cannot_be_are_refused_at_once(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        SearchOptions(**{name: Effort(**value) if name == "effort" else value for name, value in settings.items()})


@pytest.mark.parametrize("mode", ["bm25", "hybrid"])
def test_words_need_an_index_of_them_which_is_said_before_a_model_is_loaded(
    index_folder: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(llm2comp), "load", lambda name=None: pytest.fail("loaded a model"))
    with pytest.raises(SettingsError, match="holds no BM25 index.*--hybrid"):
        open_index(index_folder).search(["bread"], options=SearchOptions(mode=mode))


def test_words_need_no_model(
    tmp_path: Path, corpus: Path, encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index([corpus], tmp_path / "idx", model=encoder, options=IndexOptions(hybrid=True))
    monkeypatch.setitem(vars(llm2comp), "load", lambda name=None: pytest.fail("loaded a model"))
    [hits] = open_index(tmp_path / "idx").search(["moon tides"], options=SearchOptions(mode="bm25"))
    assert [hit.id for hit in hits] == ["d1"]


def test_a_field_that_no_document_has_is_refused_with_those_there_are(index_folder: Path, encoder: WordEncoder) -> None:
    with pytest.raises(SettingsError, match='no document has the field "yaer"; did you mean "year"'):
        open_index(index_folder, model=encoder).search(["bread"], options=SearchOptions(where="yaer == 2001"))


def test_threads_are_bounded_during_the_search_only(
    tmp_path: Path, index_folder: Path, encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = OpenSegment.search

    def watched(self: OpenSegment, *arguments: Any, **options: Any) -> Any:
        seen.append(faiss.omp_get_max_threads())
        return real(self, *arguments, **options)

    monkeypatch.setattr(OpenSegment, "search", watched)
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    try:
        index = open_index(index_folder, model=encoder)
        one, rest = index.search(["bread"], options=SearchOptions(threads=1)), index.search(["bread"])
        assert seen == [1, 3]
        assert one == rest
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)


def test_another_model_is_refused(index_folder: Path) -> None:
    with pytest.raises(IndexFolderError, match=r"built with .*fingerprint words-32.*--model"):
        open_index(index_folder, model=WordEncoder(fingerprint="other"))


def test_another_dimension_is_refused(index_folder: Path) -> None:
    with pytest.raises(IndexFolderError, match="dimension 32, the model gives 16"):
        open_index(index_folder, model=WordEncoder(dimension=16))


def test_query_vectors_of_another_dimension_are_refused(index_folder: Path, encoder: WordEncoder) -> None:
    with pytest.raises(IndexFolderError, match=r"\(2, 16\), expected \(queries, 32\)"):
        open_index(index_folder, model=encoder).search_vectors(np.zeros((2, 16), dtype=np.float32))


def test_a_query_vector_that_is_not_finite_is_refused(
    index_folder: Path, encoder: WordEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    for name, recorded in (
        (None, None),
        ("some/hub-model", "some/hub-model"),
        ("my-model", str(tmp_path / "my-model")),
    ):
        build_index([corpus], tmp_path / "idx", model=name, overwrite=True)
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

    class OvertakenSegment(OpenSegment):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            monkeypatch.undo()
            build_index([new], index_folder, model=encoder, overwrite=True)
            super().__init__(*arguments, **options)

    monkeypatch.setattr("llm2comp_indexes.search.opened.OpenSegment", OvertakenSegment)
    assert [hit.id for hit in open_index(index_folder, model=encoder).search(["bread"])[0]] == ["new"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="lists open files through /proc")
@pytest.mark.parametrize("kind", ["HNSW8", "IVF8,SQ8"])
def test_a_closed_index_keeps_no_file_open(
    tmp_path: Path, make_full_index: Callable[..., Path], encoder: WordEncoder, kind: str
) -> None:
    folder = make_full_index(tmp_path / "idx", kind)
    with open_index(folder, model=encoder) as index:
        assert len(index.search(["bread"], k=2, options=SearchOptions(mode="hybrid", where="year > 2003"))[0]) == 2
    assert not [
        name for name in os.listdir("/proc/self/fd") if str(folder) in os.path.realpath(f"/proc/self/fd/{name}")
    ]


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((2, 31)), "query vectors of shape (2, 31), expected (2, 32)"),
        (np.ones((1, 32)), "query vectors of shape (1, 32), expected (2, 32)"),
        (np.ones(32), "query vectors of shape (32,), expected (2, 32)"),
        (np.full((2, 32), np.nan), "query vectors are not all finite numbers"),
    ],
)
def test_vectors_that_are_not_those_of_the_queries_are_refused(
    index_folder: Path, encoder: WordEncoder, vectors: np.ndarray, message: str
) -> None:
    index = open_index(index_folder, model=encoder)
    with pytest.raises(IndexFolderError, match=re.escape(message)):
        index.search(["bread", "moon"], vectors=vectors.astype(np.float32))


@pytest.mark.parametrize("steps", [1, 3])
def test_of_more_equals_by_words_than_a_window_holds_hybrid_prefers_the_nearest(
    tmp_path: Path, write_corpus: Callable[..., Path], steps: int
) -> None:
    encoder, texts = WordEncoder(), [f"red n{row}" for row in range(300)]
    texts[::5] = [" ".join(["blue"] * (2 + row)) for row in range(60)]  # steps differ in their mean length
    rows = [{"_id": str(row), "text": text, "metadata": {"row": row}} for row, text in enumerate(texts)]
    for step in range(steps):
        part = write_corpus(rows[300 * step // steps : 300 * (step + 1) // steps], f"{step}.jsonl")
        if step:
            add_documents(tmp_path / "idx", [part], model=encoder)
        else:
            build_index([part], tmp_path / "idx", model=encoder, options=IndexOptions(hybrid=True))
    index, query = open_index(tmp_path / "idx", model=encoder), encoder.encode_query(["red n288"])
    cosines = (encoder.encode_query(texts) @ query[0]).tolist()

    def expected(rows: list[int]) -> list[tuple[str, float]]:
        best, hundredth = (sorted((cosines[row] for row in rows), reverse=True)[place] for place in (0, 99))
        scores = {
            row: 0.3 * max(0, (cosines[row] - hundredth) / (best - hundredth)) + 0.7 * (row % 5 > 0) for row in rows
        }
        return [(str(row), scores[row]) for row in sorted(rows, key=lambda row: (-scores[row], row))]

    for where, among in ((None, list(range(300))), ("row >= 40", list(range(40, 300)))):
        reference = expected(among)
        assert reference[0][0] == "288"
        for k in (1, 5, 60):
            [hits] = index.search(["red"], k, options=SearchOptions(mode="hybrid", where=where), vectors=query)
            assert [hit.id for hit in hits] == [name for name, _ in reference[:k]]
            assert [hit.score for hit in hits] == pytest.approx([score for _, score in reference[:k]], abs=1e-5)
