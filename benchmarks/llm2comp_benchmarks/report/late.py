"""The result of late interaction as a table: each way of ordering beside the order by vectors."""

from typing import Any

from llm2comp_benchmarks.compare.significance import Difference, paired_difference
from llm2comp_benchmarks.late.measure import sample_key
from llm2comp_benchmarks.results.kinds import task_title
from llm2comp_benchmarks.results.record import Samples
from llm2comp_benchmarks.results.tables import markdown_table

__all__ = ["difference_to", "late_table", "ranking_name"]

_RESAMPLES = 10_000


def late_table(record: dict[str, Any]) -> str:
    """One row per set and system: nDCG@10, its paired difference to `dense` with a 95 % interval, bytes, milliseconds.

    Bytes are those beside the vector of the document. Of several models, there is one row per set, model and ranking,
    by vectors or by all tokens as int8, and differences are to the vectors of the first model.
    """
    rows: list[dict[str, Any]] = record["rows"]
    several = "model" in rows[0]
    if several:
        shown = [row for row in rows if row["system"] == "dense" or row["vectors"] == "int8"]
        rows = sorted(shown, key=lambda row: [other["set"] for other in rows].index(row["set"]))
    header = ["set", *["model"] * several, "order by", "nDCG@10", "difference", "95 % interval"]
    table = [[*header, "bytes a document", "ms a query"]]
    for row in rows:
        base = next(other for other in rows if other["set"] == row["set"])
        cells = ["–", "–"]
        if row is not base:
            found = difference_to(record, base, row)
            ends = found.interval
            cells = [f"{found.value:+.4f}", f"{ends.low:+.4f} to {ends.high:+.4f}" if ends else "–"]
        table.append(
            [
                task_title(row["set"]),
                *([row["model"]] if several else []),
                ranking_name(row),
                f"{row['ndcg_at_10']:.4f}",
                *cells,
                f"{'' if row['system'] == 'dense' else '+'}{row['bytes_per_document']:,}",
                f"{row['ms_per_query']:.2f}",
            ]
        )
    return markdown_table(table)


def difference_to(record: dict[str, Any], base: dict[str, Any], row: dict[str, Any]) -> Difference:
    """Paired difference in nDCG@10 of a row of the result to another of the same set, with a 95 % interval."""
    return paired_difference(_samples(record, base), _samples(record, row), resamples=_RESAMPLES)


def ranking_name(row: dict[str, Any]) -> str:
    """What a row of the result orders by, in words."""
    if row["system"] == "dense":
        return "vectors"
    tokens = f"{row['tokens']} tokens" if row["tokens"] > 1 else "the first token"
    return f"MaxSim, {tokens}, {row['vectors']}"


def _samples(record: dict[str, Any], row: dict[str, Any]) -> Samples:
    return Samples("ndcg_at_10", "mean", "query", record["samples"][sample_key(row)]["values"])
