"""Forecasts of builds beside the builds themselves, on three corpora made of the documentation of this Python."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import llm2comp
from llm2comp.corpus.documents import Document
from llm2comp.corpus.read import read_corpus
from llm2comp_benchmarks.cost.checks import check_at_least
from llm2comp_benchmarks.cost.versions import index_versions
from llm2comp_benchmarks.results.record import result_record
from llm2comp_benchmarks.results.tables import aligned_table
from llm2comp_indexes import Encoder, Forecast, IndexOptions, build_index, forecast_build

__all__ = ["WITHIN", "ForecastBenchmark", "format_forecasts", "run_forecast_benchmark"]

WITHIN = 0.25
"""Share by which a forecast may differ from the build."""
_NUMBERS = ("documents", "rows", "encode_seconds", "memory", "bytes")


@dataclass(frozen=True, slots=True)
class ForecastBenchmark:
    """What is measured.

    Attributes:
        documents: Number of docstrings that the corpora are made of.
        model: Name, folder or Hub id of a model; None: the bundled one.
    """

    documents: int = 4_000
    model: str | None = None

    def __post_init__(self) -> None:
        check_at_least(self, {"documents": 1})


def run_forecast_benchmark(
    settings: ForecastBenchmark,
    *,
    encoder: Encoder | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The record of a run: for each corpus the forecast, the build, their ratios, and whether all are near enough.

    Args:
        settings: What to measure.
        encoder: The model, if it is loaded already.
        tell: Called with a line as each part begins.
    """
    start = time.perf_counter()
    model = encoder or llm2comp.load(settings.model)
    entries = {}
    with TemporaryDirectory(prefix="llm2comp-bench-") as folder:
        docstrings = list(islice(read_corpus("python-docs:"), settings.documents))
        for name, (documents, options) in _corpora(docstrings).items():
            corpus = Path(folder) / f"{name}.jsonl"
            with corpus.open("w", encoding="utf-8") as file:
                file.writelines(map(_line, documents))
            tell(f"{name}: forecast and build")
            entries[name] = _compare(corpus, Path(folder) / name, model, options)
    record = result_record([], asdict(settings))
    record["versions"] |= index_versions()
    return {**entries, **record, "seconds": {"all": round(time.perf_counter() - start, 1)}}


def _corpora(docstrings: list[Document]) -> dict[str, tuple[Iterable[Document], IndexOptions]]:
    """Docstrings as they are; those of a module in one text, as chunks with words; their first lines, in few bytes."""
    return {
        "docstrings": (docstrings, IndexOptions()),
        "modules": (_join(docstrings), IndexOptions(chunk_tokens=128, hybrid=True)),
        "summaries": (map(_summary, docstrings), IndexOptions(type="HNSW16", store="int8")),
    }


def _join(docstrings: list[Document]) -> Iterator[Document]:
    modules = groupby(docstrings, key=lambda document: str(document.metadata.get("source", document.id)))
    for number, (module, members) in enumerate(modules):
        yield Document(f"{module}-{number}", module, "\n\n".join(document.content for document in members))


def _summary(document: Document) -> Document:
    return Document(document.id, "", document.text.partition("\n")[0] or document.title, document.metadata)


def _line(document: Document) -> str:
    fields = {"_id": document.id, "title": document.title, "text": document.text, "metadata": document.metadata}
    return json.dumps(fields) + "\n"


def _compare(corpus: Path, folder: Path, model: Encoder, options: IndexOptions) -> dict[str, Any]:
    forecast: Forecast = forecast_build([corpus], model=model, options=options)
    report = build_index([corpus], folder, model=model, options=options)
    built = {
        "documents": report.documents,
        "rows": report.measured.rows,
        "encode_seconds": report.encode_seconds,
        "memory": report.measured.memory,
        "bytes": report.bytes,
        "type": report.measured.type,
    }
    ratios = {name: round(getattr(forecast, name) / built[name], 3) for name in _NUMBERS}
    near = all(abs(ratio - 1) <= WITHIN for ratio in ratios.values())
    return {
        "forecast": asdict(forecast),
        "built": built,
        "ratios": ratios,
        "same_type": forecast.type == report.measured.type,
        "within": near,
    }


def format_forecasts(record: dict[str, Any]) -> str:
    """The ratios of forecasts to builds as a table, and whether all are within 25 %."""
    corpora = {name: entry for name, entry in record.items() if isinstance(entry, dict) and "forecast" in entry}
    rows = [["forecast / build", *(name.replace("_", " ") for name in _NUMBERS), "type", "within 25 %"]]
    for name, entry in corpora.items():
        kind = (
            entry["built"]["type"] if entry["same_type"] else f"{entry['forecast']['type']} / {entry['built']['type']}"
        )
        ratios = [f"{entry['ratios'][number]:.2f}" for number in _NUMBERS]
        rows.append([name, *ratios, kind, "yes" if entry["within"] else "no"])
    return aligned_table(rows)
