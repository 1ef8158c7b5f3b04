"""Metadata of a row: fields of `metadata` and those beside it, none of which takes the place of another."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm2comp.corpus.documents import Document
from llm2comp.corpus.read import read_corpus
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


@pytest.mark.parametrize(("nested", "beside"), [(1, 2), (0, 3), ("1", 1), ([1], [2]), ({"a": 1}, {"a": 2})])
def test_a_name_with_two_values_is_refused_or_skipped(nested: Any, beside: Any, read: Read) -> None:
    rows = {"_id": "a", "text": "t", "metadata": {"year": nested}, "year": beside}, {"_id": "b", "text": "t"}
    with pytest.raises(CorpusError, match='corpus.jsonl:1: "year" has two values, .* in "metadata" and') as failure:
        read(*rows)
    assert "\n" not in str(failure.value)
    skipped: list[str] = []
    assert [document.id for document in read(*rows, on_error="skip", on_skip=skipped.append)] == ["b"]
    assert len(skipped) == 1
