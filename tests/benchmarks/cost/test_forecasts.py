"""The benchmark of forecasts: three corpora, each forecast and built."""

import pytest

from llm2comp_benchmarks.cost.index.forecasts import ForecastBenchmark, format_forecasts, run_forecast_benchmark
from tests.indexes.live import ChunkingEncoder
from tests.word_encoder import WordEncoder


class _Encoder(ChunkingEncoder, WordEncoder):
    """Splits at words; its tokenizer does for chunks that end at tokens only."""


def test_three_corpora_are_forecast_and_built(monkeypatch: pytest.MonkeyPatch) -> None:
    from llm2comp_benchmarks.cost.index import forecasts

    options = forecasts.IndexOptions
    monkeypatch.setattr(forecasts, "IndexOptions", lambda **given: options(**_at_tokens(given)))
    seen: list[str] = []
    record = run_forecast_benchmark(ForecastBenchmark(documents=300), encoder=_Encoder(), tell=seen.append)
    assert seen == [f"{name}: forecast and build" for name in ("docstrings", "modules", "summaries")]
    for name in ("docstrings", "modules", "summaries"):
        entry = record[name]
        assert entry["forecast"]["documents"] == entry["built"]["documents"]
        assert entry["forecast"]["rows"] == entry["built"]["rows"]
        assert abs(entry["ratios"]["bytes"] - 1) < 0.1
        assert entry["ratios"]["memory"] == 1.0
        assert entry["same_type"]
    assert record["modules"]["built"]["rows"] > record["modules"]["built"]["documents"]
    header, *rows = format_forecasts(record).splitlines()
    assert header.split("  ")[0] == "forecast / build"
    assert [row.split()[0] for row in rows] == ["docstrings", "modules", "summaries"]


def _at_tokens(given: dict[str, object]) -> dict[str, object]:
    return {**given, "chunk_at": "tokens"} if given.get("chunk_tokens") else given


def test_a_forecast_that_is_off_is_said() -> None:
    ratios = {"documents": 1.0, "rows": 1.0, "encode_seconds": 1.3, "memory": 1.0, "bytes": 1.0}
    entry = {
        "forecast": {"type": "Flat"},
        "built": {"type": "HNSW8"},
        "ratios": ratios,
        "same_type": False,
        "within": False,
    }
    text = format_forecasts({"docs": entry, "settings": {}})
    assert text.splitlines()[1].split() == ["docs", "1.00", "1.00", "1.30", "1.00", "1.00", "Flat", "/", "HNSW8", "no"]
