"""Additions from several sources: nothing is replaced by an id that was made; the same source again changes nothing."""

import io
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm2comp.errors import CorpusError, IndexFolderError, SettingsError
from llm2comp_indexes import (
    FieldNames,
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


def test_an_id_that_a_source_makes_of_a_path_is_refused_where_a_corpus_gives_it(tmp_path: Path) -> None:
    docs = write(tmp_path / "docs" / "a.md", "bread").parent
    note = write(tmp_path / "note.txt", "butter")
    folder = build([docs, note], tmp_path / "idx")
    for identifier in ("docs/a.md", "docs/b.md", "docs", "note.txt"):
        rows = [{"_id": identifier, "text": "rain"}, {"_id": f"{identifier}-2", "text": identifier}]
        corpus = write(tmp_path / "given.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(CorpusError, match='are made for documents of the source "(docs|note.txt)"; .*--source'):
            add(folder, corpus)
        with pytest.raises(CorpusError, match="are made for documents of the source"):
            build([corpus, docs, note], tmp_path / "both")
    assert texts(folder) == {"docs/a.md": "bread", "note.txt": "butter"}
    assert add_documents(folder, [corpus], model=WordEncoder(), on_error="skip")[:4] == (1, 0, 0, 1)


def test_a_folder_whose_name_begins_ids_that_were_given_is_refused(tmp_path: Path) -> None:
    folder = build([write(tmp_path / "a.jsonl", '{"_id": "docs/b.md", "text": "bread"}\n')], tmp_path / "idx")
    docs = write(tmp_path / "docs" / "a.md", "rain").parent
    with pytest.raises(CorpusError, match='"docs/b.md", which the source "docs" did not make, .*--source NAME'):
        add(folder, docs)
    assert add(folder, docs, source="notes") == (1, 0, 0)
    write(docs / "b.md", "moon")
    assert add(folder, docs) == (1, 0, 1)
    assert texts(folder) == {"docs/b.md": "bread", "notes/a.md": "rain", "notes/b.md": "moon"}


def test_ids_given_by_a_corpus_may_begin_with_its_name(tmp_path: Path) -> None:
    corpus = write(tmp_path / "arxiv" / "corpus.jsonl", '{"_id": "arxiv/1", "text": "bread"}\n')
    folder = build([corpus.parent], tmp_path / "idx")
    write(corpus, '{"_id": "arxiv/1", "text": "rain"}\n')
    assert add(folder, corpus.parent) == (0, 1, 0)
    assert add(folder, write(tmp_path / "b.jsonl", '{"_id": "arxiv/1", "text": "moon"}\n')) == (0, 1, 0)
    assert texts(folder) == {"arxiv/1": "moon"}


def test_an_id_made_of_content_stays_with_its_content(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", '{"text": "bread"}\n')
    folder = build([rows], tmp_path / "idx")
    [made] = texts(folder)
    same = write(tmp_path / "same.jsonl", json.dumps({"_id": made, "text": "bread"}))
    other = write(tmp_path / "other.jsonl", json.dumps({"_id": made, "text": "rain"}))
    assert add(folder, same) == (0, 0, 1)
    with pytest.raises(CorpusError, match=f"{made}: in the index for another document.*llm2comp index delete"):
        add(folder, other)
    assert texts(folder) == {made: "bread"}
    reverse = build([other], tmp_path / "reverse")
    with pytest.raises(CorpusError, match=f"{made}: the id made for it .*--source NAME"):
        add(reverse, rows)
    assert add(reverse, rows, source="mine") == (1, 0, 0)
    write(other, json.dumps({"_id": made, "text": "moon"}))
    assert add(reverse, other) == (0, 1, 0)  # nothing of the source rows.jsonl is in that index


def pipe(monkeypatch: pytest.MonkeyPatch, *rows: dict[str, Any]) -> Path:
    """Standard input with these rows."""
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    return Path("-")


def test_standard_input_is_one_source_that_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bread, rain = {"text": "bread"}, {"text": "rain", "n": 1}
    folder = build([pipe(monkeypatch, bread, bread)], tmp_path / "idx")
    assert add(folder, pipe(monkeypatch, rain, {"text": "rain", "n": True}, {"_id": "x", "text": "moon"})) == (3, 0, 0)
    assert add(folder, pipe(monkeypatch, rain, bread)) == (0, 0, 2)
    assert add(folder, pipe(monkeypatch, bread), source="tuesday") == (1, 0, 0)
    assert sorted(texts(folder).values()) == ["bread"] * 3 + ["moon"] + ["rain"] * 2
    assert [source.name for source in read_manifest(folder).sources or ()] == ["stdin", "tuesday"]
    with pytest.raises(SettingsError, match="stdin, tuesday; choose one of them"):
        add(folder, pipe(monkeypatch, rain))
    assert add(folder, pipe(monkeypatch, rain), source="stdin") == (0, 0, 1)


def test_positions_in_standard_input_need_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="--source NAME"):
        build([pipe(monkeypatch, {"text": "bread"})], tmp_path / "idx", ids_are_positions=True)
    folder = build([pipe(monkeypatch, {"text": "bread"})], tmp_path / "idx", ids_are_positions=True, source="log")
    with pytest.raises(SettingsError, match="--source NAME"):
        add(folder, pipe(monkeypatch, {"text": "rain"}))
    assert add(folder, pipe(monkeypatch, {"text": "rain"}), source="log") == (0, 1, 0)
    assert texts(folder) == {"log/-:1": "rain"}


HASHED = "rows.jsonl#d4c7b648d39f9709"  # the id that is made for the row {"text": "one"}
ADDED = {
    "docs": ["a.md", "b/c.md"],
    "rows.jsonl": ["one", "two"],
    "given.jsonl": ["docs", "docs/a.md", "docs/b/c.md", HASHED, "x"],
}
ADDITIONS = st.lists(
    st.sampled_from(list(ADDED)).flatmap(
        lambda kind: st.tuples(st.just(kind), st.sets(st.sampled_from(ADDED[kind]), min_size=1))
    ),
    min_size=2,
    max_size=4,
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(additions=ADDITIONS)
def test_no_document_takes_the_place_of_one_from_elsewhere(additions: list[tuple[str, set[str]]]) -> None:
    with TemporaryDirectory() as root:
        expected: dict[tuple[str, str], str] = {}
        folder = Path(root, "idx")
        for step, (kind, names) in enumerate(additions):
            new = {(kind, name): name if kind == "rows.jsonl" else f"text {step} of {name}" for name in sorted(names)}
            path = write_addition(Path(root), kind, new)
            try:
                add(folder, path) if expected else build([path], folder)
            except CorpusError:
                continue
            expected |= new
        assert sorted(texts(folder).values()) == sorted(expected.values())


def write_addition(root: Path, kind: str, content: dict[tuple[str, str], str]) -> Path:
    if kind == "docs":
        shutil.rmtree(root / kind, ignore_errors=True)
        for (_, name), text in content.items():
            write(root / kind / name, text)
    else:
        named = kind == "given.jsonl"
        rows = [{"text": text} | ({"_id": name} if named else {}) for (_, name), text in content.items()]
        write(root / kind, "".join(json.dumps(row) + "\n" for row in rows))
    return root / kind


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


def test_a_source_keeps_the_fields_it_was_added_with(tmp_path: Path) -> None:
    rows = "page,heading,words\n1,Bread,It rises.\n2,Rain,It falls.\n"
    path = write(tmp_path / "wiki.csv", rows)
    folder = build([path], tmp_path / "idx", fields=FieldNames("page", "heading", ("words",)))
    assert texts(folder) == {"1": "It rises.", "2": "It falls."}
    write(path, rows.replace("1,", "0,New,It is put on top.\n1,", 1))
    assert add(folder, path) == (1, 0, 2)
    [source] = read_manifest(folder).sources or ()
    assert source.fields == FieldNames("page", "heading", ("words",))
    assert add(folder, path, fields=FieldNames("page", text=("heading", "words"))) == (0, 3, 0)
    assert texts(folder)["1"] == "Bread\n\nIt rises."


def test_another_field_of_ids_is_refused_for_a_known_source(tmp_path: Path) -> None:
    """With it, every document would be added a second time."""
    path = write(tmp_path / "wiki.csv", "id,page,text\na,1,It rises.\nb,2,It falls.\n")
    folder = build([path], tmp_path / "idx")
    with pytest.raises(
        SettingsError, match=r'in the index as "wiki.csv", with ids from the first known name, not "page"'
    ):
        add(folder, path, fields=FieldNames("page"))
    assert add(folder, path, fields=FieldNames(text=("text",))) == (0, 0, 2)
    assert add(folder, path, fields=FieldNames("page"), source="pages") == (2, 0, 0)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        {"id": 1, "title": None, "text": [], "metadata": None},
        {"id": "a", "title": "a", "text": [], "metadata": None},
    ],
)
def test_malformed_fields_of_a_source(fields: Any, tmp_path: Path) -> None:
    folder = build([write(tmp_path / "a.jsonl", '{"_id": "x", "text": "bread"}\n')], tmp_path / "idx")
    forge(folder, lambda manifest: manifest["sources"][0].update(fields=fields))
    with pytest.raises(IndexFolderError, match=r"manifest\.json"):
        read_manifest(folder)


def test_an_index_from_before_fields_were_recorded(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"_id": "x", "text": "bread"}\n')
    folder = build([path], tmp_path / "idx")
    forge(folder, lambda manifest: manifest["sources"][0].pop("fields"))
    assert add(folder, path) == (0, 0, 1)


def test_rows_without_ids_are_not_added_once_more_with_other_fields(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", "text,year,page\nbread,1,2\nrain,3,4\n")
    folder = build([path], tmp_path / "idx")
    with pytest.raises(
        CorpusError, match='the source "rows.csv" was added with other fields, and its rows have no ids'
    ):
        add(folder, path, fields=FieldNames(metadata=("year",)))
    assert add(folder, path) == (0, 0, 2)
    assert add(folder, path, fields=FieldNames(metadata=("year",)), source="short") == (2, 0, 0)


def test_new_fields_and_places_of_unchanged_documents_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "a" / "rows.csv", "id,words\n1,bread\n")
    folder = build([path], tmp_path / "idx", fields=FieldNames(text=("words",)))
    moved = tmp_path / "b" / "rows.csv"
    moved.parent.mkdir()
    shutil.move(path, moved)
    assert add(folder, moved, source="rows.csv") == (0, 0, 1)
    assert add(folder, moved) == (0, 0, 1)
    assert [source.root for source in read_manifest(folder).sources or ()] == [str(moved)]
