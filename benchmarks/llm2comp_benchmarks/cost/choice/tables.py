"""Results of the benchmark of models as a table for a terminal."""

from typing import Any

from llm2comp_benchmarks.results.tables import aligned_table

__all__ = ["format_choice"]


def format_choice(record: dict[str, Any]) -> str:
    """One row for each model: texts a second and their ratio to those of the first, latency, loading, memory."""
    entries = {name: entry for name, entry in record.items() if isinstance(entry, dict) and "beside" in entry}
    rows = [
        [
            "",
            "short/s",
            "ratio",
            "long/s",
            "ratio",
            "tokens of a long one",
            "query ms",
            "load s",
            "loaded MB",
            "peak MB",
        ]
    ]
    for name, entry in entries.items():
        speeds = [
            cell
            for kind in ("short", "long")
            for cell in (
                f"{entry['texts_per_second'][kind]['median']:,.0f}",
                f"{entry['speed'][kind]['median']:.2f}x",
            )
        ]
        rows.append(
            [
                name,
                *speeds,
                f"{entry['tokens']['long'] / record['settings']['long']:.0f}",
                f"{entry['query_ms']['p50']:.1f}",
                f"{entry['load_seconds']:.1f}",
                f"{entry['loaded_bytes'] / 1e6:,.0f}",
                f"{entry['peak_bytes'] / 1e6:,.0f}",
            ]
        )
    return aligned_table(rows)
