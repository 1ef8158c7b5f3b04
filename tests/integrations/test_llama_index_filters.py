"""LlamaIndex's filters as texts: any field name and any value keep their meaning, that of LlamaIndex's own store."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm2comp.corpus.documents import Document
from llm2comp.errors import SettingsError
from llm2comp_indexes.filters.parse import parse_where
from llm2comp_indexes.format.metadata import MetadataWriter, open_metadata

pytest.importorskip("llama_index.core", reason="needs the extra llama-index")

from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.utils import build_metadata_filter_fn
from llama_index.embeddings.llm2comp.filters import to_where

NAN, INF = float("nan"), float("inf")
ORDERED = ("EQ", "NE", "GT", "GTE", "LT", "LTE")


def _matches(filters: MetadataFilters, rows: list[dict[str, Any]]) -> list[int]:
    with tempfile.TemporaryDirectory() as folder:
        writer = MetadataWriter(Path(folder) / "metadata.arrow")
        writer.add(Document(str(number), "", "text", row) for number, row in enumerate(rows))
        if writer.finish() is None:
            return np.flatnonzero(parse_where(to_where(filters) or "").mask(None, len(rows))).tolist()
        columns = open_metadata(Path(folder) / "metadata.arrow", len(rows))
        return np.flatnonzero(parse_where(to_where(filters) or "").mask(columns, len(rows))).tolist()


def _matches_in_llama_index(filters: MetadataFilters, rows: list[dict[str, Any]]) -> list[int]:
    matches = build_metadata_filter_fn(lambda name: rows[int(name)], filters)
    return [number for number in range(len(rows)) if matches(str(number))]


def _one(key: str, operator: FilterOperator, value: Any) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, operator=operator, value=value)])


NE_FINDS_ABSENT = _matches_in_llama_index(_one("draft", FilterOperator.NE, 1), [{}]) == [0]
same_store = pytest.mark.skipif(
    not NE_FINDS_ABSENT, reason="the store of this LlamaIndex leaves documents without the field out of NE"
)

FLAGS = [{"draft": True}, {"draft": False}, {"draft": 1}, {"draft": 0.0}, {"draft": 2}, {}]


@same_store
@pytest.mark.parametrize("value", [0, 1, 1.0, -0.0, 0.5, 2, -1, INF, -INF, NAN])
@pytest.mark.parametrize("operator", ORDERED)
def test_numbers_match_truth_values_as_in_llama_indexs_store(operator: str, value: float) -> None:
    filters = _one("draft", FilterOperator[operator], value)
    assert _matches(filters, FLAGS) == _matches_in_llama_index(filters, FLAGS)


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        (FilterOperator.EQ, 1, [0]),
        (FilterOperator.EQ, 0, [1]),
        (FilterOperator.NE, 1, [1, 2]),
        (FilterOperator.NE, 0, [0, 2]),
        (FilterOperator.IN, [1, 5], [0]),
        (FilterOperator.IN, [0.0, 1.0], [0, 1]),
        (FilterOperator.NIN, [0], [0, 2]),
        (FilterOperator.NIN, [NAN, 1.0], [1, 2]),
        (FilterOperator.GT, 0, [0]),
        (FilterOperator.LTE, 0, [1]),
        (FilterOperator.LT, INF, [0, 1]),
        (FilterOperator.EQ, NAN, []),
        (FilterOperator.NE, NAN, [0, 1, 2]),
    ],
)
def test_filters_on_truth_values_alone(operator: FilterOperator, value: Any, expected: list[int]) -> None:
    rows = [{"draft": True}, {"draft": False}, {}]
    filters = _one("draft", operator, value)
    with tempfile.TemporaryDirectory() as folder:
        writer = MetadataWriter(Path(folder) / "metadata.arrow")
        writer.add(Document(str(number), "", "text", row) for number, row in enumerate(rows))
        writer.finish()
        parse_where(to_where(filters) or "").check([open_metadata(Path(folder) / "metadata.arrow", len(rows))])
    assert _matches(filters, rows) == expected


@pytest.mark.parametrize("value", [NAN, INF, -INF, pytest.param(10**5000, id="huge"), "nan", "True", "None", "x or y"])
def test_no_value_becomes_a_field_name(value: Any) -> None:
    trap: dict[str, Any] = {"nan": 3, "inf": 3, "x": 3, "y": 3, "field": 3, "n": 3, "s": "3"}
    for operator in (*ORDERED, "CONTAINS"):
        where = parse_where(to_where(_one("n", FilterOperator[operator], value)) or "")
        assert where.fields == {"n"}
    for operator in ("IN", "NIN", "ANY", "ALL"):
        assert parse_where(to_where(_one("n", FilterOperator[operator], [value])) or "").fields == {"n"}
    key = "s" if isinstance(value, str) else "n"
    for operator in ORDERED:
        filters = _one(key, FilterOperator[operator], value)
        assert _matches(filters, [trap]) == _matches_in_llama_index(filters, [trap])


names = st.text(min_size=1, max_size=8) | st.text(alphabet="a\u00b5\u03bc .`'\"\\{}#nan[]", min_size=1, max_size=8)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_infinity=False) | st.booleans() | st.integers(-2, 2)
filter_numbers = st.integers(-(2**53), 2**53) | st.floats() | st.integers(-2, 2) | st.sampled_from([0.0, -0.0, 1.0])
texts = st.text(max_size=4) | st.sampled_from(["nan", "'", '"', "\\", "a", "b"])
cases = st.one_of(
    st.tuples(st.lists(numbers, max_size=6), st.sampled_from(ORDERED), filter_numbers),
    st.tuples(st.lists(numbers, max_size=6), st.sampled_from(["IN", "NIN"]), st.lists(st.floats(), max_size=4)),
    st.tuples(st.lists(numbers, max_size=6), st.sampled_from(["IN", "NIN"]), st.lists(st.integers(-2, 2), max_size=4)),
    st.tuples(st.lists(texts, max_size=6), st.sampled_from([*ORDERED, "CONTAINS", "TEXT_MATCH"]), texts),
    st.tuples(st.lists(texts, max_size=6), st.sampled_from(["IN", "NIN"]), st.lists(texts, max_size=4)),
    st.tuples(st.lists(st.lists(texts, max_size=3), max_size=6), st.just("CONTAINS"), texts),
    st.tuples(
        st.lists(st.lists(texts, max_size=3), max_size=6), st.sampled_from(["ANY", "ALL"]), st.lists(texts, max_size=3)
    ),
)


@same_store
@settings(max_examples=100, deadline=None, derandomize=True)
@given(key=names, case=cases)
def test_any_name_and_any_value_survive(key: str, case: tuple[list[Any], str, Any]) -> None:
    values, operator, value = case
    rows = [{key: each, "nan": 1, "inf": 1, "a": 0} for each in values if key not in ("nan", "inf", "a")] + [{}]
    filters = _one(key, FilterOperator[operator], value)
    assert parse_where(to_where(filters) or "").fields == {key.encode("utf-8", "replace").decode()}
    assert _matches(filters, rows) == _matches_in_llama_index(filters, rows)


BIG = 2**53 + 1
SCALARS: list[Any] = [True, False, 0, 1, 2, -1, 0.0, 1.0, 0.5, "", "0", "1", "true", "True", "a", "ab"]
SCALARS += [BIG, BIG - 1, float(BIG), 2**64 + 1, 2.0**64, {}, {"a": 1}, {"ab": {"1": [2]}}]
LISTS: list[Any] = [
    *([], [True], [False], [True, False], [0], [1], [0.0], [1.5, 2], [0, True], ["1"], ["true"], ["a", "b"], [""]),
    *([None], [[1]], [{"a": 1}], [True, "a", 2], [False, None]),
    *(
        [1, 0],
        [True, 0],
        [0, True],
        [1, BIG],
        [BIG, 1],
        [BIG - 1, 1],
        [BIG - 1],
        [BIG],
        ["b", "a"],
        ["a", 1],
        ["a", None],
    ),
]
VALUES: dict[str, list[Any]] = {
    **dict.fromkeys(
        [*ORDERED, "CONTAINS"], [0, 1, 2, 0.0, -0.0, 1.0, 0.5, "", "1", "true", "True", "a", BIG, 2**64 + 1]
    ),
    **dict.fromkeys(
        ["IN", "NIN", "ANY", "ALL"],
        [
            [],
            [0],
            [1],
            [0, 1],
            [1, 2],
            [0.0],
            [1.0, 0.5],
            ["1"],
            ["true", "False"],
            ["a", "b"],
            [""],
            [BIG],
            [float(BIG)],
        ],
    ),
    "TEXT_MATCH": ["", "a", "1"],
    "IS_EMPTY": [None],
}
EQUAL_LISTS: list[Any] = [[], [0], [1, 0], [0, 1], [1.0, 0.0], [1, BIG], [BIG], [float(BIG)], [NAN], [1.5, 2.0], [INF]]
for name in ("EQ", "NE"):
    VALUES[name] = [*VALUES[name], None, *EQUAL_LISTS, ["a"], ["a", "b"], ["b", "a"], [""], ["1"]]
for name in ("ANY", "ALL"):
    VALUES[name] = [*VALUES[name], "", "a", "ab", "1"]


def _reference(filters: MetadataFilters, row: dict[str, Any]) -> bool | None:
    """Whether LlamaIndex's store finds the row; None where it raises TypeError."""
    try:
        return bool(_matches_in_llama_index(filters, [row]))
    except TypeError:
        return None


@same_store
@pytest.mark.parametrize("operator", VALUES)
def test_every_operator_on_every_type_of_value(operator: str) -> None:
    rows = [{"f": stored} for stored in (*SCALARS, *LISTS, None)] + [{}]
    for value in VALUES[operator]:
        filters = _one("f", FilterOperator[operator], value)
        expected = [_reference(filters, row) for row in rows]
        matches = _matches(filters, rows)
        for number, row in enumerate(rows):
            if expected[number] is not None:
                assert (number in matches) == expected[number], (operator, value, row)


@same_store
@pytest.mark.parametrize("operator", VALUES)
def test_only_what_raises_type_error_there_is_refused(operator: str, tmp_path: Path) -> None:
    for number, stored in enumerate((*SCALARS, *LISTS)):
        path, row = tmp_path / str(number), {"f": stored}
        with MetadataWriter(path) as writer:
            writer.add([Document("1", "", "text", row)])
            writer.finish()
        columns = open_metadata(path, 1)
        for value in VALUES[operator]:
            filters = _one("f", FilterOperator[operator], value)
            where = parse_where(to_where(filters) or "")
            try:
                where.check([columns])
            except SettingsError:
                assert _reference(filters, row) is None, (operator, value, stored)
            else:
                assert where.mask(columns, 1).tolist() == [bool(_reference(filters, row))]


members = st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, -0.0, 1.0, 0.5]) | st.none() | texts
stored_values = members | st.lists(members, max_size=4) | st.dictionaries(texts, members, max_size=2)
sought = st.integers(-2, 2) | st.sampled_from([0.0, -0.0, 1.0, 0.5]) | texts
sought_lists = (
    st.lists(st.integers(-2, 2), max_size=3)
    | st.lists(st.sampled_from([0.0, -0.0, 1.0, 0.5]), max_size=3)
    | st.lists(texts, max_size=3)
)
tests = st.one_of(
    st.tuples(st.sampled_from([*ORDERED, "CONTAINS"]), sought),
    st.tuples(st.sampled_from(["IN", "NIN", "ANY", "ALL"]), sought_lists),
    st.tuples(st.sampled_from(["EQ", "NE"]), sought_lists | st.none()),
    st.tuples(st.sampled_from(["ANY", "ALL"]), texts),
    st.just(("IS_EMPTY", None)),
)


@same_store
@settings(max_examples=100, deadline=None, derandomize=True)
@given(values=st.lists(stored_values, max_size=8), test=tests)
def test_mixed_values_match_as_in_llama_indexs_store(values: list[Any], test: tuple[str, Any]) -> None:
    rows: list[dict[str, Any]] = [*({"f": value} for value in values), {}]
    filters = _one("f", FilterOperator[test[0]], test[1])
    expected = [_reference(filters, row) for row in rows]
    matches = _matches(filters, rows)
    assert [number for number in matches if expected[number] is not None] == [
        number for number, answer in enumerate(expected) if answer
    ]
