"""Additions from several sources: nothing is replaced by an id that was made; the same source again changes nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import CorpusError, SettingsError
from llm2comp_indexes import (
    IndexOptions,
    VectorFiles,
    add_documents,
    build_from_vectors,
    build_index,
    delete_documents,
    encode_shard,
    merge_index,
    open_index,
    parse_part,
)
from llm2comp_indexes.format.manifest import read_manifest
from tests.indexes.forging import forge
from tests.word_encoder import WordEncoder

FLAT = IndexOptions(type="flat")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def build(corpora: list[Path], output: Path, **options: Any) -> Path:
    build_index(corpora, output, model=WordEncoder(), options=FLAT, **options)
    return output


def add(folder: Path, *corpora: Path, **options: Any) -> tuple[int, ...]:
    return add_documents(folder, list(corpora), model=WordEncoder(), **options)[:3]


def texts(folder: Path) -> dict[str, str]:
    with open_index(folder, model=WordEncoder()) as index:
        return {hit.id: hit.text for hit in index.search(["bread"], k=100)[0]}


def test_files_of_the_same_path_in_two_folders_are_both_kept(tmp_path: Path) -> None:
    for parent in "AB":
        write(tmp_path / parent / "docs" / "README.md", f"bread of {parent}")
    folder = build([tmp_path / "A" / "docs"], tmp_path / "idx")
    assert add(folder, tmp_path / "B" / "docs") == (1, 0, 0)
    assert texts(folder) == {"docs/README.md": "bread of A", "docs-2/README.md": "bread of B"}
    write(tmp_path / "B" / "docs" / "README.md", "bread, changed")
    assert add(folder, tmp_path / "A" / "docs", tmp_path / "B" / "docs") == (0, 1, 1)
    assert texts(folder) == {"docs/README.md": "bread of A", "docs-2/README.md": "bread, changed"}


def test_rows_of_two_exports_without_ids_are_all_kept(tmp_path: Path) -> None:
    monday = write(tmp_path / "Monday" / "rows.csv", "text,n\nbread,1\nbutter,2\nbread,1\n")
    tuesday = write(tmp_path / "Tuesday" / "rows.csv", "text,n\nrain,1\nbutter,2\n")
    folder = build([monday], tmp_path / "idx")
    assert add(folder, tuesday) == (2, 0, 0)
    assert sorted(texts(folder).values()) == ["bread", "bread", "butter", "butter", "rain"]
    before = (folder / "manifest.json").read_bytes()
    assert add(folder, monday, tuesday) == (0, 0, 5)
    assert (folder / "manifest.json").read_bytes() == before
    both = build([monday, tuesday], tmp_path / "both")
    assert texts(both) == texts(folder)


def test_ids_that_the_user_gives_replace_across_sources(tmp_path: Path) -> None:
    folder = build([write(tmp_path / "a.jsonl", '{"_id": "x", "text": "bread"}\n')], tmp_path / "idx")
    assert add(folder, write(tmp_path / "b.jsonl", '{"_id": "x", "text": "rain"}\n')) == (0, 1, 0)
    assert texts(folder) == {"x": "rain"}


def test_an_id_of_the_user_is_never_replaced_by_one_that_was_made(tmp_path: Path) -> None:
    folder = build([write(tmp_path / "a.jsonl", '{"_id": "docs/a.md", "text": "bread"}\n')], tmp_path / "idx")
    docs = write(tmp_path / "docs" / "a.md", "rain").parent
    with pytest.raises(CorpusError, match="--source"):
        add(folder, docs)
    assert add(folder, docs, source="notes") == (1, 0, 0)
    assert texts(folder) == {"docs/a.md": "bread", "notes/a.md": "rain"}


def test_a_moved_folder_given_its_name_stays_the_same_source(tmp_path: Path) -> None:
    write(tmp_path / "old" / "a.md", "bread")
    folder = build([tmp_path / "old"], tmp_path / "idx", source="handbook")
    shutil.move(tmp_path / "old", tmp_path / "new")
    assert add(folder, tmp_path / "new", source="handbook") == (0, 0, 1)
    assert [source.root for source in read_manifest(folder).sources or ()] == [str(tmp_path / "new")]
    assert add(folder, tmp_path / "new") == (0, 0, 1)  # known by its new path from now on
    delete_documents(folder, ["handbook/a.md"])
    merge_index(folder)
    assert add(folder, tmp_path / "new") == (1, 0, 0)
    assert list(texts(folder)) == ["handbook/a.md"]


def test_positions_are_ids_on_request_and_stay_so(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.csv", "text\nbread\nbutter\n")
    folder = build([rows], tmp_path / "idx", ids_are_positions=True)
    assert texts(folder) == {"rows.csv/rows.csv:2": "bread", "rows.csv/rows.csv:3": "butter"}
    write(rows, "text\nbread\nrain\n")
    assert add(folder, rows) == (0, 1, 1)
    other = build([rows], tmp_path / "other")
    with pytest.raises(SettingsError, match="ids_are_positions"):
        add(other, rows, ids_are_positions=True)


def test_shards_make_the_ids_of_an_unsharded_build(tmp_path: Path) -> None:
    rows = "text\n" + "".join(f"bread {number}\n" for number in range(7))
    for host in ("host1", "host2"):
        write(tmp_path / host / "rows.csv", rows)
        write(tmp_path / host / "docs" / "a.md", "rain")
    for number, host in enumerate(("host1", "host2"), start=1):
        corpora = [tmp_path / host / "rows.csv", tmp_path / host / "docs"]
        encode_shard(corpora, tmp_path / "shards", parse_part(f"{number}/2"), model=WordEncoder())
    joined, whole = tmp_path / "joined", tmp_path / "whole"
    build_from_vectors(VectorFiles([tmp_path / "shards"]), joined, model=WordEncoder(), options=FLAT)
    build([tmp_path / "host1" / "rows.csv", tmp_path / "host1" / "docs"], whole)
    assert texts(joined) == texts(whole)
    listed = read_manifest(joined).sources or ()
    assert [(source.name, source.root) for source in listed] == [("rows.csv", None), ("docs", None)]
    assert add(joined, tmp_path / "host1" / "docs", source="docs") == (0, 0, 1)


def make_earlier(folder: Path) -> Path:
    """Makes the manifest one of version 0.1.0, which recorded no sources."""
    forge(folder, lambda manifest: [manifest.pop(name) for name in ("sources", "unlisted")])
    return folder


def test_an_index_without_sources_never_doubles_or_replaces_in_silence(tmp_path: Path) -> None:
    earlier = [
        {"_id": "README.md", "text": "bread"},
        {"_id": "rows.csv:2", "text": "butter"},
        {"_id": "given", "text": "rain"},
    ]
    corpus = write(tmp_path / "corpus.jsonl", "".join(json.dumps(row) + "\n" for row in earlier))
    folder = make_earlier(build([corpus], tmp_path / "idx"))
    docs = write(tmp_path / "docs" / "README.md", "bread").parent
    write(docs / "new.md", "new bread")
    rows = write(tmp_path / "rows.csv", "text\nbutter\nmoon\n")
    for added in (2, 0):
        assert add(folder, docs, rows) == (added, 0, 4 - added)
    assert sorted(texts(folder).values()) == ["bread", "butter", "moon", "new bread", "rain"]
    assert {"README.md", "rows.csv:2", "docs/new.md"} <= set(texts(folder))
    write(docs / "README.md", "other")
    with pytest.raises(CorpusError, match="build the index again") as caught:
        add(folder, docs)
    assert "\n" not in str(caught.value)
    delete_documents(folder, ["README.md"])
    assert add(folder, docs) == (1, 0, 1)
