"""The result of late interaction as a table: each way of ordering beside the order by vectors."""

from typing import Any

from llm2comp_benchmarks.compare.significance import paired_difference
from llm2comp_benchmarks.results.kinds import task_title
from llm2comp_benchmarks.results.record import Samples
from llm2comp_benchmarks.results.tables import markdown_table

__all__ = ["late_table"]

_RESAMPLES = 10_000


def late_table(record: dict[str, Any]) -> str:
    """One row per set and system: nDCG@10, its paired difference to `dense` with a 95 % interval, bytes, milliseconds.

    Bytes are those beside the vector of the document.
    """
    header = ["set", "order by", "nDCG@10", "difference", "95 % interval", "bytes a document", "ms a query"]
    rows = [header]
    for row in record["rows"]:
        first = _samples(record, row["set"], "dense")
        cells = ["–", "–"]
        if row["system"] != "dense":
            found = paired_difference(first, _samples(record, row["set"], row["system"]), resamples=_RESAMPLES)
            ends = found.interval
            cells = [f"{found.value:+.4f}", f"{ends.low:+.4f} to {ends.high:+.4f}" if ends else "–"]
        rows.append(
            [
                task_title(row["set"]),
                _name(row),
                f"{row['ndcg_at_10']:.4f}",
                *cells,
                f"{'' if row['system'] == 'dense' else '+'}{row['bytes_per_document']:,}",
                f"{row['ms_per_query']:.2f}",
            ]
        )
    return markdown_table(rows)


def _name(row: dict[str, Any]) -> str:
    if row["system"] == "dense":
        return "vectors"
    tokens = f"{row['tokens']} tokens" if row["tokens"] > 1 else "the first token"
    return f"MaxSim, {tokens}, {row['vectors']}"


def _samples(record: dict[str, Any], task: str, system: str) -> Samples:
    return Samples("ndcg_at_10", "mean", "query", record["samples"][f"{task} {system}"]["values"])
