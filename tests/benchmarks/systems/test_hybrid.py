"""The hybrid system: fusion by hand, and the ranking of an index with both."""

from pathlib import Path

import numpy as np
import pytest

from llm2comp.corpus.documents import Document
from llm2comp.errors import SettingsError
from llm2comp_benchmarks.systems.bm25 import Bm25
from llm2comp_benchmarks.systems.hybrid import Hybrid
from llm2comp_benchmarks.systems.load import load_model
from llm2comp_indexes import SearchOptions
from tests.word_encoder import WordEncoder

pytest.importorskip("bm25s", reason="needs the extra eval")
pytest.importorskip("nltk", reason="needs the extra eval")


class Angles:
    """Vectors of which document d1 is nearest to the query, then d2, then d3."""

    def encode_query(self, inputs: list[str], /, **_: object) -> np.ndarray:
        return np.tile(np.array([1.0, 0.0], np.float32), (len(inputs), 1))

    def encode_document(self, inputs: list[str], /, **_: object) -> np.ndarray:
        turns = {"one": 0.1, "two": 0.5, "three": 1.0}
        angles = [turns[text.split()[0]] for text in inputs]
        return np.array([[np.cos(angle), np.sin(angle)] for angle in angles], np.float32)


DOCUMENTS = [
    Document("d1", "", "one"),
    Document("d2", "", "two river river"),
    Document("d3", "", "three river and sea"),
]


def test_scores_are_weighted_reciprocal_ranks() -> None:
    options = SearchOptions(mode="hybrid", fusion="ranks", weights=(1.0, 2.0))
    run = Hybrid(Angles(), options).search(DOCUMENTS, {"q": "river"}, k=3)
    expected = {"d2": 1 / 62 + 2 / 61, "d3": 1 / 63 + 2 / 62, "d1": 1 / 61}
    assert run["q"] == pytest.approx(expected)
    assert list(run["q"]) == ["d2", "d3", "d1"]


def test_scores_are_weighted_means_of_scaled_scores() -> None:
    run = Hybrid(Angles()).search(DOCUMENTS, {"q": "river"}, k=3)
    near, middle, far = np.cos([0.1, 0.5, 1.0])
    two, three = (Bm25().search(DOCUMENTS, {"q": "river"}, k=3)["q"][name] for name in ("d2", "d3"))
    expected = {"d2": 0.3 * (middle - far) / (near - far) + 0.7, "d3": 0.7 * three / two, "d1": 0.3}
    assert run["q"] == pytest.approx(expected)
    assert list(run["q"]) == ["d2", "d3", "d1"]


def test_a_weight_of_zero_leaves_the_other_ranking() -> None:
    documents = [Document(f"d{n}", "", text) for n, text in enumerate(["red stone", "blue sea", "sea sea stone tower"])]
    words_only = Hybrid(WordEncoder(), SearchOptions(weights=(0.0, 1.0))).search(
        documents, {"q": "tower of stone"}, k=3
    )
    assert list(words_only["q"]) == ["d2", "d0"]


def test_it_has_no_vectors() -> None:
    with pytest.raises(SettingsError, match="retrieval tasks only"):
        Hybrid(WordEncoder()).encode_query(["a"])


def test_it_is_a_system_by_name(saved_model: Path) -> None:
    system = load_model(f"hybrid:{saved_model}")
    assert isinstance(system, Hybrid)
    assert system.settings["system"] == "hybrid"
    parameters = system.settings["parameters"]
    assert (parameters["fusion"], parameters["weights"]) == ("scores", {"vectors": 0.3, "words": 0.7})
