"""Metadata of a row: fields of `metadata` and those beside it, none of which takes the place of another."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm2comp.corpus.documents import Document
from llm2comp.corpus.read import read_corpus
from llm2comp.corpus.scalars import is_same
from llm2comp.errors import CorpusError

Read = Callable[..., list[Document]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def write_and_read(*rows: dict[str, Any], **options: Any) -> list[Document]:
        path = tmp_path / "corpus.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return list(read_corpus(path, **options))

    return write_and_read


@pytest.mark.parametrize(
    ("nested", "beside", "expected"),
    [
        ({"year": 1}, {"lang": "en"}, {"year": 1, "lang": "en"}),
        ({"year": 1}, {"year": 1}, {"year": 1}),
        ({"year": 1}, {"year": 1.0}, {"year": 1}),
        ({"a": [{"b": 1.0, "c": None}]}, {"a": [{"c": None, "b": 1}]}, {"a": [{"b": 1, "c": None}]}),
        ({"open": True}, {"open": True}, {"open": True}),
        ({"year": 1}, {"year": None}, {"year": 1}),
        ({"year": None}, {"year": 1}, {"year": 1}),
        ({"year": None}, {"year": None}, {"year": None}),
        ({"tags": ["a"]}, {"tags": ["a"]}, {"tags": ["a"]}),
        ({"title": "of the file"}, {"title": "T"}, {"title": "of the file"}),
        ({"id": 7}, {}, {"id": 7}),
        ("a text", {"year": 1}, {"metadata": "a text", "year": 1}),
    ],
)
def test_metadata_and_what_stands_beside_it_are_both_kept(
    nested: Any, beside: dict[str, Any], expected: dict[str, Any], read: Read
) -> None:
    [document] = read({"_id": "a", "text": "t", "metadata": nested, **beside})
    assert document.metadata == expected


@pytest.mark.parametrize(
    ("nested", "beside"),
    [(1, 2), (0, 3), ("1", 1), ([1], [2]), ({"a": 1}, {"a": 2}), ({"a": 1}, {"b": 1}), ([1], [1, 1]), ([], {}), ("", 0)]
    + [(True, 1), (0, False), (1.0, True), ([1, True], [1, 1]), ({"a": [{"b": False}]}, {"a": [{"b": 0}]})]
    + [(2**53 + 1, float(2**53)), ([0], False)],
)
def test_a_name_with_two_values_is_refused_or_skipped(nested: Any, beside: Any, read: Read) -> None:
    rows = {"_id": "a", "text": "t", "metadata": {"year": nested}, "year": beside}, {"_id": "b", "text": "t"}
    with pytest.raises(CorpusError, match='corpus.jsonl:1: "year" has two values, .* in "metadata" and') as failure:
        read(*rows)
    assert "\n" not in str(failure.value)
    skipped: list[str] = []
    assert [document.id for document in read(*rows, on_error="skip", on_skip=skipped.append)] == ["b"]
    assert len(skipped) == 1


VALUES = st.recursive(
    st.booleans() | st.integers(-2, 2) | st.sampled_from([None, 0.0, 1.0, -2.0, 0.5, "", "1"]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.sampled_from("ab"), children),
    max_leaves=6,
)


def spelled(value: Any) -> str:
    """JSON of the value, in which whole floats are written as integers."""
    return json.dumps(as_integers(value), sort_keys=True)


def as_integers(value: Any) -> Any:
    if isinstance(value, list):
        return [as_integers(item) for item in value]
    if isinstance(value, dict):
        return {key: as_integers(item) for key, item in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


@settings(max_examples=100, deadline=None, derandomize=True)
@given(first=VALUES, second=VALUES)
def test_values_are_the_same_if_json_spells_them_the_same(first: Any, second: Any) -> None:
    assert is_same(first, second) == (spelled(first) == spelled(second))
    assert is_same(first, json.loads(spelled(first)))


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize("field", ['"score": X', '"metadata": {"score": X}', '"a": [1, {"score": [X]}]'])
def test_an_infinite_number_is_refused_or_skipped(tmp_path: Path, field: str, number: str) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text(f'{{"id": 1, "text": "t", {field.replace("X", number)}}}\n{{"id": 2, "text": "t", "score": NaN}}\n')
    with pytest.raises(CorpusError, match=f"^{path}:1: 'score' is -?inf, which metadata cannot hold; [^\n]*$"):
        list(read_corpus(path))
    skipped: list[str] = []
    kept = list(read_corpus(path, on_error="skip", on_skip=skipped.append))
    assert kept == [Document("2", "", "t", {"score": None})]
    assert len(skipped) == 1


def test_a_field_of_several_types_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "c.jsonl"
    rows: list[dict[str, Any]] = [
        {"year": 1999, "tags": ["a"], "price": None, "open": True},
        {"year": 1.5, "tags": None, "price": 3, "open": False},
        {"year": "unknown", "tags": "a", "price": 4.5, "open": 1},
        {"year": "unknown", "tags": ["a"]},
    ]
    path.write_text("".join(json.dumps({"text": str(number), **row}) + "\n" for number, row in enumerate(rows)))
    for _ in range(2):
        assert len(list(read_corpus(path))) == 4
    note = "before; a filter finds the values of one type alone"
    assert caplog.messages == [
        f'{path}:3: "year" is of the type text here, and number {note}',
        f'{path}:3: "tags" is of the type text here, and list {note}',
        f'{path}:3: "open" is of the type number here, and boolean {note}',
    ]


def test_names_that_differ_in_case_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "1", "text": "t", "Year": 1999}\n{"id": "2", "text": "t", "Year": 1}\n')
    (tmp_path / "b.jsonl").write_text('{"id": "3", "text": "t", "year ": 2000}\n{"id": "4", "text": "t", "year ": 2}\n')
    assert [list(one.metadata) for one in read_corpus(tmp_path)] == [["Year"], ["Year"], ["year "], ["year "]]
    message = 'the metadata "year " and "Year" are two fields, and a filter finds the values of one; rename one'
    assert caplog.messages == [f"{tmp_path}/b.jsonl:1: {message}"]
