"""Measurements of a finished index, stored beside it as JSON and checked when read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llm2comp.checked_json import JsonFormat, check_known, take, take_count, take_number
from llm2comp.errors import IndexFolderError
from llm2comp.units import format_bytes, format_ms
from llm2comp_indexes.format.files import FileRecord, HashedFile
from llm2comp_indexes.options import Targets, format_latency
from llm2comp_indexes.structures.structure import Effort
from llm2comp_indexes.structures.types import IndexType
from llm2comp_indexes.tuning.choose import format_effort
from llm2comp_indexes.tuning.measure import Point, best_point, rank
from llm2comp_indexes.tuning.queries import QueryKind

__all__ = ["REPORT", "Report", "make_report", "parse_report", "read_report", "write_report"]

REPORT = "report.json"
_FORMAT = JsonFormat(
    "index report",
    IndexFolderError,
    "pip install --upgrade llm2comp, or build the index again",
    most_bytes=4 << 20,
    version=1,
)
_MOST_POINTS = 10_000


@dataclass(frozen=True, slots=True)
class Report:
    """Recall, latency, size and build time of a finished index.

    Attributes:
        type: FAISS factory string.
        rows: Number of vectors searched.
        dimension: Length of a vector.
        targets: Memory, latency and recall that the index should keep to.
        point: The effort that the index is set to, with its recall and latency (milliseconds): one of `points`.
        met: Whether memory, recall and latency keep to the targets.
        points: The whole curve, in the order measured.
        exact: Exact search of the same vectors with the same queries; None if it was not measured.
        query_source: Where the queries come from, as text: "300 rows left out of the index".
        threads: Number of FAISS threads during the measurement.
        memory: Estimated bytes that searching holds in memory.
        bytes: Size of the files on disk.
        seconds: Duration of the build's phases: `encode`, `documents` (reading and writing, where encoding did not hide
            it), `write`, `bm25` and so on.
        reason: Sentences for people: what was chosen, why, and what was measured.
        query_kind: Where the queries come from, for programs.
    """

    type: str
    rows: int
    dimension: int
    targets: Targets
    point: Point
    met: bool
    points: tuple[Point, ...]
    exact: Point | None
    query_source: str
    threads: int
    memory: int
    bytes: int
    seconds: Mapping[str, float]
    reason: str
    query_kind: QueryKind = QueryKind.OTHER

    @property
    def wishes(self) -> Targets:
        """Older name of `targets`."""
        return self.targets

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; `parse_report` reads them."""
        content = asdict(self)
        targets = content.pop("targets")
        return {
            "format": _FORMAT.version,
            **content,
            "wishes": targets,
            "points": [asdict(point) for point in self.points],
            "seconds": dict(self.seconds),
        }


def make_report(
    kind: IndexType,
    points: Sequence[Point],
    targets: Targets,
    *,
    rows: int,
    dimension: int,
    memory: int,
    bytes: int,
    seconds: Mapping[str, float],
    threads: int,
    query_source: str,
    query_kind: QueryKind = QueryKind.OTHER,
    exact: Point | None = None,
    planned: str = "",
) -> Report:
    """The report of a measured index that is set to the best point for the targets.

    Args:
        kind: Its type.
        points: Its curve, from `measure_curve`.
        targets: Memory, latency and recall that the index should keep to.
        rows: Number of vectors searched.
        dimension: Length of a vector.
        memory: From `memory_bytes`.
        bytes: Size of the files on disk.
        seconds: Duration of the build's phases, by name.
        threads: Number of FAISS threads during the measurement.
        query_source: Where the queries come from, as text.
        query_kind: The same, for programs.
        exact: Exact search measured with the same queries.
        planned: Reason of the plan, the beginning of the report's `reason`.

    Raises:
        SettingsError: There are no points.
    """
    point = best_point(points, targets)
    met = rank(point, targets) < 2 and targets.allows(memory)
    reason = f"{planned} {_format_result(kind, point, targets, memory, met, rows)}".strip()
    return Report(
        kind.factory,
        rows,
        dimension,
        targets,
        point,
        met,
        tuple(points),
        exact,
        query_source,
        threads,
        memory,
        bytes,
        dict(seconds),
        reason,
        query_kind,
    )


def _format_result(kind: IndexType, point: Point, targets: Targets, memory: int, met: bool, rows: int) -> str:
    measured = (
        f"The finished index of {rows:,} vector{'s' * (rows != 1)}, {format_effort(kind, point.effort)}, "
        f"measures recall@{targets.k} {point.recall:.3f} "
        f"at {format_ms(point.median_ms)} per query (finding and scoring; 99 of 100 within {format_ms(point.p99_ms)})"
    )
    if met:
        return f"{measured}, as asked."
    missed = [f"recall {targets.recall:g} is not reached"] if point.recall < targets.recall else []
    missed += [f"{format_latency(targets)} is not kept"] if point.median_ms > targets.latency else []
    missed += (
        [f"its {format_bytes(memory)} of memory are over the {format_bytes(targets.memory)} allowed"]
        if targets.memory and memory > targets.memory
        else []
    )
    return f"{measured}: {', and '.join(missed)}; this is the nearest it gets."


def write_report(path: Path, report: Report) -> FileRecord:
    """Writes the report as JSON; returns the record of the file."""
    with HashedFile(path) as file:
        file.write(json.dumps(report.to_json(), indent=1, allow_nan=False).encode())
        return file.finish()


def read_report(path: Path) -> Report:
    """The report in the file.

    Raises:
        IndexFolderError: It is missing, too large, not JSON, not a report, or of a newer version.
    """
    return parse_report(_FORMAT.read(path), str(path))


def parse_report(content: Any, source: str) -> Report:
    """The report from its JSON values.

    Args:
        content: The values that `Report.to_json` returned.
        source: Name of the file, for errors.

    Raises:
        IndexFolderError: It is not a report, a field is missing or impossible, or a newer llm2comp wrote it.
    """
    _FORMAT.check_version(content, source)
    with _FORMAT.parsing(source):
        return _parse(content)


def _parse(content: dict[str, Any]) -> Report:
    check_known(content, {"format", "wishes", *Report.__dataclass_fields__} - {"targets"}, "the report")
    exact, seconds = content.get("exact"), take(content, "seconds", dict)
    source = take(content, "query_source", str)
    report = Report(
        type=take(content, "type", str),
        rows=take_count(content, "rows", 1),
        dimension=take_count(content, "dimension", 1),
        targets=Targets.from_json(take(content, "wishes", dict)),
        point=_point(take(content, "point", dict)),
        met=take(content, "met", bool),
        points=tuple(_point(point) for point in take(content, "points", list)[:_MOST_POINTS]),
        exact=None if exact is None else _point(exact),
        query_source=source,
        threads=take_count(content, "threads", 1),
        memory=take_count(content, "memory", 0),
        bytes=take_count(content, "bytes", 0),
        seconds={name: take_number(seconds, name) for name in seconds},
        reason=take(content, "reason", str),
        query_kind=_query_kind(content, source),
    )
    if report.point not in report.points:
        raise ValueError("its point is not on its curve")
    return report


def _query_kind(content: dict[str, Any], source: str) -> QueryKind:
    """The kind of queries; reports of version 0.1.0 have none, only the text of their source."""
    return QueryKind(take(content, "query_kind", str)) if "query_kind" in content else QueryKind.from_text(source)


def _point(content: Any) -> Point:
    if not isinstance(content, dict):
        raise ValueError("a point of its curve is not an object")
    check_known(content, Point.__dataclass_fields__, "a point of its curve")
    effort = take(content, "effort", dict)
    check_known(effort, Effort.__dataclass_fields__, "an effort")
    efforts = {
        name: None if effort.get(name) is None else take_count(effort, name, 1)
        for name in ("nprobe", "ef_search", "rerank")
    }
    times = {name: take_number(content, name) for name in ("median_ms", "p99_ms")}
    shares = {name: take_number(content, name, most=1.0) for name in ("recall", "error")}
    return Point(effort=Effort(**efforts), queries=take_count(content, "queries", 0), **times, **shares)
