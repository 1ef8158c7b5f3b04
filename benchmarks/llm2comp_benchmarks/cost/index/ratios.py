"""Our indexes over others: the ratios of an index benchmark, and its numbers as tables for a terminal."""

from collections.abc import Callable
from typing import Any

from llm2comp_benchmarks.results.tables import aligned_table

__all__ = ["RATIOS", "effort_words", "format_record", "ratios_of"]

RATIOS = {
    "structure": "build: train, add, save",
    "pipeline_bare": "build: the same and vectors stored",
    "pipeline": "build: the same and documents stored",
    "build": "build: the same, chosen and measured",
    "build_peak": "peak memory of the build",
    "vector_bytes": "vectors and structure on disk",
    "search": "one query",
    "search_with_documents": "one query, documents returned",
    "search_bare": "one query, ours with documents, theirs without",
    "search_p99": "one query, 99th percentile",
    "open": "open",
    "search_peak": "memory after 100 queries",
}
"""Titles of the ratios, in the order of tables; the difference `recall_gain` stands below them."""


def ratios_of(ours: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Ours over the other's, below 1 where ours is better; and `recall_gain`, ours minus the other's.

    The build has four ratios, each with more of our work than the one before:

    - `structure`: train, add and save.
    - `pipeline_bare`: also store the vectors (read, scale, write, hash, sync, commit with their ids).
    - `pipeline`: also store documents and metadata.
    - `build`: also choose the type and measure recall.

    `search_bare` is our search with documents over the other's search without.
    """
    phases = ours["phases"]
    pipeline = ours["build_seconds"] - phases.get("choose", 0.0) - phases["measure"] - phases.get("queries", 0.0)
    structure = phases.get("structure", 0.0)
    return {
        "recall_gain": ours["recall"] - other["recall"],
        "structure": structure / other["build_seconds"],
        "pipeline_bare": (structure + ours["store_vectors_seconds"]) / other["build_seconds"],
        "pipeline": pipeline / other["build_seconds"],
        "build": ours["build_seconds"] / other["build_seconds"],
        "build_peak": ours["peak_bytes"] / other["peak_bytes"],
        "vector_bytes": ours["vector_bytes"] / other["bytes"],
        "search": ours["median_ms"] / other["median_ms"],
        "search_with_documents": ours["median_ms_with_documents"] / other["median_ms_with_documents"],
        "search_bare": ours["median_ms_with_documents"] / other["median_ms"],
        "search_p99": ours["p99_ms"] / other["p99_ms"],
        "search_peak": ours["search_peak_bytes"] / other["search_peak_bytes"],
        "open": ours["open_seconds"] / other["open_seconds"],
    }


def format_record(record: dict[str, Any]) -> str:
    """The record as aligned tables: one row per index, one per ratio, and one per format that was read."""
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "recall": lambda entry: f"{entry['recall']:.4f}",
        "ms": lambda entry: f"{entry['median_ms']:.3f}",
        "p99 ms": lambda entry: f"{entry['p99_ms']:.3f}",
        "+docs ms": lambda entry: f"{entry['median_ms_with_documents']:.3f}",
        "build s": lambda entry: f"{entry['build_seconds']:.1f}",
        "disk MB": lambda entry: f"{entry['bytes'] / 1e6:.1f}",
        "peak MB": lambda entry: f"{entry['peak_bytes'] / 1e6:.0f}",
        "open s": lambda entry: f"{entry['open_seconds']:.3f}",
        "type": lambda entry: f"{entry['type']} {effort_words(entry)}".rstrip(),
    }
    entries = {name: entry for name, entry in record.items() if isinstance(entry, dict) and "median_ms" in entry}
    rows = [["", *columns], *([name, *(show(entry) for show in columns.values())] for name, entry in entries.items())]
    kinds = record["ratios"]
    ratios = [["ours / theirs", *kinds]]
    ratios += [[words, *(f"{kind[name]:.2f}" for kind in kinds.values())] for name, words in RATIOS.items()]
    ratios.append(["recall, ours - theirs", *(f"{kind['recall_gain']:+.4f}" for kind in kinds.values())])
    reading = [_reading_rows(record["reading"])] if "reading" in record else []
    return "\n\n".join(map(aligned_table, [rows, *([ratios] if kinds else []), *reading]))


def _reading_rows(rates: dict[str, dict[str, float]]) -> list[list[str]]:
    """Documents per second: a row for each format."""
    columns = {
        "read": "read",
        "strings": "read, all text",
        "cut": "read and cut",
        "splitter": "cut alone",
        "peer": "Arrow (text: alone)",
    }
    rows = [["documents/s", *columns.values()]]
    for name, rate in rates.items():
        rows.append([name, *(f"{rate[column]:,.0f}" if column in rate else "" for column in columns)])
    return rows


def effort_words(entry: dict[str, Any]) -> str:
    """The effort that an index was searched with, such as `nprobe=16`; empty where none can be set."""
    effort = entry.get("effort")
    if effort is None:
        return entry.get("parameters") or ""
    return " ".join(f"{name}={value}" for name, value in effort.items() if value and value > 1)
