"""Reports: written and read back, invalid ones refused, and the plot."""

import json
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from llm2comp.errors import IndexFolderError, LLM2CompError
from llm2comp_indexes.options import Targets
from llm2comp_indexes.structures.structure import Effort, IndexType
from llm2comp_indexes.tuning.measure import Point
from llm2comp_indexes.tuning.plot import plot_curve
from llm2comp_indexes.tuning.queries import QueryKind
from llm2comp_indexes.tuning.report import Report, make_report, parse_report, read_report, write_report
from llm2comp_indexes.tuning.trials import Candidate

POINTS = (
    Point(Effort(nprobe=1, rerank=1), 0.4, 0.1, 0.2, 0.02, 300),
    Point(Effort(nprobe=8, rerank=1), 0.93, 0.3, 0.6, 0.01, 300),
    Point(Effort(nprobe=16, rerank=1), 0.975, 0.5, 0.9, 0.005, 300),
    Point(Effort(nprobe=16, rerank=4), 0.99, 0.7, 1.2, 0.002, 300),
)


def make(targets: Targets | None = None, memory: int = 12_000_000) -> Report:
    return make_report(
        IndexType("IVF512,SQ8"),
        POINTS,
        targets or Targets(memory=64_000_000, latency_ms=2.0),
        rows=20_000,
        dimension=256,
        memory=memory,
        bytes=40_000_000,
        seconds={"encode": 61.5, "structure": 2.25},
        threads=2,
        query_source="300 rows left out of the index",
        exact=Point(Effort(), 1.0, 0.9, 1.1, 0.0, 300),
        planned="Chose IVF512,SQ8.",
    )


@pytest.fixture
def content() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(json.dumps(make().to_json()))
    return read


def test_it_is_read_back_as_written(tmp_path: Path) -> None:
    report = make()
    record = write_report(tmp_path / "report.json", report)
    assert record.bytes == (tmp_path / "report.json").stat().st_size
    assert read_report(tmp_path / "report.json") == report
    without = replace(report, exact=None, targets=Targets())
    assert parse_report(json.loads(json.dumps(without.to_json())), "here") == without


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("32 passages of 4 to 12 words from the documents, encoded as queries", QueryKind.PASSAGES),
        ("300 of the 1,000,000 vectors in my queries.npy", QueryKind.FILE),
        (
            "300 random documents that are held out of the rows measured (they are in a segment of their own)",
            QueryKind.HELD_OUT,
        ),
        ("100 rows, each moved by noise of half its length (none are held out)", QueryKind.MOVED_ROWS),
        ("32 rows of the other segment", QueryKind.OTHER_ROWS),
        ("300 rows left out of the index", QueryKind.OTHER),
    ],
)
def test_reports_of_version_0_1_0_tell_the_kind_of_queries_by_a_sentence(
    content: dict[str, Any], text: str, kind: QueryKind
) -> None:
    del content["query_kind"]
    assert parse_report({**content, "query_source": text}, "here").query_kind is kind


def test_a_kind_of_queries_is_described_by_its_sentence() -> None:
    text = QueryKind.FILE.describe(count=300, total=1_000_000, file="my queries.npy")
    assert text == "300 of the 1,000,000 vectors in my queries.npy"


def test_it_is_set_to_the_best_point() -> None:
    report = make()
    assert (report.point, report.met) == (POINTS[2], True)
    assert report.reason == (
        "Chose IVF512,SQ8. The finished index of 20,000 vectors, IVF512,SQ8 (nprobe 16), measures recall@10 0.975 at "
        "0.5 ms per query "
        "(finding and scoring; 99 of 100 within 0.9 ms), as asked."
    )


@pytest.mark.parametrize(
    ("targets", "memory", "words"),
    [
        (Targets(recall=0.999, latency_ms=5), 10, ": recall 0.999 is not reached; this is the nearest it gets."),
        (Targets(recall=0.95, latency_ms=0.2), 10, ": at most 0.2 ms is not kept; this is the nearest"),
        (Targets(recall=0.999, latency_ms=0.2), 10, ": recall 0.999 is not reached, and at most 0.2 ms is not kept;"),
        (Targets(memory=1_000_000), 12_000_000, ": its 12 MB of memory are over the 1 MB allowed;"),
    ],
)
def test_it_says_what_is_not_as_asked(targets: Targets, memory: int, words: str) -> None:
    report = make(targets, memory)
    assert not report.met
    assert words in report.reason


def change(content: Any, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for name in parents:
        content = content[int(name) if name.isdigit() else name]
    content[last] = value


@pytest.mark.parametrize(
    "path", ["colour", "wishes.colour", "point.colour", "points.0.colour", "points.0.effort.colour"]
)
def test_unknown_fields_are_refused(content: dict[str, Any], path: str) -> None:
    change(content, path, 1)
    with pytest.raises(
        IndexFolderError, match="here: .* unknown field 'colour', of a newer version perhaps; pip install --upgrade"
    ):
        parse_report(content, "here")


def test_a_newer_format_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(IndexFolderError, match="index report of format 2, this llm2comp reads up to 1"):
        parse_report({**content, "format": 2, "colour": 1}, "here")


@pytest.mark.parametrize(
    "name",
    [
        "type",
        "rows",
        "dimension",
        "wishes",
        "point",
        "met",
        "points",
        "threads",
        "memory",
        "bytes",
        "seconds",
        "reason",
        "format",
    ],
)
def test_missing_fields_are_refused(content: dict[str, Any], name: str) -> None:
    del content[name]
    with pytest.raises(IndexFolderError, match="not a valid index report"):
        parse_report(content, "here")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("rows", 0),
        ("rows", 10**30),
        ("rows", True),
        ("threads", "2"),
        ("point.recall", 1.5),
        ("point.recall", None),
        ("points.0.median_ms", float("nan")),
        ("points.0.median_ms", 10**400),
        ("points.0.p99_ms", -1),
        ("points", [7]),
        ("points.0.effort", []),
        ("points.0.effort.nprobe", 0),
        ("points", {}),
        ("point.recall", 0.5),  # not on the curve
        ("wishes.recall", 0),
        ("wishes.k", 0),
        ("wishes.memory", -1),
        ("seconds", {"encode": "long"}),
        ("exact", {"recall": 1}),
        ("query_kind", "guessed"),
        ("query_kind", None),
    ],
)
def test_impossible_values_are_refused(content: dict[str, Any], path: str, value: Any) -> None:
    change(content, path, value)
    with pytest.raises(IndexFolderError, match="^here: not a valid index report: "):
        parse_report(content, "here")


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"format": 1' + b" " * (5 << 20) + b"}"]
)
def test_files_that_are_no_reports_are_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "report.json").write_bytes(text)
    with pytest.raises(IndexFolderError, match="report.json:"):
        read_report(tmp_path / "report.json")


def test_a_missing_file_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(IndexFolderError, match="No such file"):
        read_report(tmp_path / "report.json")


def test_the_picture_is_a_png_of_1200_by_800(tmp_path: Path) -> None:
    plot_curve(make(), tmp_path / "curve.png")
    content = (tmp_path / "curve.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (1200, 800)


def test_the_picture_of_another_report_is_another(tmp_path: Path) -> None:
    pictures = set()
    for number, targets in enumerate((Targets(), Targets(recall=0.5), Targets(latency_ms=1.0))):
        plot_curve(make(targets), tmp_path / f"{number}.png")
        pictures.add((tmp_path / f"{number}.png").read_bytes())
    assert len(pictures) == 3


def draw(report: Report, path: Path, alternatives: tuple[Candidate, ...] = ()) -> Axes:
    """The axes that were drawn."""
    from matplotlib.figure import Figure

    figures: list[Figure] = []

    def keep(figure: Figure, path: Path, **_: object) -> None:
        figures.append(figure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", keep)
        plot_curve(report, path, alternatives)
    [axes] = figures[0].axes
    return axes


def test_the_99th_percentile_is_a_faint_band_over_the_median(tmp_path: Path) -> None:
    bands = draw(make(), tmp_path / "curve.png").collections
    assert [len(band.get_paths()) for band in bands] == [1, 1]  # one for each number of candidates re-scored
    corners = {(float(x), float(y)) for x, y in np.asarray(bands[0].get_paths()[0].vertices)}
    assert {(0.4, 0.1), (0.4, 0.2), (0.93, 0.3), (0.93, 0.6), (0.975, 0.5), (0.975, 0.9)} <= corners
    assert all(0 < band.get_alpha() < 0.3 for band in bands)


def test_of_exact_search_the_other_types_are_drawn(tmp_path: Path) -> None:
    exact = Point(Effort(), 1.0, 0.9, 1.1, 0.0, 300)
    report = replace(make(), type="Flat", point=exact, points=(exact,), exact=None)
    alone = draw(report, tmp_path / "alone.png")
    assert alone.get_title().endswith("exact search is fast enough, so no other type was tried")
    slower = Point(Effort(nprobe=9, rerank=1), 0.9, 0.4, 0.5, 0.01, 300)  # beaten by a point of more recall
    ivf = Candidate(IndexType("IVF512,SQ8"), 6_000_000, (*POINTS, slower))
    axes = draw(report, tmp_path / "others.png", (ivf,))
    [line] = [line for line in axes.lines if "IVF512,SQ8" in str(line.get_label())]
    assert line.get_label() == "IVF512,SQ8, expected: 6 MB of memory"
    assert list(line.get_xdata()) == [0.4, 0.93, 0.975, 0.99]
    assert axes.get_title().endswith("other types: expected, by trials on a sample of the vectors")
    assert 0.7 < axes.get_xlim()[0] < 0.75  # recall 0.4 of another type is no reason to draw the rest small


def test_without_matplotlib_there_is_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(LLM2CompError, match="matplotlib.*pip install"):
        plot_curve(make(), tmp_path / "curve.png")
    assert not (tmp_path / "curve.png").exists()
