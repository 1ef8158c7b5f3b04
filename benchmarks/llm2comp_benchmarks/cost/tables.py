"""Results of the benchmarks of encoding, training and growth as tables for a terminal, ratios first."""

from collections.abc import Sequence
from typing import Any

from llm2comp_benchmarks.results.tables import aligned_table

__all__ = ["format_encoding", "format_growth", "format_training"]


def format_encoding(record: dict[str, Any]) -> str:
    """Ratios of ours, the share of the matmul rate, a line a system, and where the time of ours goes."""
    systems = {name: entry for name, entry in record.items() if isinstance(entry, dict) and "texts_per_second" in entry}
    ratios = [["ours over theirs", "speed", "least-most", "counted in", "peak memory"]]
    ratios += [
        [f"{ours} / {other}", *_times(ratio["speed"]), ratio["per"], _percent(ratio["peak_memory"])]
        for ours, others in record["ratios"].items()
        for other, ratio in others.items()
    ]
    shown = [
        ["", "texts/s", "tokens/s", "GFLOP/s", "of matmul", "least-most", "peak MB", "beyond loading", "least cosine"]
    ]
    for name, entry in systems.items():
        share = entry.get("matmul_share")
        rates = [f"{entry[rate]['median']:,.0f}" for rate in ("texts_per_second", "tokens_per_second", "gflops")]
        reached = (
            [_percent(share["median"]), f"{_percent(share['least'])}-{_percent(share['most'])}"]
            if share
            else ["-", "-"]
        )
        memory = [_megabytes(entry["peak_bytes"]), _megabytes(entry["peak_bytes"] - entry["loaded_bytes"])]
        shown.append(
            [name, *rates, *reached, *memory, f"{entry['least_cosine']:.6f}" if "least_cosine" in entry else "-"]
        )
    matmul = [["", "GFLOP/s", "of the model's shapes"]]
    matmul += [
        [name, *(f"{entry[rate]['median']:,.0f}" for rate in ("gflops", "model_shapes_gflops"))]
        for name, entry in record.items()
        if name.startswith("matmul ")
    ]
    stages = [_stages(name, entry) for name, entry in systems.items() if "stages" in entry]
    tables = [table for table in (ratios, shown, matmul) if len(table) > 1]
    return "\n\n".join([*map(aligned_table, tables), "\n".join(stages)])


def format_training(record: dict[str, Any]) -> str:
    """Ratios of ours, a line a system, and memory against the vocabulary."""
    ratios = [["ours over theirs", "speed", "least-most", "peak memory", "beyond loading"]]
    ratios += [
        [f"{ours} / {other}", *_times(ratio["speed"]), _percent(ratio["peak_memory"]), _percent(ratio["step_memory"])]
        for ours, others in record["ratios"].items()
        for other, ratio in others.items()
    ]
    heads = ["s/step", "least-most", "tokens/s", "peak MB", "beyond loading"]
    shown = [
        ["", *heads],
        *(
            [name, *_step(entry)]
            for name, entry in record.items()
            if isinstance(entry, dict) and "step_seconds" in entry
        ),
    ]
    grown = [
        [f"vocabulary {size}, {name}", *_step(entry)]
        for size, systems in record["vocabulary"].items()
        for name, entry in systems.items()
    ]
    return "\n\n".join(aligned_table(table) for table in (ratios, [*shown, *grown]) if len(table) > 1)


def format_growth(record: dict[str, Any]) -> str:
    """A line a curve, with the law fitted and how well it fits; then each curve's points."""
    laws = [["", "from", "to", "law", "largest deviation", "coefficients"]]
    tables = []
    for name, curve in record["curves"].items():
        law, points, unit = curve["law"], curve["points"], 1e6 if curve["cost"] == "bytes" else 1.0
        coefficients = ", ".join(f"{term} = {value / unit:.3g}" for term, value in law["coefficients"].items())
        laws.append(
            [
                name,
                f"{points[0]['at']:,}",
                f"{points[-1]['at']:,}",
                law["form"],
                f"{100 * law['largest_deviation']:.1f}%",
                coefficients,
            ]
        )
        rows = [[name, "MB" if curve["cost"] == "bytes" else "seconds", "least-most", "law"]]
        for point, fitted in zip(points, law["fitted"], strict=True):
            median, least, most = (f"{point[part] / unit:.4g}" for part in ("median", "least", "most"))
            rows.append([f"{point['at']:,}", median, f"{least}-{most}", f"{fitted / unit:.4g}"])
        tables.append(rows)
    return "\n\n".join([aligned_table(laws, left=(0, 3, 5)), *map(aligned_table, tables)])


def _step(entry: dict[str, Any]) -> list[str]:
    seconds = entry["step_seconds"]
    memory = [_megabytes(entry["peak_bytes"]), _megabytes(entry["step_bytes"])]
    return [
        f"{seconds['median']:.3f}",
        f"{seconds['least']:.3f}-{seconds['most']:.3f}",
        f"{entry['tokens_per_second']['median']:,.0f}",
        *memory,
    ]


def _stages(name: str, entry: dict[str, Any]) -> str:
    """The stages by their share of encoding and writing, and the operations that take most."""
    stages: dict[str, float] = dict(entry["stages"])
    whole = stages.pop("encode") + stages["write"]
    shares = ", ".join(f"{stage} {_percent(seconds / whole)}" for stage, seconds in stages.items())
    most: Sequence[tuple[str, float]] = list(entry["operations"].items())[:6]
    operations = ", ".join(f"{operation.removeprefix('aten::')} {_percent(share)}" for operation, share in most)
    if "busy" in entry:
        operations += f"; the GPU was busy {_percent(entry['busy'])} of the time"
    return f"{name}: slowest stage {entry['slowest_stage']} ({shares}); operations: {operations}"


def _times(spread: dict[str, float]) -> list[str]:
    return [f"{spread['median']:.2f}x", f"{spread['least']:.2f}-{spread['most']:.2f}"]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f}%"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f}"
