"""Results of the benchmark of fidelity as a table."""

from typing import Any

from llm2comp_benchmarks.results.tables import aligned_table

__all__ = ["format_fidelity"]

_HEAD = [
    "model",
    "measure",
    "texts",
    "tokens",
    "nothing",
    "memory",
    "text",
    "share",
    "95 % interval",
    "median",
    "no share",
]


def format_fidelity(record: dict[str, Any]) -> str:
    """A line for each model and measure: losses in nats per token, and the share that memories keep."""
    return aligned_table([_HEAD, *map(_line, record["rows"])], left=(0, 1))


def _line(row: dict[str, Any]) -> list[str]:
    share, quartiles = row["share"], row["quartiles"]
    return [
        row["model"],
        row["measure"],
        f"{row['texts']:,}",
        f"{row['tokens']:.0f}",
        *(f"{row[name]:.3f}" for name in ("nothing", "memory", "text")),
        f"{share['value']:.3f}" if share else "-",
        f"{share['low']:.3f} to {share['high']:.3f}" if share else "-",
        f"{quartiles[1]:.3f}" if quartiles else "-",
        f"{row['unhelped']:,}",
    ]
