"""Fields that chunks get: none of a document is overwritten, and indexes of version 0.1.0 keep theirs until merged."""

import json
import pickle
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import CorpusError, IndexFolderError, SettingsError
from llm2comp_indexes import (
    IndexOptions,
    Part,
    SearchOptions,
    VectorFiles,
    add_documents,
    build_from_vectors,
    build_index,
    delete_documents,
    encode_shard,
    merge_index,
    open_index,
    verify_index,
)
from llm2comp_indexes.builder import encode_shard as shards
from llm2comp_indexes.builder.chunks import make_splitter
from llm2comp_indexes.builder.corpora import RESERVED_FIELDS
from llm2comp_indexes.format.chunks import CHUNK_FIELDS, CHUNK_FIELDS_0_1, parent_id
from tests.indexes.live import ChunkingEncoder, RecordingEncoder

Write = Callable[..., Path]

OPTIONS = IndexOptions(type="flat", chunk_tokens=3, chunk_overlap=1, chunk_at="tokens")
OLD = Path(__file__).parents[2] / "formats" / "0.1.0"
LONG = {"_id": "long", "text": "one two three four five six seven", "document": "mine", "chunk": 70}
SHORT = {"_id": "short", "text": "one two", "document": "other", "chunk": 1}


def rows_that_match(folder: Path, where: str, model: Any = None) -> set[str]:
    with open_index(folder, model=model) as index:
        return {hit.id for hit in index.search(["one cats"], 1000, options=SearchOptions(where=where))[0]}


def test_fields_of_documents_stay_in_long_and_in_short_ones(write_corpus: Write, tmp_path: Path) -> None:
    encoder, folder = ChunkingEncoder(), tmp_path / "idx"
    build_index([write_corpus([LONG, SHORT])], folder, model=encoder, options=OPTIONS)
    hits = {hit.id: hit for hit in open_index(folder, model=encoder).search(["one"], 10)[0]}
    chunk = hits["long#2"]
    assert chunk.metadata == {"document": "mine", "chunk": 70, "llm2comp_document": "long", "llm2comp_chunk": 2}
    assert (chunk.document_id, hits["short"].document_id) == ("long", "short")
    assert hits["short"].metadata == {"document": "other", "chunk": 1}
    assert rows_that_match(folder, "chunk == 1", encoder) == {"short"}
    assert rows_that_match(folder, "llm2comp_chunk == 1", encoder) == {"long#1"}
    assert rows_that_match(folder, 'document == "mine"', encoder) == {"long#1", "long#2", "long#3"}
    assert add_documents(folder, [write_corpus([LONG, SHORT])], model=encoder)[:3] == (0, 0, 2)
    assert delete_documents(folder, ["long", "mine", "other"]) == (1, ("mine", "other"))
    verify_index(folder)


@pytest.mark.parametrize("options", [OPTIONS, IndexOptions(type="flat")], ids=["chunks", "documents"])
@pytest.mark.parametrize("field", RESERVED_FIELDS)
def test_a_document_with_a_reserved_field_is_refused_or_skipped(
    field: str, options: IndexOptions, write_corpus: Write, tmp_path: Path
) -> None:
    encoder, skipped = ChunkingEncoder(), []
    corpus = write_corpus([{"_id": "a", "text": "one", field: 1}, {"_id": "b", "text": "two"}])
    with pytest.raises(CorpusError, match=f'corpus.jsonl: document "a": the field "{field}" is reserved') as failure:
        build_index([corpus], tmp_path / "idx", model=encoder, options=options)
    assert "\n" not in str(failure.value)
    report = build_index(
        [corpus], tmp_path / "idx", model=encoder, options=options, on_error="skip", on_skip=skipped.append
    )
    assert (report.documents, report.skipped, len(skipped)) == (1, 1, 1)
    corpus.write_text(corpus.read_text().splitlines()[0] + "\n")
    with pytest.raises(CorpusError, match="an empty corpus: no document in it; 1 row was left out"):
        add_documents(tmp_path / "idx", [corpus], model=encoder, on_error="skip", on_skip=skipped.append)


@pytest.mark.parametrize("nested", [{"b": 2}, {"b": [1]}, {"b": "1"}, {"b": True}, {"b": {}}, {"b": {"c": 1}}])
def test_two_fields_of_one_name_in_filters_are_refused(nested: Any, write_corpus: Write, tmp_path: Path) -> None:
    rows = [{"_id": "x", "text": "one", "a.b": 1, "a": nested}, {"_id": "y", "text": "two", "a.b": 2, "a": {"b": 2}}]
    with pytest.raises(CorpusError, match='document "x": "a.b" names two fields'):
        build_index([write_corpus(rows)], tmp_path / "idx", model=RecordingEncoder())
    build_index([write_corpus(rows[1:])], tmp_path / "idx", model=RecordingEncoder(), options=IndexOptions("flat"))
    assert rows_that_match(tmp_path / "idx", "a.b == 2", RecordingEncoder()) == {"y"}


def test_rows_of_an_index_without_chunks_are_documents_whatever_they_look_like(
    write_corpus: Write, tmp_path: Path
) -> None:
    corpus = write_corpus([{"_id": f"a#{part}", "text": "one", "document": "a", "chunk": part} for part in (1, 2)])
    build_index([corpus], tmp_path / "idx", model=RecordingEncoder(), options=IndexOptions(type="flat"))
    hits = open_index(tmp_path / "idx", model=RecordingEncoder()).search(["one"])[0]
    assert [hit.document_id for hit in hits] == ["a#1", "a#2"]
    assert [hit.document_id for hit in pickle.loads(pickle.dumps(hits))] == ["a#1", "a#2"]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """An index of chunks of version 0.1.0."""
    return Path(shutil.copytree(OLD / "chunked-hybrid", tmp_path / "old"))


def test_an_index_of_version_0_1_0_keeps_its_fields_until_it_is_merged(old: Path, tmp_path: Path) -> None:
    first = rows_that_match(old, "chunk == 2")
    assert {identifier.partition("#")[2] for identifier in first} == {"2"}
    new = tmp_path / "new.jsonl"
    new.write_text(json.dumps({"_id": "new", "text": "cats and dogs " * 40}))
    assert add_documents(old, [new])[:3] == (1, 0, 0)
    assert rows_that_match(old, "chunk == 2") == first | {"new#2"}
    with open_index(old) as index:
        assert {hit.document_id for hit in index.search(["cats"], 1000)[0]} >= {"new", "d1"}

    new.write_text(json.dumps({"_id": "clash", "text": "cats and dogs " * 40, "chunk": 70}))
    with pytest.raises(
        CorpusError, match=r'"clash": its metadata has the field "chunk".*llm2comp index merge'
    ) as failure:
        add_documents(old, [new])
    assert "\n" not in str(failure.value)

    merge_index(old)
    verify_index(old)
    assert rows_that_match(old, "llm2comp_chunk == 2") == first | {"new#2"}
    with pytest.raises(SettingsError, match='no document has the field "chunk"; did you mean "llm2comp_chunk"'):
        rows_that_match(old, "chunk == 2")
    assert add_documents(old, [new])[:3] == (1, 0, 0)
    assert rows_that_match(old, "chunk == 70 and llm2comp_chunk == 1") == {"clash#1"}
    assert add_documents(old, [OLD / "second.jsonl"])[2] == 11  # one of the twelve was deleted


def test_a_manifest_that_names_other_fields_is_refused(write_corpus: Write, tmp_path: Path) -> None:
    from llm2comp.checked_json import signed

    build_index([write_corpus([LONG])], tmp_path / "idx", model=ChunkingEncoder(), options=OPTIONS)
    path = tmp_path / "idx" / "manifest.json"
    content = json.loads(path.read_text())
    assert content["chunk_fields"] == list(CHUNK_FIELDS)
    del content["checksum"]
    path.write_text(json.dumps(signed({**content, "chunk_fields": ["year", "lang"]})))
    with pytest.raises(IndexFolderError, match="chunk_fields"):
        open_index(tmp_path / "idx")


def test_joined_shards_of_version_0_1_0_get_todays_fields(
    write_corpus: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = ChunkingEncoder()
    corpus = write_corpus([{"_id": f"d{row}", "text": "one two three four five", "year": row} for row in range(5)])
    build_index([corpus], tmp_path / "idx", model=encoder, options=OPTIONS)
    monkeypatch.setattr(shards, "make_splitter", partial(make_splitter, fields=CHUNK_FIELDS_0_1))
    for shard in (1, 2):
        encode_shard([corpus], tmp_path / "shards", Part(shard, 2), model=encoder, options=OPTIONS)
    folders = sorted((tmp_path / "shards").iterdir())
    build_from_vectors(VectorFiles(tuple(folders)), tmp_path / "joined", model=encoder, options=IndexOptions("flat"))
    lines = [tmp_path / name / "segments" / "000001" / "documents.jsonl" for name in ("idx", "joined")]
    assert lines[0].read_bytes() == lines[1].read_bytes()
    assert b"llm2comp_document" in lines[0].read_bytes()


def test_the_document_of_a_row_of_either_version() -> None:
    assert parent_id("a#2", {"llm2comp_document": "a", "llm2comp_chunk": 2}) == "a"
    assert parent_id("a#2", {"document": "a", "chunk": 2}) == "a"
    assert parent_id("a#2#1", {"document": "a", "chunk": 2, "llm2comp_document": "a#2", "llm2comp_chunk": 1}) == "a#2"
    assert parent_id("a#2", {"document": "a", "chunk": 3}) == "a#2"
    assert parent_id("a", {"document": 3}) == "a"
