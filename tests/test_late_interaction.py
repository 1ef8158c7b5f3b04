"""MaxSim against pylate's numbers and against loops; vectors of memory tokens against sentence-transformers."""

import doctest
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Normalize

from llm2comp.errors import SettingsError
from llm2comp.late_interaction import maxsim
from llm2comp.model import LLM2Comp

PYLATE = json.loads((Path(__file__).parent / "late_interaction" / "pylate.json").read_text())
TEXTS = ["how bread rises in the oven", "the moon", "", "a list of prime numbers " * 9]


def by_the_book(query: NDArray[np.float32], document: NDArray[np.float32]) -> float:
    """The sum over the query's vectors of the best of the document's, one product at a time."""
    return sum(max(sum(a * b for a, b in zip(one, other, strict=True)) for other in document) for one in query)


class TestMaxSim:
    def test_numbers_of_pylate(self) -> None:
        queries, documents = np.array(PYLATE["queries"], np.float32), np.array(PYLATE["documents"], np.float32)
        np.testing.assert_allclose(maxsim(queries, documents), PYLATE["scores"]["float32"], atol=1e-6)

    def test_by_the_book(self) -> None:
        draw = np.random.default_rng(3)
        queries, documents = draw.standard_normal((2, 3, 5)), draw.standard_normal((4, 6, 5))
        expected = [[by_the_book(query, document) for document in documents] for query in queries]
        np.testing.assert_allclose(maxsim(queries, documents), expected, rtol=1e-6)

    def test_a_score_does_not_depend_on_the_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        draw = np.random.default_rng(4)
        queries = draw.standard_normal((2, 8, 32)).astype(np.float32)
        documents = draw.standard_normal((40, 8, 32)).astype(np.float32)
        together = maxsim(queries, documents)
        alone = np.concatenate([maxsim(queries, document[None]) for document in documents], axis=1)
        np.testing.assert_array_equal(together, alone)
        monkeypatch.setattr("llm2comp.late_interaction._PRODUCTS_AT_ONCE", 1000)  # in several blocks
        np.testing.assert_array_equal(maxsim(queries, documents), together)

    def test_no_documents(self) -> None:
        assert maxsim(np.ones((2, 3, 4)), np.ones((0, 3, 4))).shape == (2, 0)

    @pytest.mark.parametrize(
        ("shapes", "message"),
        [
            (((2, 3, 4), (2, 3, 5)), "with one dim"),
            (((3, 4), (2, 3, 4)), "expected"),
            (((2, 0, 4), (2, 3, 4)), "at least one"),
        ],
    )
    def test_shapes_that_do_not_fit(self, shapes: tuple[tuple[int, ...], ...], message: str) -> None:
        with pytest.raises(SettingsError, match=message):
            maxsim(np.ones(shapes[0]), np.ones(shapes[1]))

    def test_lists_are_arrays(self) -> None:
        texts = [[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [1.0, 0.0]]]
        np.testing.assert_array_equal(maxsim(texts, texts), maxsim(np.array(texts), np.array(texts)))

    @pytest.mark.parametrize("wrong", [[[[1.0]], [[1.0], [2.0]]], np.array([[["a"]]])], ids=["ragged", "text"])
    def test_what_is_no_array_of_numbers(self, wrong: Any) -> None:
        with pytest.raises(SettingsError, match=r"one number of vectors|vectors are of <U1, expected numbers"):
            maxsim(np.ones((1, 1, 1)), wrong)


class TestVectors:
    def test_pooled_are_those_of_encode(self, model: LLM2Comp) -> None:
        np.testing.assert_array_equal(model.encode_vectors(TEXTS).pooled, model.encode_document(TEXTS))
        asked = model.encode_vectors(TEXTS, task="query").pooled
        np.testing.assert_array_equal(asked, model.encode_query(TEXTS))
        assert not np.allclose(asked, model.encode_document(TEXTS))

    def test_memory_is_that_of_sentence_transformers(self, model: LLM2Comp) -> None:
        reference = MultiVectorEncoder(modules=[model.encoder, Normalize("token_embeddings")], device="cpu")
        memory = model.encode_vectors(TEXTS).memory
        assert memory.shape == (4, 4, 64)
        np.testing.assert_allclose(memory, np.stack(list(reference.encode(TEXTS))), atol=1e-6)
        scores = reference.similarity(reference.encode(TEXTS[:2]), reference.encode(TEXTS))
        np.testing.assert_allclose(maxsim(memory[:2], memory), scores.numpy(), atol=1e-5)

    def test_one_pass(self, model: LLM2Comp, monkeypatch: pytest.MonkeyPatch) -> None:
        seen, forward = [], type(model.encoder).forward
        monkeypatch.setattr(
            type(model.encoder),
            "forward",
            lambda self, features: [seen.append(len(features["input_ids"])), forward(self, features)][1],
        )
        model.encode_vectors(TEXTS)
        assert seen == [len(TEXTS)]

    def test_truncated(self, model: LLM2Comp, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = model.encode_vectors(TEXTS).memory
        monkeypatch.setattr(model, "truncate_dim", 16)
        short = model.encode_vectors(TEXTS)
        np.testing.assert_allclose(short.pooled, model.encode_document(TEXTS), atol=1e-6)
        expected = whole[:, :, :16] / np.linalg.norm(whole[:, :, :16], axis=-1, keepdims=True)
        np.testing.assert_allclose(short.memory, expected, atol=1e-6)
        assert model.encode_vectors([]).memory.shape == (0, 4, 16)

    def test_no_texts(self, model: LLM2Comp) -> None:
        none = model.encode_vectors([])
        assert (none.pooled.shape, none.memory.shape) == ((0, 64), (0, 4, 64))

    def test_refused(self, model: LLM2Comp) -> None:
        with pytest.raises(SettingsError, match="expected a list"):
            model.encode_vectors("a text")
        with pytest.raises(SettingsError, match="task is 'passage'"):
            model.encode_vectors(["a text"], task="passage")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="1"):
            model.encode_vectors(["a", 3])  # type: ignore[list-item]


def test_examples_of_the_documentation() -> None:
    import llm2comp.late_interaction

    result = doctest.testmod(llm2comp.late_interaction)
    assert result.attempted > 0
    assert result.failed == 0
