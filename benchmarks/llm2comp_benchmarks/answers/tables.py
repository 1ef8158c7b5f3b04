"""Results of the benchmark of answers as a table."""

from typing import Any

from llm2comp_benchmarks.results.tables import aligned_table

__all__ = ["format_answers"]

_HEAD = ["model", "passages", "reads", "tokens", "log-likelihood", "exact match", "F1", "seconds"]


def format_answers(record: dict[str, Any]) -> str:
    """A line for each model, number of passages and context: means over questions with 95 % intervals."""
    return aligned_table([_HEAD, *map(_line, record["rows"])], left=(0, 2))


def _line(row: dict[str, Any]) -> list[str]:
    reads = f"memories, k = {row['memory_tokens']}" if row["context"] == "memories" else row["context"]
    return [
        row["model"],
        str(row["passages"]),
        reads,
        f"{row['tokens_read']:.0f}",
        _interval(row["log_likelihood"], 2),
        *(_interval(row[name], 3) for name in ("exact_match", "f1")),
        f"{row['seconds']:.2f}",
    ]


def _interval(values: list[float], digits: int) -> str:
    mean, low, high = (f"{value:.{digits}f}" for value in values)
    return f"{mean} ({low} to {high})"
