"""Results of the benchmark of pushes as tables for a terminal."""

from typing import Any

from llm2comp_benchmarks.results.tables import aligned_table

__all__ = ["format_pushes"]


def format_pushes(record: dict[str, Any]) -> str:
    """Loading beside each store's own loader, then latency and recall beside the index."""
    loads = [
        [
            "store",
            "dimension",
            "rows",
            "rows/s",
            "its loader",
            "ratio",
            "least-most",
            "compare s",
            "index s",
            "with index",
        ]
    ]
    searches = [["", "dimension", "rows", "p50 ms", "p99 ms", "recall@k", "narrow p50 ms", "narrow recall@k"]]
    for case in record["cases"]:
        what = [
            case["store"] + (" (development)" if case.get("local") else ""),
            str(case["dimension"]),
            f"{case['rows']:,}",
        ]
        if "ratio" in case:
            ours, loader = (stats["median"] for stats in case["rows_per_second"].values())
            ratio = case["ratio"]
            loads.append(
                [
                    *what,
                    f"{ours:,.0f}",
                    f"{loader:,.0f}",
                    f"{ratio['median']:.2f}x",
                    f"{ratio['least']:.2f}-{ratio['most']:.2f}",
                    f"{case['check_seconds']['median']:.1f}",
                    f"{case['index_seconds']['median']:.1f}",
                    f"{case['searchable_ratio']['median']:.2f}x",
                ]
            )
        narrow = [_latency(case, "narrow_")[0], f"{case['narrow_recall']:.3f}"]
        searches.append([*what, *_latency(case, ""), f"{case['recall']:.3f}", *narrow])
    return "\n\n".join(aligned_table(table, left=(0,)) for table in (loads, searches))


def _latency(case: dict[str, Any], name: str) -> list[str]:
    latency = case.get(f"{name}latency_ms")
    return [f"{latency[part]:.2f}" if latency else "-" for part in ("p50", "p99")]
