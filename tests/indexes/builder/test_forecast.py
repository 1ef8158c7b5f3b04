"""Forecasts of builds beside the builds themselves, and what they refuse before anything is encoded."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llm2comp
from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import CorpusError, SettingsError
from llm2comp_indexes import IndexOptions, Targets, build_index, forecast_build, open_index
from llm2comp_indexes.builder import forecast as module
from tests.word_encoder import WORDS, WordEncoder

OPTIONS = {
    "whole": IndexOptions(),
    "hybrid int8": IndexOptions(store="int8", hybrid=True),
    "hnsw": IndexOptions(type="hnsw"),
    "ivf": IndexOptions(type="IVF8,SQ8"),
}


@pytest.fixture
def long_corpus(tmp_path: Path) -> Path:
    """1,200 documents whose lengths differ by a factor of 200."""
    draw = random.Random(5)
    path = tmp_path / "long.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for row in range(1_200):
            words = draw.choices(WORDS, k=int(draw.lognormvariate(3, 1)) + 1)
            text = " ".join(words).replace("moon", "moon.")
            file.write(json.dumps({"_id": f"d{row}", "text": text, "year": row, "tag": draw.choice("abc")}) + "\n")
    return path


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("sample", [2_000, 300])
def test_a_forecast_is_near_the_build(
    tmp_path: Path, long_corpus: Path, name: str, sample: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SAMPLE", sample)
    expected = forecast_build([long_corpus], model=WordEncoder(), options=OPTIONS[name])
    built = build_index([long_corpus], tmp_path / "idx", model=WordEncoder(), options=OPTIONS[name])
    assert (expected.documents, expected.rows, expected.dimension) == (1_200, 1_200, 32)
    assert expected.type == built.measured.type
    assert expected.memory == built.measured.memory
    assert expected.bytes == pytest.approx(built.bytes, rel=0.05)
    assert expected.sampled == min(sample, 1_200)
    assert expected.tokens is None  # the stand-in has no tokens


@pytest.mark.parametrize("sample", [2_000, 300])
def test_chunks_and_tokens_are_counted(
    tmp_path: Path, long_corpus: Path, saved_model: Path, sample: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SAMPLE", sample)
    model, options = llm2comp.load(saved_model), IndexOptions(chunk_tokens=24)
    expected = forecast_build([long_corpus], model=model, options=options, seconds=1)
    built = build_index([long_corpus], tmp_path / "idx", model=model, options=options)
    rows = built.measured.rows
    assert expected.rows == (rows if sample == 2_000 else pytest.approx(rows, rel=0.08))
    assert expected.bytes == pytest.approx(built.bytes, rel=0.1)
    with open_index(tmp_path / "idx", model=model) as index:
        texts = [index.segments[0].documents[row].content for row in range(rows)]
    tokens = sum(len(ids) + model.memory_tokens for ids in model.encoder.token_ids(texts))
    assert expected.tokens == pytest.approx(tokens, rel=0.001 if sample == 2_000 else 0.08)


def test_rows_that_are_cut_are_told(long_corpus: Path, saved_model: Path) -> None:
    short = forecast_build([long_corpus], model=saved_model, encoder=EncoderOptions(max_length=12), seconds=0.5)
    assert 0.5 < short.cut <= 1
    assert short.tokens <= 12 * short.rows


def test_only_a_sample_is_encoded_and_nothing_written(
    tmp_path: Path, long_corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SAMPLE", 100)
    encoder = WordEncoder()
    before = sorted(tmp_path.iterdir())
    expected = forecast_build([long_corpus], model=encoder)
    assert expected.encoded == 100
    assert encoder.documents <= 100 + 2 * module._FIRST + module._WARM_UP
    assert sorted(tmp_path.iterdir()) == before


def test_a_slow_model_encodes_few_rows(long_corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(WordEncoder):
        def encode_document(self, inputs: list[str], /, **options: Any) -> Any:
            clock[0] += 0.005 * sum(len(text) + 1 for text in inputs)
            return super().encode_document(inputs, **options)

    clock = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    expected = forecast_build([long_corpus], model=Slow(), seconds=10)
    assert clock[0] <= 40
    assert expected.encode_seconds == pytest.approx(0.005 * (expected.characters + 1_200), rel=0.001)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (IndexOptions(targets=Targets(memory=100)), "memory is 100 bytes, too little for any index of 5 vectors"),
        (
            IndexOptions("flat", targets=Targets(memory=100)),
            "memory is 100 bytes, and Flat of 5 vectors of dimension 32",
        ),
        (IndexOptions(targets=Targets(latency_ms=1e-6)), "latency is at most 1e-06 ms, and a search of 64 vectors"),
        (IndexOptions("IVF64,Flat"), "type is 'IVF64,Flat': 64 lists for 5 rows"),
        (IndexOptions("nothing"), "type is 'nothing'"),
    ],
)
def test_targets_that_cannot_be_met_are_refused_before_anything_is_encoded(
    corpus: Path, options: IndexOptions, message: str
) -> None:
    encoder = WordEncoder()
    with pytest.raises(SettingsError, match=message):
        forecast_build([corpus], model=encoder, options=options)
    assert encoder.documents == 0


def test_exact_search_that_is_too_slow_is_refused(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llm2comp_indexes.tuning import cost

    monkeypatch.setattr(cost, "_time_exact", lambda *_: (20.0, 0.01))
    with pytest.raises(SettingsError, match="comparing all 5 vectors takes about 20 ms on this machine"):
        forecast_build([corpus], model=WordEncoder(), options=IndexOptions("flat"))
    expected = forecast_build([corpus], model=WordEncoder())
    assert expected.type == "IVF1,SQfp16"
    assert "HNSW32" in expected.others


def test_a_limit_is_that_of_the_build(tmp_path: Path, corpus: Path) -> None:
    assert forecast_build([corpus], model=WordEncoder(), limit=2).documents == 2
    assert build_index([corpus], tmp_path / "idx", model=WordEncoder(), limit=2).documents == 2
    with open_index(tmp_path / "idx", model=WordEncoder()) as index:
        assert {hit.id for hit in index.search(["bread"])[0]} == {"d0", "d1"}
    for call in (lambda: forecast_build([corpus], limit=0), lambda: build_index([corpus], tmp_path / "no", limit=0)):
        with pytest.raises(SettingsError, match="limit is 0, expected a number of documents of at least 1"):
            call()


def test_corpora_that_no_build_would_take_are_refused(tmp_path: Path, write_corpus: Callable[..., Path]) -> None:
    with pytest.raises(SettingsError, match="standard input, which a forecast would use up"):
        forecast_build("-", model=WordEncoder())
    with pytest.raises(CorpusError, match="no such file"):
        forecast_build([tmp_path / "none.jsonl"], model=WordEncoder())
    with pytest.raises(CorpusError, match="twice|occurs|duplicate"):
        forecast_build([write_corpus([{"_id": "a", "text": "x"}, {"_id": "a", "text": "y"}])], model=WordEncoder())


def test_long_documents_do_not_fill_memory(write_corpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SAMPLE_CHARACTERS", 1_000)
    corpus = write_corpus({"_id": f"d{row}", "text": "bread " * 50} for row in range(40))
    expected = forecast_build([corpus], model=WordEncoder())
    assert (expected.documents, expected.sampled) == (40, 3)
    assert expected.rows == 40
