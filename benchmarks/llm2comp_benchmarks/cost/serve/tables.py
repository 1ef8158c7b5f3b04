"""Results of the benchmark of servers as tables for a terminal, ratios first."""

from typing import Any

from llm2comp_benchmarks.results.tables import aligned_table

__all__ = ["format_serving"]

_CASE = ["texts", "in a request", "clients"]
_PERCENTILES = ("p50", "p95", "p99")


def format_serving(record: dict[str, Any]) -> str:
    """Ratios of ours in each case, then rates, latencies and processor time of all systems."""
    ratios, lone = [[*_CASE, "texts/s over", "", "least-most", "p95 over theirs"]], []
    for case in record["cases"]:
        for name, ratio in case["ratios"].items():
            if "speed" in ratio:
                ratios.append([*_case(case), name, *_median(ratio["speed"]), _p95(ratio)])
            else:
                lone.append([case["kind"], name, *_median(ratio["p50"])])
    rows = [[*_CASE, "system", "texts/s", "p50 ms", "p95 ms", "p99 ms", "CPU ms/text", "of clients"]]
    rows += [[*_case(case), *_row(name, entry)] for case in record["cases"] for name, entry in case["systems"].items()]
    lone = [["one text of one client", "p50 over", "", "least-most"], *lone]
    tables = [(ratios, (0, 3)), (lone, (0, 1)), (rows, (0, 3))]
    return "\n\n".join(aligned_table(table, left=left) for table, left in tables if len(table) > 1)


def _case(case: dict[str, Any]) -> list[str]:
    return [case["kind"], str(case["size"]), str(case["clients"])]


def _median(ratio: dict[str, float]) -> list[str]:
    return [f"{ratio['median']:.2f}x", f"{ratio['least']:.2f}-{ratio['most']:.2f}"]


def _p95(ratio: dict[str, Any]) -> str:
    return f"{ratio['p95']['median']:.2f}x" if "p95" in ratio else "-"


def _row(name: str, entry: dict[str, Any]) -> list[str]:
    latency, clients = entry.get("latency_ms"), entry.get("clients_cpu_ms_per_text")
    percentiles = [f"{latency[part]:.1f}" if latency else "-" for part in _PERCENTILES]
    of_clients = f"{clients:.3f}" if clients is not None else "-"
    return [
        name,
        f"{entry['texts_per_second']['median']:,.0f}",
        *percentiles,
        f"{entry['cpu_ms_per_text']:.3f}",
        of_clients,
    ]
