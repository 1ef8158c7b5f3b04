"""Additions of files: what was written again stays, what older indexes hold stays as it is, shards of copies fit."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import IndexFolderError
from llm2comp_indexes import (
    FieldNames,
    VectorFiles,
    build_from_vectors,
    encode_shard,
    open_index,
    parse_part,
)
from llm2comp_indexes.builder import index as builder
from llm2comp_indexes.builder.corpora import find_sources
from llm2comp_indexes.format.manifest import read_manifest
from tests.indexes.additions import FLAT, add, build
from tests.indexes.forging import forge
from tests.word_encoder import WordEncoder

FILES = {
    "a.md": "---\ntags: [x]\n---\n# Bread\n\nFlour and water.\n",
    "b.txt": "rain",
    "sub/c.markdown": "# Moon\n\nFar away.\n",
}


def write(folder: Path, **changes: str) -> Path:
    for name, text in {**FILES, **changes}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def documents(folder: Path) -> dict[str, tuple[str, str, dict[str, Any]]]:
    with open_index(folder, model=WordEncoder()) as index:
        return {hit.id: (hit.title, hit.text, hit.metadata) for hit in index.search(["bread"], k=100)[0]}


def test_a_file_written_again_is_unchanged_and_keeps_its_time(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs")
    os.utime(docs / "a.md", (0, 0))
    folder = build(docs, tmp_path / "idx")
    write(docs)
    assert add(folder, docs) == (0, 0, 3)
    title, text, metadata = documents(folder)["docs/a.md"]
    assert (title, text) == ("Bread", "Flour and water.\n")
    assert metadata == {
        "tags": ["x"],
        "file_path": "a.md",
        "file_name": "a.md",
        "file_modified": "1970-01-01T00:00:00+00:00",
    }
    write(docs, **{"a.md": FILES["a.md"].replace("[x]", "[y]")})
    assert add(folder, docs) == (0, 1, 2)
    assert documents(folder)["docs/a.md"][2]["file_modified"] > "2020"


def test_rows_with_a_field_of_that_name_are_told_apart_by_it(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "1", "text": "rain", "file_modified": "2023"}\n')
    folder = build(rows, tmp_path / "idx")
    rows.write_text('{"id": "1", "text": "rain", "file_modified": "2024"}\n')
    assert add(folder, rows) == (0, 1, 0)


def test_other_metadata_of_files_replaces_them(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs")
    folder = build(docs, tmp_path / "idx", fields=FieldNames(metadata=()))
    assert documents(folder)["docs/a.md"][2] == {}
    assert add(folder, docs) == (0, 0, 3)
    assert add(folder, docs, fields=FieldNames(metadata=("tags",))) == (0, 1, 2)
    assert documents(folder)["docs/a.md"][2] == {"tags": ["x"]}


def test_an_index_of_bare_texts_stays_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    docs = write(tmp_path / "docs")
    monkeypatch.setattr(builder, "find_sources", partial(find_sources, bare_texts=True))
    folder = build(docs, tmp_path / "idx")
    forge(folder, lambda manifest: [source.pop("files") for source in manifest["sources"]])  # as before there were any
    assert documents(folder) == {"docs/a.md": ("", FILES["a.md"], {}), "docs/b.txt": ("", "rain", {})}
    caplog.clear()
    write(docs, **{"d.md": "# New\n\nText.\n"})
    assert add(folder, docs) == (1, 0, 2)
    assert documents(folder)["docs/d.md"] == ("", "# New\n\nText.\n", {})
    assert [source.files for source in read_manifest(folder).sources or ()] == [False]


def test_shards_of_copies_fit_together_whenever_they_were_copied(tmp_path: Path) -> None:
    for number in (1, 2):
        docs = write(tmp_path / f"host{number}" / "docs")
        os.utime(docs / "b.txt", (number, number))
        encode_shard([docs], tmp_path / "shards", parse_part(f"{number}/2"), model=WordEncoder())
    joined = tmp_path / "joined"
    build_from_vectors(VectorFiles([tmp_path / "shards"]), joined, model=WordEncoder(), options=FLAT)
    assert documents(joined)["docs/b.txt"][2]["file_modified"] == "1970-01-01T00:00:02+00:00"
    write(tmp_path / "host2" / "docs", **{"b.txt": "sun"})
    encode_shard(
        [tmp_path / "host2" / "docs"], tmp_path / "shards", parse_part("2/2"), model=WordEncoder(), overwrite=True
    )
    with pytest.raises(IndexFolderError, match="shard"):
        build_from_vectors(VectorFiles([tmp_path / "shards"]), tmp_path / "x", model=WordEncoder(), options=FLAT)
