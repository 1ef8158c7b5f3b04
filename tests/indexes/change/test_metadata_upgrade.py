"""Objects and large numbers in segments written before filters saw them: read as they are, completed by a merge."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm2comp_indexes import IndexOptions, SearchOptions, add_documents, build_index, merge_index, open_index
from llm2comp_indexes.format import metadata
from llm2comp_indexes.format.columns import Kind, to_kinds
from tests.indexes.live import RecordingEncoder

LARGE = 2**64 + 1
BEFORE = [{"_id": "a", "text": "one", "f": {"k": 1}}, {"_id": "b", "text": "one", "f": LARGE}]
AFTER = [{"_id": "c", "text": "one", "f": {"k": 2}}, {"_id": "d", "text": "one", "f": 5}, {"_id": "e", "text": "one"}]


def find(folder: Path, where: str) -> set[str]:
    with open_index(folder, model=RecordingEncoder()) as index:
        return {hit.id for hit in index.search(["one"], 10, options=SearchOptions(where=where))[0]}


def _to_kinds_before(value: Any) -> Iterator[tuple[Kind, Any]]:
    """Objects are left out, and large numbers are rounded."""
    if isinstance(value, int) and abs(value) >= 2**63:
        yield "number", float(value)
    elif not isinstance(value, dict):
        yield from to_kinds(value)


def test_merge_completes_the_metadata_of_earlier_segments(
    write_corpus: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, model = tmp_path / "idx", RecordingEncoder()
    with monkeypatch.context() as patched:
        patched.setattr(metadata, "to_kinds", _to_kinds_before)
        build_index([write_corpus(BEFORE)], folder, model=model, options=IndexOptions(type="flat"))
    assert find(folder, "f is not None") == {"b"}
    add_documents(folder, [write_corpus(AFTER, "after.jsonl")], model=model)
    assert find(folder, "f is not None") == {"b", "c", "d"}
    assert find(folder, "f.k >= 1") == {"a", "c"}
    merge_index(folder)
    assert find(folder, "f is not None") == {"a", "b", "c", "d"}
    assert find(folder, "f is None") == {"e"}
    assert find(folder, f"f == {LARGE}") == {"b"}
    assert find(folder, f"f == {LARGE - 1}") == set()
