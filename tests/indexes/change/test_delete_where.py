"""Deleting by a filter on metadata."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import SettingsError
from llm2comp_indexes import IndexOptions, build_index, delete_documents, verify_index
from tests.indexes.live import ChunkingEncoder, contents, identifiers, make_documents


@pytest.mark.parametrize("chunks", [{}, {"chunk_tokens": 3, "chunk_at": "tokens"}])
def test_documents_that_pass_a_filter_are_deleted(
    tmp_path: Path, write_corpus: Callable[..., Path], chunks: dict[str, Any]
) -> None:
    encoder = ChunkingEncoder()
    documents = make_documents(range(20))
    folder = tmp_path / "idx"
    build_index([write_corpus(documents)], folder, model=encoder, options=IndexOptions(**chunks))
    before = contents(folder)
    assert delete_documents(folder, where="year < 2003", dry_run=True) == (6, ())
    assert contents(folder) == before
    for wrong in ("yaer < 2003", "year <"):
        with pytest.raises(SettingsError):
            delete_documents(folder, where=wrong)
    with pytest.raises(SettingsError, match="both"):
        delete_documents(folder, ["d1"], where="year < 2003")
    assert contents(folder) == before
    assert delete_documents(folder, where="year < 2003") == (6, ())
    left = {name.partition("#")[0] for name in identifiers(folder, encoder)}
    assert left == {row["_id"] for row in documents if row["year"] >= 2003}
    assert delete_documents(folder, where="year < 2003") == (0, ())
    assert verify_index(folder).documents == 14
    if chunks:
        assert delete_documents(folder, where="llm2comp_chunk == 2") == (14, ()), "whole, not a chunk of each"
