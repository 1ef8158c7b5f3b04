"""Ids of every scalar type, values that say there is none, and values that Python cannot hold."""

import json
import re
import uuid
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from llm2comp.corpus.documents import Document
from llm2comp.corpus.read import read_corpus, read_qrels, read_queries
from llm2comp.corpus.scalars import id_text, is_missing, to_json
from llm2comp.errors import CorpusError

QUICK = settings(max_examples=100, deadline=None, derandomize=True)
TIMES = ["00:00:00", "00:00:00.000000001", "00:00:00.000001001", "00:00:00.000002"]
DURATIONS = ["0:00:00.000000001", "0:00:00.000001001", "0:00:00.000002", "-1 day, 23:59:59.999999999"]
UUID = uuid.UUID("477ce15a-61cb-48fd-ae29-5a616ef6cbe8")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("12.0", "12.0"),  # a text stays as it is
        (12.0, "12"),
        (-0.0, "0"),
        (1.5, "1.5"),
        (2.0**53 - 1, "9007199254740991"),
        (np.float64(-(2.0**53) + 1), "-9007199254740991"),
        (2**70, str(2**70)),
        (UUID, str(UUID)),
        (Decimal("1E+2"), "100"),
        (Decimal("1.50"), "1.50"),
        (Decimal("1.00"), "1"),
        (Decimal("-0.00"), "0"),
        (Decimal("-12.0"), "-12"),
        (Decimal("9" * 40 + ".000"), "9" * 40),  # more digits than Python's decimals compute with
        (b"doc-1", "doc-1"),
        (b"caf\xc3\xa9\xc2\xa01", "café\u00a01"),
        (b"01ff", "01ff"),
        (b"\xff\x00", "hex:ff00"),
        (b"\x00a", "hex:0061"),
        (b"hex:ff00", "hex:6865783a66663030"),
        (date(2020, 1, 2), "2020-01-02"),
        (datetime(2020, 1, 2, 3, 4, 5), "2020-01-02T03:04:05"),
        (time(3, 4), "03:04:00"),
        (np.int64(7), "7"),
        (np.float32(7), "7"),
        (np.float32(1.1), "1.1"),
        (np.float32(2**24 - 1), "16777215"),
        (np.float16(0.1), "0.1"),
        (np.float16(2047), "2047"),
        (np.longdouble(1.5), "1.5"),
        (np.str_("a"), "a"),
        (np.datetime64("2020-01-02"), "2020-01-02"),
    ],
)
def test_ids_are_the_text_of_any_scalar(value: object, text: str) -> None:
    assert id_text(value) == text


@pytest.mark.parametrize(
    "value", [True, np.False_, "", b"", None, float("inf"), float("nan"), Decimal("NaN"), np.datetime64("NaT"), [], {}]
)
def test_what_is_no_id(value: object) -> None:
    with pytest.raises(ValueError, match="expected a string or a number"):
        id_text(value)


@pytest.mark.parametrize(
    "value",
    [
        2.0**53,
        -(2.0**53),
        2.0**60,
        1e16,
        1e300,
        np.float64(2**53),
        np.float32(2**24),
        np.float16(2048),
        np.float32(1e30),
    ],
)
def test_a_float_that_stands_for_several_whole_numbers_is_no_id(value: float) -> None:
    with pytest.raises(
        ValueError, match="which stands for several whole numbers, expected one below [0-9,]+; write it"
    ):
        id_text(value)


@pytest.mark.parametrize("number", ["9007199254740993.0", "1e16", "-1E400", "1152921504606846976.0"])
def test_such_floats_in_json_are_one_line_or_skipped(tmp_path: Path, number: str) -> None:
    path = tmp_path / "c.jsonl"
    rows = f'{{"id": {number}, "text": "t"}}\n{{"id": 9007199254740993, "text": "t"}}\n{{"id": 1e3, "text": "t"}}\n'
    path.write_text(rows)
    with pytest.raises(CorpusError, match=rf'^{path}:1: the id in "id" is [^\n]+$'):
        list(read_corpus(path))
    with pytest.raises(CorpusError, match=rf"^{path}:1: the id in _id or id [^\n]+ is [^\n]+$"):
        read_queries(path)
    skipped = list[str]()
    documents = list(read_corpus(path, on_error="skip", on_skip=skipped.append))
    assert [document.id for document in documents] == ["9007199254740993", "1000"]
    assert len(skipped) == 1


@QUICK
@given(st.lists(st.binary(min_size=1, max_size=4) | st.sampled_from([b"hex:", b"hex:ff", b"ff", b"\xff"]), unique=True))
def test_different_bytes_are_different_ids(values: list[bytes]) -> None:
    values += [id_text(value).encode() for value in values]
    assert len({id_text(value) for value in values}) == len(set(values))


def test_missing_values() -> None:
    values: list[object] = [
        None,
        float("nan"),
        np.float32("nan"),
        np.datetime64("NaT"),
        Decimal("NaN"),
        Decimal("sNaN"),
    ]
    try:
        import pandas
    except ImportError:
        pass
    else:
        values += [pandas.NaT, pandas.NA]
    assert all(map(is_missing, values))
    assert not any(map(is_missing, ["", "NaN", 0, False, [], float("inf"), np.array([1.0, 2.0])]))
    assert to_json({"a": values, "b": np.array([1, 2]), "c": b"x"}) == {"a": [None] * len(values), "b": [1, 2]}


@pytest.mark.parametrize("missing", ["null", "NaN"])
def test_a_missing_value_is_as_if_the_field_was_not_there(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "c.jsonl"
    row = '{"_id": X, "docid": "a", "title": X, "text": X, "contents": "t", "metadata": X, "year": X}'
    path.write_text(row.replace("X", missing))
    [document] = read_corpus(path)
    assert document == Document("a", "", "t", {"text": None, "year": None})
    path.write_text('{"id": X, "text": "t"}\n{"text": "t"}'.replace("X", missing))
    assert len({document.id for document in read_corpus(path)}) == 2


@pytest.mark.parametrize(
    ("column", "ids"),
    [
        (pyarrow.array([UUID.bytes], pyarrow.binary(16)), ["hex:" + UUID.hex]),
        (pyarrow.array([b"d1", b"\xff"]), ["d1", "hex:ff"]),
        (pyarrow.array([Decimal("1.50")]), ["1.50"]),
        (pyarrow.array([Decimal("1.00"), Decimal("2.00")], pyarrow.decimal128(9, 2)), ["1", "2"]),
        (pyarrow.array([1.0, 2.0]), ["1", "2"]),
        (pyarrow.array([1.1, 2.0], pyarrow.float32()), ["1.1", "2"]),
        (pyarrow.array([0.1], pyarrow.float16()), ["0.1"]),
        (pyarrow.array([0, 1, 1001, 2000]).cast(pyarrow.time64("ns")), TIMES),
        (pyarrow.array([1, 1001, 2000, -1]).cast(pyarrow.duration("ns")), DURATIONS),
        (pyarrow.array([date(2020, 1, 2)]), ["2020-01-02"]),
        (pyarrow.array([2**64 - 1], pyarrow.uint64()), [str(2**64 - 1)]),
        (pyarrow.array(["a"]).dictionary_encode(), ["a"]),
    ],
)
def test_ids_in_parquet(tmp_path: Path, column: Any, ids: list[str]) -> None:
    parquet.write_table(pyarrow.table({"id": column, "text": ["t"] * len(ids)}), tmp_path / "c.parquet")
    assert [document.id for document in read_corpus(tmp_path / "c.parquet")] == ids


def out_of_range() -> list[Any]:
    far = pyarrow.array([0, 3_000_000], pyarrow.int32()).cast(pyarrow.date32())
    seconds = pyarrow.array([0, 300_000_000_000]).cast(pyarrow.timestamp("s"))
    lists = pyarrow.ListArray.from_arrays(pyarrow.array([0, 1, 2], pyarrow.int32()), far)
    return [far, seconds, lists, pyarrow.array([0, 2**60]).cast(pyarrow.duration("s"))]


@pytest.mark.parametrize("column", out_of_range(), ids=lambda column: str(column.type))
@pytest.mark.parametrize("name", ["when", "title", "id"])
def test_values_outside_pythons_range_are_one_line_or_skipped(tmp_path: Path, name: str, column: Any) -> None:
    path = tmp_path / "c.parquet"
    columns = {"_id": ["a", "b"], "text": ["t", "u"], name: column}
    parquet.write_table(pyarrow.table(columns), path)
    with pytest.raises(
        CorpusError, match=rf'^{path}:2: the value of "{name}", of type .*cannot be held: .*$'
    ) as caught:
        list(read_corpus(path) if name != "title" else read_corpus(path, on_error="skip", on_skip=fail_on_range))
    assert "\n" not in str(caught.value)


def fail_on_range(message: str) -> None:
    if "cannot be held" in message:
        raise CorpusError(message)


def test_rows_out_of_range_are_counted_and_the_others_read(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    days = pyarrow.array([0, 3_000_000] * 300, pyarrow.int32()).cast(pyarrow.date32())
    parquet.write_table(pyarrow.table({"id": range(600), "text": ["t"] * 600, "day": days}), path)
    skipped = list[str]()
    documents = list(read_corpus(path, on_error="skip", on_skip=skipped.append))
    assert [document.id for document in documents] == [str(number) for number in range(0, 600, 2)]
    assert [message.split(": ")[0] for message in skipped] == [f"{path}:{row}" for row in range(2, 601, 2)]


def test_nanoseconds_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    times = pyarrow.array([1234567890123456789]).cast(pyarrow.timestamp("ns"))
    parquet.write_table(pyarrow.table({"id": ["a"], "text": ["t"], "at": times}), path)
    [document] = read_corpus(path)
    assert document.metadata == {"at": "2009-02-13T23:31:30.123456789"}


def test_nanoseconds_are_kept_at_any_depth(tmp_path: Path) -> None:
    path, times = tmp_path / "c.parquet", pyarrow.array([1, None]).cast(pyarrow.time64("ns"))
    offsets = pyarrow.array([0, 1, 2], pyarrow.int32())
    columns = {
        "at": times,
        "list": pyarrow.ListArray.from_arrays(offsets, times),
        "struct": pyarrow.StructArray.from_arrays([times], ["at"]),
        "map": pyarrow.MapArray.from_arrays(offsets, pyarrow.array(["a", "b"]), times),
        "coded": times.dictionary_encode(),
    }
    parquet.write_table(pyarrow.table({"id": ["a", "b"], "text": ["t", "u"], **columns}), path)
    text = TIMES[1]
    first, second = read_corpus(path)
    assert first.metadata == {"at": text, "list": [text], "struct": {"at": text}, "map": [["a", text]], "coded": text}
    assert second.metadata == {"at": None, "list": [None], "struct": {"at": None}, "map": [["b", None]], "coded": None}


def test_data_sets_of_the_hub_are_read_as_parquet_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    columns = {
        "ID": pyarrow.array([1.1, 2.0, 3.0], pyarrow.float32()),
        "text": ["t", "u", "v"],
        "at": pyarrow.array([1, 0, 0]).cast(pyarrow.time64("ns")),
        "took": pyarrow.array([1, 0, 0]).cast(pyarrow.duration("ns")),
        "day": pyarrow.array([0, 0, 3_000_000], pyarrow.int32()).cast(pyarrow.date32()),
    }
    (tmp_path / "set").mkdir()
    parquet.write_table(pyarrow.table(columns), tmp_path / "set" / "train.parquet")
    source = f"hub:{tmp_path}/set"
    with pytest.raises(CorpusError, match=rf'^{source}:3: the value of "day", of type .*, cannot be held: '):
        list(read_corpus(source))
    first, second = read_corpus(source, on_error="skip", on_skip=lambda message: None)
    assert first == Document("1.1", "", "t", {"at": TIMES[1], "took": DURATIONS[0], "day": "1970-01-01"})
    assert second == Document("2", "", "u", {"at": TIMES[0], "took": "0:00:00", "day": "1970-01-01"})


def test_images_of_the_hub_are_left_out_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither they nor their paths, which differ by machine, are metadata."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"never decoded")
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "id": "1", "text": "one"}\n')
    assert list(read_corpus(f"hub:{folder}")) == [Document("1", "", "one")]
    assert f"hub:{folder}:1: values are left out of the metadata from here on: image" in caplog.messages


def test_short_floats_in_metadata_and_judgements(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    scores = pyarrow.array([0.5, None], pyarrow.float32())
    parquet.write_table(pyarrow.table({"id": ["a", "b"], "text": ["t", "u"], "score": scores}), path)
    assert [document.metadata for document in read_corpus(path)] == [{"score": 0.5}, {"score": None}]
    judged = {"query-id": ["q", "r"], "corpus-id": ["a", "b"], "score": pyarrow.array([1.0, 1.5], pyarrow.float32())}
    parquet.write_table(pyarrow.table(judged), path)
    with pytest.raises(CorpusError, match=r":2: the score is .*1\.5.*, expected a whole number"):
        read_qrels(path)


def test_one_line_names_the_fields_that_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "c.parquet"
    images = pyarrow.array([{"bytes": b"x", "path": "p"}] * 300)
    blobs = pyarrow.array([b"text"] * 300)
    table = {"id": range(300), "text": ["t"] * 300, "blob": blobs, "image": images, "list": [[b"a"]] * 300}
    parquet.write_table(pyarrow.table(table), path)
    for _ in range(2):
        documents = list(read_corpus(path))
    assert documents[0].metadata == {"image": {"path": "p"}, "list": []}
    [line] = caplog.messages
    assert line.startswith(f"{path}:1: values are left out of the metadata from here on: ")
    assert line.endswith(": blob (bytes), bytes (bytes), list (bytes)")


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.recursive(
        st.none() | st.floats() | st.integers() | st.text() | st.binary() | st.decimals() | st.datetimes() | st.uuids(),
        lambda children: st.lists(children) | st.dictionaries(st.text(), children),
        max_leaves=10,
    )
)
def test_every_value_but_infinity_becomes_json(value: object) -> None:
    if holds_infinity(value):
        with pytest.raises(ValueError, match="is -?inf, which metadata cannot hold"):
            to_json({"value": value})
    else:
        json.dumps(to_json({"value": value}), allow_nan=False)


def holds_infinity(value: object) -> bool:
    if isinstance(value, list | dict):
        return any(map(holds_infinity, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float | Decimal) and str(value).lower() in ("inf", "-inf", "infinity", "-infinity")


def test_a_truth_value_is_no_id(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    parquet.write_table(pyarrow.table({"id": [True, False], "text": ["t", "u"]}), path)
    with pytest.raises(CorpusError, match=rf'^{path}:1: the id in "id" is a truth value \(true\), expected a string'):
        list(read_corpus(path))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(), st.integers(0, 20))
def test_equal_whole_numbers_are_one_id(number: int, places: int) -> None:
    assert id_text(Decimal(f"{number}.{'0' * places}")) == id_text(number) == str(number)
    if abs(number) < 2**53:
        assert id_text(float(number)) == str(number)


@pytest.mark.parametrize("zone", ["Mars/Base", "+99:99", "../../etc/passwd"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("within", [False, True])
def test_an_unknown_time_zone_is_named(tmp_path: Path, zone: str, unit: str, within: bool) -> None:
    path = tmp_path / "c.parquet"
    column = pyarrow.array([1, None]).cast(pyarrow.timestamp(unit, zone))
    if within:
        column = pyarrow.ListArray.from_arrays(pyarrow.array([0, 1, 2], pyarrow.int32()), column)
    parquet.write_table(pyarrow.table({"id": ["a", "b"], "text": ["t", "u"], "at": column}), path)
    with pytest.raises(CorpusError, match=f"{path}:1: .*this system knows no time zone '{re.escape(zone)}'") as caught:
        list(read_corpus(path))
    assert not re.search("zoneinfo|pytz|\n", str(caught.value))


@pytest.mark.parametrize("zone", ["Europe/Berlin", "+05:30", "UTC"])
def test_known_time_zones_are_kept(tmp_path: Path, zone: str) -> None:
    path = tmp_path / "c.parquet"
    times = pyarrow.array([1]).cast(pyarrow.timestamp("us", zone))
    parquet.write_table(pyarrow.table({"id": ["a"], "text": ["t"], "at": times}), path)
    [document] = read_corpus(path)
    at = datetime.fromisoformat(document.metadata["at"])
    assert at.timestamp() == 1e-6
    assert at.utcoffset() == timedelta(hours={"Europe/Berlin": 1, "+05:30": 5.5, "UTC": 0}[zone])


def test_a_corpus_of_rows_that_cannot_be_held_says_how_many(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    times = pyarrow.array([1, 2, 3]).cast(pyarrow.timestamp("us", "Mars/Base"))
    parquet.write_table(pyarrow.table({"id": ["a", "b", "c"], "text": ["t"] * 3, "at": times}), path)
    with pytest.raises(CorpusError, match=f"no document in it; 3 rows were left out, the first as {path}:1: .*Mars"):
        list(read_corpus(path, on_error="skip", on_skip=lambda message: None))
