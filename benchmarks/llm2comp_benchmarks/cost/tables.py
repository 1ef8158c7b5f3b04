"""Results of the benchmarks of encoding, training, growth and cold starts as tables for a terminal, ratios first."""

from typing import Any

from llm2comp_benchmarks.results.tables import aligned_table

__all__ = ["format_cluster", "format_encoding", "format_growth", "format_startup", "format_training"]

_OPERATIONS = 6  # shown for each system


def format_encoding(record: dict[str, Any]) -> str:
    """Ratios of ours, latency of queries, one row per system, the matmul rate, and where the time of ours goes."""
    systems = {name: entry for name, entry in record.items() if isinstance(entry, dict) and "texts_per_second" in entry}
    ratios = [["ours over theirs", "speed", "least-most", "counted in", "peak memory"]]
    ratios += [
        [name, *_speed(ratio), ratio["per"], _percent(ratio["peak_memory"])] for name, ratio in _named_ratios(record)
    ]
    rates = ["texts/s", "tokens/s", "GFLOP/s", "of matmul", "least-most"]
    rows = [["", *rates, "peak MB", "beyond loading", "least cosine"]]
    rows += [_encoding_row(name, entry) for name, entry in systems.items()]
    matmul = [["", "GFLOP/s", "of the model's shapes"]]
    matmul += [
        [name, *_medians(entry, "gflops", "model_shapes_gflops")]
        for name, entry in record.items()
        if name.startswith("matmul ")
    ]
    stages = [_stages(name, entry) for name, entry in systems.items() if "stages" in entry]
    tables = [table for table in (_fastest_peers(record), _queries(systems), ratios, rows, matmul) if len(table) > 1]
    return "\n\n".join([*map(aligned_table, tables), "\n".join(stages)])


def _fastest_peers(record: dict[str, Any]) -> list[list[str]]:
    """Ours over the fastest peer, and over the fastest in equal precision; nothing of records without kinds of texts.

    Bare forward passes of transformers are no peer here: they take no texts.
    """
    rows = [["ours over theirs, the fastest", "speed", "peer", "in equal precision", "peer"]]
    for ours, others in record["ratios"].items() if "kinds" in record["settings"] else ():
        peers = {name: ratio for name, ratio in others.items() if not name.startswith(("llm2comp", "transformers"))}
        equal = {name: ratio for name, ratio in peers.items() if name.split()[-1] == ours.split()[-1]}
        if peers:
            rows.append([ours, *_slowest_ratio(peers), *(_slowest_ratio(equal) if equal else ("-", "-"))])
    return rows


def _slowest_ratio(peers: dict[str, dict[str, Any]]) -> tuple[str, str]:
    name = min(peers, key=lambda peer: peers[peer]["speed"]["median"])
    return f"{peers[name]['speed']['median']:.2f}x", name


def _queries(systems: dict[str, dict[str, Any]]) -> list[list[str]]:
    rows = [["one query at a time", "p50 ms", "p99 ms"]]
    rows += [
        [name, *(f"{entry['query_ms'][part]:.2f}" for part in ("p50", "p99"))]
        for name, entry in systems.items()
        if "query_ms" in entry
    ]
    return rows


def _encoding_row(name: str, entry: dict[str, Any]) -> list[str]:
    share = entry.get("matmul_share")
    of_matmul = (
        [_percent(share["median"]), f"{_percent(share['least'])}-{_percent(share['most'])}"] if share else ["-", "-"]
    )
    memory = [_megabytes(entry["peak_bytes"]), _megabytes(entry["peak_bytes"] - entry["loaded_bytes"])]
    cosine = f"{entry['least_cosine']:.6f}" if "least_cosine" in entry else "-"
    return [name, *_medians(entry, "texts_per_second", "tokens_per_second", "gflops"), *of_matmul, *memory, cosine]


def format_training(record: dict[str, Any]) -> str:
    """Ratios of ours, one row per system, and one per vocabulary and system."""
    ratios = [["ours over theirs", "speed", "least-most", "peak memory", "beyond loading"]]
    ratios += [
        [name, *_speed(ratio), _percent(ratio["peak_memory"]), _percent(ratio["step_memory"])]
        for name, ratio in _named_ratios(record)
    ]
    rows = [["", "s/step", "least-most", "tokens/s", "peak MB", "beyond loading"]]
    rows += [
        _training_row(name, entry)
        for name, entry in record.items()
        if isinstance(entry, dict) and "step_seconds" in entry
    ]
    rows += [
        _training_row(f"vocabulary {size}, {name}", entry)
        for size, systems in record["vocabulary"].items()
        for name, entry in systems.items()
    ]
    return "\n\n".join(aligned_table(table) for table in (ratios, rows) if len(table) > 1)


def _training_row(name: str, entry: dict[str, Any]) -> list[str]:
    seconds = entry["step_seconds"]
    memory = [_megabytes(entry["peak_bytes"]), _megabytes(entry["step_bytes"])]
    spread = f"{seconds['least']:.3f}-{seconds['most']:.3f}"
    return [name, f"{seconds['median']:.3f}", spread, *_medians(entry, "tokens_per_second"), *memory]


def format_growth(record: dict[str, Any]) -> str:
    """One row per curve, with its law and how well it fits; then the points of each curve."""
    laws = [["", "from", "to", "law", "largest deviation", "coefficients"]]
    laws += [_law_row(name, curve) for name, curve in record["curves"].items()]
    points = [_point_rows(name, curve) for name, curve in record["curves"].items()]
    return "\n\n".join([aligned_table(laws, left=(0, 3, 5)), *map(aligned_table, points)])


def _law_row(name: str, curve: dict[str, Any]) -> list[str]:
    law, points = curve["law"], curve["points"]
    coefficients = (f"{term} = {value / _unit(curve):.3g}" for term, value in law["coefficients"].items())
    ends = [f"{points[0]['at']:,}", f"{points[-1]['at']:,}"]
    return [name, *ends, law["form"], f"{100 * law['largest_deviation']:.1f}%", ", ".join(coefficients)]


def _point_rows(name: str, curve: dict[str, Any]) -> list[list[str]]:
    unit = _unit(curve)
    rows = [[name, "seconds" if unit == 1 else "MB", "least-most", "law"]]
    for point, fitted in zip(curve["points"], curve["law"]["fitted"], strict=True):
        median, least, most = (f"{point[part] / unit:.4g}" for part in ("median", "least", "most"))
        rows.append([f"{point['at']:,}", median, f"{least}-{most}", f"{fitted / unit:.4g}"])
    return rows


def _unit(curve: dict[str, Any]) -> float:
    """Divisor of the costs of a curve: bytes are shown in MB, seconds unchanged."""
    return 1e6 if curve["cost"] == "bytes" else 1.0


def format_cluster(record: dict[str, Any]) -> str:
    """One row for each system, and the forecast that was computed."""
    rows = [["", "documents/s", "seconds over one process", "least-most", "start s", "join s", "actor MB", "driver MB"]]
    rows += [
        _cluster_row(name, entry)
        for name, entry in record.items()
        if isinstance(entry, dict) and "seconds_of_start" in entry
    ]
    computed = [["computed, not run", "workers", "hours", "encoding", "joining", "cost per million", "then longest"]]
    for name, entry in record["forecast"].items():
        for workers, values in entry.items():
            if isinstance(values, dict):
                hours = [f"{values[key]:.1f}" for key in ("hours", "hours_of_encoding", "hours_of_joining")]
                cost = f"{values['cost_per_million']:.2f}"
                title = f"{entry['documents']:,} documents, by {name}"
                computed.append([title, workers.split()[0], *hours, cost, values["longest_after_encoding"]])
    return "\n\n".join(map(aligned_table, (rows, computed)))


def _cluster_row(name: str, entry: dict[str, Any]) -> list[str]:
    ratio = entry["seconds_ratio"]
    return [
        name,
        f"{entry['documents_per_second']['median']:,.0f}",
        f"{ratio['median']:.2f}x",
        f"{ratio['least']:.2f}-{ratio['most']:.2f}",
        f"{entry['seconds_of_start']['median']:.1f}",
        f"{entry['seconds_of_joining']['median']:.1f}",
        *(f"{entry[field] / 1e6:,.0f}" for field in ("actor_bytes", "driver_bytes")),
    ]


def format_startup(record: dict[str, Any]) -> str:
    """One row per process: seconds, seconds of processors, and both beside importing torch."""
    rows = [["", "s", "least-most", "CPU s", "over torch", "beyond torch, s", "CPU s"]]
    rows += [
        _startup_row(name, entry)
        for name, entry in record.items()
        if isinstance(entry, dict) and "cpu_seconds_beyond" in entry
    ]
    return aligned_table(rows)


def _startup_row(name: str, entry: dict[str, Any]) -> list[str]:
    seconds = entry["seconds"]
    medians = [
        entry[part]["median"] for part in ("cpu_seconds", "seconds_ratio", "seconds_beyond", "cpu_seconds_beyond")
    ]
    cpu, ratio, beyond, cpu_beyond = medians
    spread = f"{seconds['least']:.2f}-{seconds['most']:.2f}"
    return [
        name,
        f"{seconds['median']:.2f}",
        spread,
        f"{cpu:.2f}",
        f"{ratio:.2f}x",
        f"{beyond:+.2f}",
        f"{cpu_beyond:+.2f}",
    ]


def _named_ratios(record: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"{ours} / {peer}", ratio) for ours, peers in record["ratios"].items() for peer, ratio in peers.items()]


def _stages(name: str, entry: dict[str, Any]) -> str:
    """The stages by their share of encoding and writing, and the operations that take most."""
    stages: dict[str, float] = dict(entry["stages"])
    whole = stages.pop("encode") + stages["write"]
    shares = ", ".join(f"{stage} {_percent(seconds / whole)}" for stage, seconds in stages.items())
    operations = ", ".join(
        f"{operation.removeprefix('aten::')} {_percent(share)}"
        for operation, share in list(entry["operations"].items())[:_OPERATIONS]
    )
    if "busy" in entry:
        operations += f"; the GPU was busy {_percent(entry['busy'])} of the time"
    return f"{name}: slowest stage {entry['slowest_stage']} ({shares}); operations: {operations}"


def _medians(entry: dict[str, Any], *rates: str) -> list[str]:
    return [f"{entry[rate]['median']:,.0f}" for rate in rates]


def _speed(ratio: dict[str, Any]) -> list[str]:
    speed = ratio["speed"]
    return [f"{speed['median']:.2f}x", f"{speed['least']:.2f}-{speed['most']:.2f}"]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f}%"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f}"
