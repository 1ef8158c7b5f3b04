"""Encoding with a model: inputs, precisions, threads, prompts and pooling."""

import doctest
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.errors import BackboneError, SettingsError
from llm2comp.model import LLM2Comp
from tests.conftest import BACKBONE, QUERY_INSTRUCTION

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "",
    "tea 🍵 or 👩‍👩‍👧‍👦",
    "a\x00b\x1b[31m\u2028c",
    "שלום עולם مرحبا",
    "<s> and </s> and <|endoftext|> and <|mem_0|>",
    "short",
]


def close(vectors: Any, expected: Any) -> None:
    np.testing.assert_allclose(vectors, expected, atol=1e-5, rtol=0)


class TestEncode:
    def test_unit_vectors_in_the_order_given(self, model: LLM2Comp) -> None:
        vectors = model.encode(TEXTS)
        assert isinstance(vectors, np.ndarray)
        assert (vectors.dtype, vectors.shape) == (np.float32, (len(TEXTS), 64))
        close(np.linalg.norm(vectors, axis=1), 1)
        close(vectors, np.stack([model.encode(text) for text in TEXTS]))
        assert len({vector.round(4).tobytes() for vector in vectors}) == len(TEXTS)

    def test_company_order_and_batch_size_change_nothing(self, model: LLM2Comp) -> None:
        texts = [*TEXTS, "word " * 500, *TEXTS[::-1], "another"]
        expected = np.stack([model.encode(text) for text in texts])
        for batch_size in (1, 3, 100):
            close(model.encode(texts, batch_size=batch_size), expected)
        close(model.encode(texts[::-1])[::-1], expected)

    def test_one_text_is_one_vector(self, model: LLM2Comp) -> None:
        assert model.encode("one").shape == (64,)
        assert model.encode_query("one").shape == (64,)
        assert model.encode_document(["one"]).shape == (1, 64)

    def test_any_series_of_texts(self, model: LLM2Comp) -> None:
        expected = model.encode(TEXTS)
        series: list[Any] = [
            tuple(TEXTS),
            np.array(TEXTS),
            np.array(TEXTS, dtype=object),
            (text for text in TEXTS),
            dict.fromkeys(TEXTS).keys(),
        ]
        for texts in series:
            close(model.encode(texts), expected)

    def test_instruction_on_queries_only(self, model: LLM2Comp) -> None:
        plain = model.encode(TEXTS)
        close(model.encode_document(TEXTS), plain)
        close(model.encode_query(TEXTS), model.encode([QUERY_INSTRUCTION + text for text in TEXTS]))
        assert np.abs(model.encode_query(TEXTS) - plain).max() > 1e-3

    def test_special_tokens_in_a_text_are_text(self, model: LLM2Comp) -> None:
        """As a token, `</s>` would be one entry of the vocabulary instead of its characters."""
        (ids,) = model.encoder.token_ids(["</s>"])
        assert len(ids) > 2
        with torch.no_grad():
            as_token = model.encoder.memory_states(torch.tensor([1, 2]), [2]).mean(1)
        assert np.abs(model.encode("</s>") - torch.nn.functional.normalize(as_token)[0].numpy()).max() > 1e-3

    def test_a_hundred_thousand_words(self, model: LLM2Comp, caplog: pytest.LogCaptureFixture) -> None:
        long = "memory " * 100_000
        with caplog.at_level(logging.WARNING):
            vectors = model.encode([long, "short", long + "end"], batch_size=1)
        assert [(record.name, record.getMessage()) for record in caplog.records] == [
            ("llm2comp.model", "2 of 3 texts were cut to their first 64 tokens")
        ]
        close(vectors[0], vectors[2])
        close(vectors[0], model.encode("memory " * 1000))

    def test_no_warning_where_nothing_was_cut(self, model: LLM2Comp, caplog: pytest.LogCaptureFixture) -> None:
        model.encoder.token_ids(["word " * 1000])  # somebody else's
        with caplog.at_level(logging.WARNING):
            model.encode(TEXTS)
        assert caplog.records == []

    def test_a_megabyte_on_one_line(self, model: LLM2Comp) -> None:
        close(model.encode("x" * 1_000_000), model.encode("x" * 1000))

    def test_half_a_surrogate_pair(self, model: LLM2Comp) -> None:
        assert model.encode("a\ud83d").shape == (64,)

    @pytest.mark.parametrize(
        "value", [None, 3, 2.5, b"bytes", {"a": 1}, object()], ids=lambda value: type(value).__name__
    )
    def test_what_is_no_text(self, model: LLM2Comp, value: Any) -> None:
        for encode in (model.encode, model.encode_query, model.encode_document, model.encode_memory):
            with pytest.raises(
                TypeError, match=f"encode takes a string or a list of strings, not {type(value).__name__}"
            ):
                encode(value)

    @pytest.mark.parametrize("bad", [None, 3, b"bytes", ["nested"], float("nan")], ids=lambda bad: type(bad).__name__)
    def test_one_bad_element_is_named_by_position(self, model: LLM2Comp, bad: Any) -> None:
        for encode in (model.encode, model.encode_query, model.encode_document, model.encode_memory):
            with pytest.raises(TypeError, match=f"text 2 is {type(bad).__name__}"):
                encode(["fine", "fine", bad, "fine"])

    def test_numpy_or_torch(self, model: LLM2Comp) -> None:
        expected = model.encode(TEXTS)
        tensor = model.encode(TEXTS, convert_to_tensor=True)
        assert isinstance(tensor, torch.Tensor)
        assert tensor.dtype == torch.float32
        close(tensor.numpy(), expected)
        listed = model.encode(TEXTS, convert_to_numpy=False)
        assert isinstance(listed, list)
        close(torch.stack(listed).numpy(), expected)

    def test_threads(self, model: LLM2Comp) -> None:
        from concurrent.futures import ThreadPoolExecutor

        expected = model.encode(TEXTS)
        with ThreadPoolExecutor(4) as pool:
            for vectors in pool.map(lambda _: model.encode(TEXTS), range(12)):
                close(vectors, expected)


class TestPrecision:
    def test_bfloat16(self, model: LLM2Comp) -> None:
        vectors = model.encode(TEXTS, precision="bfloat16")
        assert torch.equal(vectors, model.encode(TEXTS, convert_to_tensor=True).bfloat16())
        assert model.encode("one", precision="bfloat16").shape == (64,)

    def test_int8_is_the_cosine_in_steps(self, model: LLM2Comp) -> None:
        exact = model.encode(TEXTS)
        steps = model.encode(TEXTS, precision="int8")
        assert (steps.dtype, steps.shape) == (np.int8, exact.shape)
        assert np.abs(steps / 127 - exact).max() <= 0.5 / 127 + 1e-6
        assert np.abs(steps.astype(int) @ steps.T.astype(int) / 127**2 - exact @ exact.T).max() < 0.02
        assert np.array_equal(model.encode(TEXTS, precision="uint8"), (steps.astype(int) + 128).astype(np.uint8))

    @pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
    def test_depends_on_the_text_alone(self, model: LLM2Comp, precision: Any) -> None:
        together = model.encode(TEXTS, precision=precision)
        for text, vectors in zip(TEXTS, together, strict=True):
            assert np.array_equal(model.encode(text, precision=precision), vectors)

    def test_ubinary_is_the_signs(self, model: LLM2Comp) -> None:
        vectors = model.encode(TEXTS, precision="ubinary")
        assert (vectors.dtype, vectors.shape) == (np.uint8, (len(TEXTS), 8))
        assert np.array_equal(np.unpackbits(vectors, axis=1), model.encode(TEXTS) > 0)

    def test_int8_as_a_tensor(self, model: LLM2Comp) -> None:
        vectors = model.encode(TEXTS, precision="int8", convert_to_tensor=True)
        assert vectors.dtype == torch.int8
        assert np.array_equal(vectors.numpy(), model.encode(TEXTS, precision="int8"))

    def test_other_precisions(self, model: LLM2Comp) -> None:
        with pytest.raises(SettingsError, match="precision is 'float64'; give one of float32, bfloat16, int8"):
            model.encode("one", precision="float64")

    def test_truncated_dimensions_are_unit_vectors_again(
        self, make_model: Callable[..., LLM2Comp], model: LLM2Comp
    ) -> None:
        beginning = model.encode(TEXTS)[:, :16]
        expected = beginning / np.linalg.norm(beginning, axis=1, keepdims=True)
        close(model.encode(TEXTS, truncate_dim=16), expected)
        close(model.encode_document(TEXTS, truncate_dim=16), expected)
        assert model.encode(TEXTS, truncate_dim=16, precision="ubinary").shape == (len(TEXTS), 2)
        shorter = make_model()
        shorter.truncate_dim = 16
        close(shorter.encode(TEXTS), expected)
        assert shorter.get_embedding_dimension() == 16
        assert shorter.encode([]).shape == (0, 16)

    @pytest.mark.parametrize(
        ("precision", "dtype", "width"),
        [
            ("float32", np.float32, 64),
            ("int8", np.int8, 64),
            ("uint8", np.uint8, 64),
            ("binary", np.int8, 8),
            ("ubinary", np.uint8, 8),
        ],
    )
    def test_no_texts(self, model: LLM2Comp, precision: Any, dtype: Any, width: int) -> None:
        for nothing in (list[str](), (), np.array([], dtype=object)):
            vectors = model.encode(nothing, precision=precision)
            assert vectors.dtype == dtype
            assert vectors.shape == (0, width)
        assert model.encode([], precision=precision).dtype == model.encode(["a"], precision=precision).dtype
        tensor = model.encode([], precision=precision, convert_to_tensor=True)
        assert isinstance(tensor, torch.Tensor)
        assert tensor.shape == (0, width)

    def test_no_texts_in_bfloat16(self, model: LLM2Comp) -> None:
        vectors = model.encode([], precision="bfloat16")
        assert (vectors.dtype, vectors.shape) == (torch.bfloat16, (0, 64))


class TestMemory:
    def test_mean_is_the_embedding(self, model: LLM2Comp) -> None:
        memory = model.encode_memory(TEXTS)
        assert memory.dtype == np.float32
        assert memory.shape == (len(TEXTS), 4, 64)
        mean = memory.mean(1)
        close(mean / np.linalg.norm(mean, axis=1, keepdims=True), model.encode(TEXTS))

    def test_one_text_and_none(self, model: LLM2Comp) -> None:
        close(model.encode_memory("short"), model.encode_memory(["short"])[0])
        assert model.encode_memory([]).shape == (0, 4, 64)

    def test_of_queries(self, model: LLM2Comp) -> None:
        close(model.encode_memory(["a"], prompt_name="query"), model.encode_memory([QUERY_INSTRUCTION + "a"]))

    def test_clusters(self, make_model: Callable[..., LLM2Comp]) -> None:
        """The threshold merges some tokens of some texts; the embedding is the mean of the cluster means."""
        from tests.test_pooling import by_the_book

        clustered = make_model(pooling={"mode": "cluster", "threshold": 0.6})
        memory = torch.from_numpy(clustered.encode_memory(TEXTS))
        expected = torch.nn.functional.normalize(torch.stack([by_the_book(text, 0.6) for text in memory]))
        close(clustered.encode(TEXTS), expected)


def test_examples_of_the_documentation() -> None:
    import llm2comp.model

    examples = doctest.testmod(llm2comp.model)
    assert examples.attempted > 4
    assert examples.failed == 0


class TestFromBackbone:
    def test_speaks_of_what_is_wrong(self, tmp_path: Path, backbone_folder: Path, saved_model: Path) -> None:
        with pytest.raises(SettingsError, match="memory_tokens is 0; give at least 1"):
            LLM2Comp.from_backbone(BACKBONE, 0)
        with pytest.raises(SettingsError, match="a maximum length of 4096 tokens: give between 10"):
            LLM2Comp.from_backbone(BACKBONE, max_length=4096, device="cpu")
        with pytest.raises(SettingsError, match='pooling is .*; give {"mode": "mean"}'):
            LLM2Comp.from_backbone(BACKBONE, pooling={"mode": "last"}, device="cpu")
        with pytest.raises(SettingsError, match="dtype is 'float16'"):
            LLM2Comp.from_backbone(BACKBONE, dtype="float16", device="cpu")
        with pytest.raises(SettingsError, match="device is 'tpu'"):
            LLM2Comp.from_backbone(BACKBONE, device="tpu")
        with pytest.raises(BackboneError, match="no such folder"):
            LLM2Comp.from_backbone(tmp_path / "nothing", device="cpu")
        with pytest.raises(BackboneError, match="is an encoder already, not a language model: llm2comp.load"):
            LLM2Comp.from_backbone(saved_model, device="cpu")
        (backbone_folder / "tokenizer.json").write_text("{")
        with pytest.raises(BackboneError, match="cannot load the tokenizer of"):
            LLM2Comp.from_backbone(backbone_folder, device="cpu")

    def test_memory_begins_near_the_mean_embedding(self, make_model: Callable[..., LLM2Comp]) -> None:
        model = make_model(memory_tokens=8)
        embeddings = model.encoder.backbone.embed(torch.arange(model.encoder.backbone.vocabulary_size))
        memory = model.encoder.memory
        assert memory.shape == (8, 64)
        assert memory.requires_grad
        assert (memory - embeddings.mean(0)).abs().max() < embeddings.std(0).max()
        assert len({token.detach().numpy().tobytes() for token in memory}) == 8

    def test_what_is_trained(self, make_model: Callable[..., LLM2Comp]) -> None:
        with_adapter, whole = make_model(), make_model(adapter=None)
        trained = {name for name, parameter in with_adapter.named_parameters() if parameter.requires_grad}
        assert all("lora_" in name or name == "0.memory" for name in trained)
        assert any("lora_" in name for name in trained)
        assert "0.memory" in trained
        assert not whole.encoder.backbone.has_adapter
        assert all(parameter.requires_grad for parameter in whole.parameters())

    def test_is_the_same_each_time(self, make_model: Callable[..., LLM2Comp]) -> None:
        assert torch.equal(make_model().encoder.memory, make_model().encoder.memory)

    @pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
    def test_adapter_and_memory_stay_float32(self, dtype: Any) -> None:
        model = LLM2Comp.from_backbone(BACKBONE, adapter=AdapterSettings(rank=2), dtype=dtype, device="cpu")
        assert model.encoder.backbone.dtype == torch.bfloat16
        assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.float32}
        assert model.encode("a").dtype == np.float32

    def test_unnormalised(self, make_model: Callable[..., LLM2Comp], model: LLM2Comp) -> None:
        raw = make_model(normalize=False).encode(TEXTS)
        norms = np.linalg.norm(raw, axis=1, keepdims=True)
        assert np.abs(norms - 1).min() > 1e-2
        close(raw / norms, model.encode(TEXTS))


def encoded(texts: Sequence[str], folder: Path, dtype: str) -> np.ndarray:
    import llm2comp

    vectors: np.ndarray = llm2comp.load(folder, device="cpu", dtype=dtype).encode(texts)
    return vectors


def test_bfloat16_weights_mean_about_the_same(saved_model: Path, model: LLM2Comp) -> None:
    """With random weights; trained ones differ by less."""
    vectors = encoded(TEXTS, saved_model, "bfloat16")
    assert vectors.dtype == np.float32
    assert (vectors * model.encode(TEXTS)).sum(1).min() > 0.98


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.gpu
def test_on_a_gpu(saved_model: Path, model: LLM2Comp) -> None:
    import llm2comp

    expected = model.encode(TEXTS)
    exact = llm2comp.load(saved_model, dtype="float32")
    assert exact.device.type == "cuda"
    np.testing.assert_allclose(exact.encode(TEXTS), expected, atol=1e-4)
    assert exact.fingerprint == model.fingerprint
    half = llm2comp.load(saved_model)
    assert half.encoder.backbone.dtype == torch.bfloat16
    assert (half.encode(TEXTS) * expected).sum(1).min() > 0.98
