"""The tables of docs/indexing: sizes, computed by the functions of the index builder, and numbers of result files.

`python -m llm2comp_benchmarks.cost.index.tables docs/indexing/*.md benchmarks/results` fills them.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm2comp.units import format_bytes
from llm2comp_benchmarks.cost.index.ratios import RATIOS, effort_words
from llm2comp_benchmarks.results.tables import fill_blocks, markdown_table
from llm2comp_indexes.format.vectors import storage_bytes
from llm2comp_indexes.options import STORES
from llm2comp_indexes.structures.types import IndexType, default_type, memory_bytes

__all__ = [
    "comparison_table",
    "fill_tables",
    "growth_table",
    "memory_table",
    "ratio_table",
    "storage_table",
    "types_table",
]

_ROWS = (1_000_000, 10_000_000, 100_000_000)
_DIMENSIONS = (256, 4096)


def storage_table() -> str:
    """Bytes of the stored vectors on disk, by documents, dimension and precision."""
    rows = [["documents", "dimension", *STORES]]
    rows += [
        [
            f"{count // 10**6}M",
            f"{dimension:,}",
            *(format_bytes(storage_bytes(count, dimension, store)) for store in STORES),
        ]
        for count, dimension in _cases()
    ]
    return markdown_table(rows)


def memory_table() -> str:
    """Bytes in memory while searching, by documents, dimension and type with its default parameters."""
    rows = [["documents", "dimension", "flat, float32", "flat, int8", "hnsw, float32", "hnsw, int8", "ivf", "ivfpq"]]
    for count, dimension in _cases():
        kinds = [(default_type(name, rows=count, dimension=dimension), store) for name, store in _columns()]
        sizes = [
            format_bytes(memory_bytes(kind, rows=count, dimension=dimension, store=store)) for kind, store in kinds
        ]
        rows.append([f"{count // 10**6}M", f"{dimension:,}", *sizes])
    return markdown_table(rows)


def _columns() -> list[tuple[str, Any]]:
    return [
        ("flat", "float32"),
        ("flat", "int8"),
        ("hnsw", "float32"),
        ("hnsw", "int8"),
        ("ivf", "float32"),
        ("ivfpq", "float32"),
    ]


def _cases() -> list[tuple[int, int]]:
    return [(count, dimension) for dimension in _DIMENSIONS for count in _ROWS]


def types_table() -> str:
    """Factory strings of the named types, by documents and dimension."""
    rows = [["documents", "dimension", "hnsw", "ivf", "ivfpq"]]
    for count, dimension in _cases():
        kinds: list[IndexType] = [
            default_type(name, rows=count, dimension=dimension) for name in ("hnsw", "ivf", "ivfpq")
        ]
        rows.append([f"{count // 10**6}M", f"{dimension:,}", *(f"`{kind.factory}`" for kind in kinds)])
    return markdown_table(rows)


def comparison_table(record: dict[str, Any]) -> str:
    """Numbers of each index in a result file."""
    show: dict[str, Callable[[dict[str, Any]], str]] = {
        "type": lambda entry: f"`{entry['type']}`",
        "recall@{k}": lambda entry: f"{entry['recall']:.4f}",
        "median ms": lambda entry: f"{entry['median_ms']:.3f}",
        "p99 ms": lambda entry: f"{entry['p99_ms']:.3f}",
        "median ms, documents returned": lambda entry: f"{entry['median_ms_with_documents']:.3f}",
        "build s": lambda entry: f"{entry['build_seconds']:.1f}",
        "on disk": lambda entry: format_bytes(entry["bytes"]),
        "peak of the build": lambda entry: format_bytes(entry["peak_bytes"]),
        "open s": lambda entry: f"{entry['open_seconds']:.3f}",
        "effort": effort_words,
    }
    rows = [["", *(name.format(k=record["settings"]["k"]) for name in show)]]
    rows += [
        [name, *(value(entry) for value in show.values())]
        for name, entry in record.items()
        if isinstance(entry, dict) and "median_ms" in entry
    ]
    return markdown_table(rows)


def ratio_table(record: dict[str, Any]) -> str:
    """Ratios of a result file: ours over plain FAISS of the same type; `auto` over autofaiss."""
    kinds = record["ratios"]
    rows = [["ours / theirs", *kinds]]
    rows += [[words, *(f"{kinds[kind][name]:.2f}" for kind in kinds)] for name, words in RATIOS.items()]
    rows.append(["recall, ours minus theirs", *(f"{kinds[kind]['recall_gain']:+.4f}" for kind in kinds)])
    return markdown_table(rows)


def growth_table(record: dict[str, Any]) -> str:
    """Peak memory of the builds in a result file of `memory.measure_memory`, and the larger minus the smaller."""
    sizes = record["settings"]["rows"]
    rows = [
        [
            "documents",
            *(f"{kind}, {'in all' if what == 'resident' else 'without mapped files'}" for kind, what in _peaks(record)),
        ]
    ]
    rows += [
        [f"{count:,}", *(format_bytes(record[kind][str(count)][what]) for kind, what in _peaks(record))]
        for count in sizes
    ]
    rows.append(["growth", *(format_bytes(record[kind]["growth"][what]) for kind, what in _peaks(record))])
    return markdown_table(rows)


def _peaks(record: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (kind, what)
        for kind, entry in record.items()
        if isinstance(entry, dict) and "growth" in entry
        for what in ("resident", "anonymous")
    ]


def fill_tables(text: str, results: Path) -> str:
    """The text with every table between `<!-- table NAME -->` and `<!-- end -->` replaced by the current one.

    NAME is `storage`, `memory`, `types`, or `measured FILE`, `ratios FILE` or `growth FILE` with a result file
    `index-FILE.json`.
    """

    def make(name: str) -> str:
        what, _, file = name.partition(" ")
        computed = {"storage": storage_table, "memory": memory_table, "types": types_table}
        if what in computed:
            return computed[what]()
        record = json.loads((results / f"index-{file}.json").read_text(encoding="utf-8"))
        return {"measured": comparison_table, "ratios": ratio_table, "growth": growth_table}[what](record)

    return fill_blocks(text, make)


def main() -> None:
    """Fills the tables of files; arguments: the files, then the folder of result files."""
    *files, results = map(Path, sys.argv[1:])
    for file in files:
        file.write_text(fill_tables(file.read_text(encoding="utf-8"), results), encoding="utf-8")


if __name__ == "__main__":
    main()
